"""What the intervals of an evaluation resample: people if they are known, otherwise near-identical faces together."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.near_identical import near_identical_groups
from emotion_ai.evaluation.side_tables import FaceRows, Texts, read_side_table
from emotion_ai.evaluation.statistics import Units

PEOPLE_COLUMNS = ("person", "person_id", "people", "subject", "subject_id", "identity")
"""Names of a column that tells people apart, in the dataset or a file beside it."""

AUTO, NONE = "auto", "none"


def resampling_units(people: str, faces: FaceRows, images: NDArray[np.uint8]) -> Units:
    """The units that intervals resample.

    Args:
        people: a CSV file beside the dataset; a column of the dataset; "auto", one of `PEOPLE_COLUMNS` if the dataset
            has it, otherwise near-identical faces together; or "none", every face on its own.
        faces: the evaluated faces.
        images: uint8 (N, H, W), the same.

    Raises:
        DataError: a file that does not fit the faces, or a face without a person.
        ConfigError: neither a file nor a column.
    """
    if people == NONE:
        return Units.faces(len(faces))
    own = faces.columns()
    if people == AUTO:
        found = next((name for name in own if name.lower() in PEOPLE_COLUMNS), None)
        if found is None:
            return _near_identical(images)
        return _of_dataset(found, faces)
    if people in own:
        return _of_dataset(people, faces)
    if not Path(people).exists():
        columns = ", ".join(PEOPLE_COLUMNS[:3])
        raise ConfigError(
            f"data.people={people}: no such file, nor a column of the dataset; give either ({columns}, …)"
        )
    table = read_side_table(Path(people), faces)
    names = [name for name in table if name.lower() in PEOPLE_COLUMNS] or list(table)
    if len(names) > 1:
        raise DataError(f"{people}: has the columns {', '.join(names)[:80]}; call the one with the people person")
    return _people(table[names[0]], f"{people}, column {names[0]}")


def _of_dataset(name: str, faces: FaceRows) -> Units:
    return _people(faces.read([name])[name][faces.places], f"{faces.dataset}, column {name}")


def _people(values: Texts, where: str) -> Units:
    if missing := int((values == "").sum()):
        raise DataError(f"{where}: empty for {missing:,} of the {len(values):,} evaluated faces; fill it in")
    return Units.of(values, "people")


def _near_identical(images: NDArray[np.uint8]) -> Units:
    units = Units(near_identical_groups(images), "groups of near-identical faces")
    return Units.faces(len(images)) if units.independent else units
