"""A small Ray of this process, for the tests of a module."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from emotion_ai.scoring import local_ray
from tests.scoring import fakes


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """Ray with two CPUs in this process, whose workers have the fakes of the tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with local_ray.running_ray(None, 2) as ray:  # imports Ray, which reads its settings then
            ray.cloudpickle.register_pickle_by_value(fakes)
            logging.getLogger("ray").setLevel(logging.ERROR)
            yield ray
