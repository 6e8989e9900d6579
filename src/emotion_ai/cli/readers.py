"""What the commands that read faces read with: a served model, or the bundled weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emotion_ai.client import FaceClient
from emotion_ai.contract import Servable
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import PhotoReader

if TYPE_CHECKING:
    from emotion_ai.inference.answer_log import AnswerLog


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """Options of `predict`, `video` and `score`.

    Attributes:
        server: a server's address; without it the bundled weights are used, with PyTorch.
        model, signature, version, label: of the served model.
        device, precision: of the networks without a server.
        timeout: seconds to wait for a server that is away; by default `patience.WAIT` once it has answered, before that
            not at all.
    """

    server: str | None = None
    model: Servable = "face"
    signature: str | None = None
    version: int | None = None
    label: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    timeout: float | None = None

    def check(self) -> None:
        """Checks that they fit together.

        Raises:
            ConfigError: they do not.
        """
        if self.timeout is not None and not 0 <= self.timeout < math.inf:
            raise ConfigError(f"--timeout must be seconds, 0 or more, got {self.timeout:g}")
        if self.server is None and (self.model, self.signature, self.version, self.label) != ("face", None, None, None):
            raise ConfigError(
                "--model, --signature, --version and --label choose a served model; give --server as well"
            )
        if self.server is not None and (self.device, self.precision) != ("auto", "fp32"):
            raise ConfigError("--device and --precision are for reading without a server; leave out --server")

    @contextmanager
    def opened(self, uncertain_below: float | None, log: "AnswerLog | None" = None) -> Iterator[PhotoReader]:
        """The reader, for as long as the context lasts.

        Args:
            uncertain_below: confidence below which an emotion counts as uncertain; None for the reader's own threshold.
            log: to which the answers are appended.
        """
        if self.server is None:
            from emotion_ai.inference.reader import FaceReader  # imports PyTorch

            reader = FaceReader.bundled(uncertain_below, device=self.device, precision=self.precision)
            yield log.of(reader) if log else reader
            return
        with FaceClient(
            self.server,
            model=self.model,
            version=self.version,
            label=self.label,
            signature=self.signature,
            uncertain_below=uncertain_below,
            log=log,
        ) as client:
            yield client


def local_record(reader: PhotoReader) -> dict[str, str]:
    """Where and in which precision a `FaceReader` reads, for records; nothing of other readers."""
    placement = getattr(reader, "placement", None)
    return {} if placement is None else {"device": placement.name, "precision": placement.precision}
