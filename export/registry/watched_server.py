"""A running server, watched while the versions that it serves change."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from emotion_ai.client import FaceClient
from emotion_ai.contract import SERVABLES, Servable
from emotion_ai.errors import ClientError, ExportError, ServerUnreachableError

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class WatchedServer:
    """Attributes:
    address: http:// (REST) or grpc://.
    timeout: seconds that each step may take.
    """

    address: str
    timeout: float = 120.0

    def wait_available(self, model: str, number: int) -> None:
        """Waits until the server has loaded a version.

        Raises:
            ExportError: it cannot load the version, or not in time.
            ClientError: it does not respond.
        """

        def available(client: FaceClient) -> bool:
            for entry in client.status():
                if int(entry["version"]) == number:
                    problem = entry["status"]["error_message"]
                    if entry["state"] == "END" and problem:
                        raise ExportError(f"{self.address}: cannot load {model} version {number}: {problem}")
                    return str(entry["state"]) == "AVAILABLE"
            return False

        with FaceClient(self.address, model=cast(Servable, model)) as client:
            self._wait(lambda: available(client), f"{model} version {number} is not AVAILABLE")

    def wait_label(self, model: str, label: str, number: int | None) -> None:
        """Waits until a label names a version; None waits until the label is gone.

        Raises:
            ExportError: not in time.
            ClientError: the server does not respond.
        """

        def moved(client: FaceClient) -> bool:
            try:
                return bool(client.metadata()["model_spec"]["version"] == str(number))
            except ServerUnreachableError:
                raise
            except ClientError:
                return number is None

        with FaceClient(self.address, model=cast(Servable, model), label=label) as client:
            self._wait(lambda: moved(client), f"{model}'s label {label} has not moved to {number}")

    def _wait(self, done: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + self.timeout
        while not done():
            if time.monotonic() > deadline:
                raise ExportError(
                    f"{self.address}: {problem} after {self.timeout:g} s; check that it polls this models.config "
                    "(--model_config_file, --model_config_file_poll_wait_seconds=1)"
                )
            time.sleep(_POLL_SECONDS)


def server_states(address: str) -> dict[str, dict[int, str]]:
    """The state of every version, by model and number; empty if no server responds.

    Raises:
        ClientError: the server's response is not TensorFlow Serving's.
    """
    states: dict[str, dict[int, str]] = {}
    for model in SERVABLES:
        with FaceClient(address, model=model, retries=0) as client:
            try:
                states[model] = client.versions()
            except ServerUnreachableError:
                return {}
            except ClientError:
                states[model] = {}
    return states
