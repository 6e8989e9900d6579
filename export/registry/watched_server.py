"""A running server, watched while the versions that it serves change."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from emotion_ai.client.address import ServerAddress
from emotion_ai.client.checks import check_metadata, check_status
from emotion_ai.client.face_client import open_transport
from emotion_ai.client.transport import Connection, Transport
from emotion_ai.contract import SERVABLES, Servable
from emotion_ai.errors import (
    ConnectionSettingsError,
    ModelNotFoundError,
    ServerUnavailableError,
    ServerUnreachableError,
)

_NOT_LOADED = re.compile(r"Specific\([^)]*, (\d+)\)")  # an error's, of a label whose version is not loaded


@dataclass(frozen=True)
class VersionState:
    """Of one version on a server: START, LOADING, AVAILABLE, UNLOADING or END, and why it could not be loaded."""

    name: str
    problem: str = ""

    @property
    def failed(self) -> bool:
        return self.name == "END" and bool(self.problem)


States = dict[str, dict[int, VersionState]]
"""Of every version that a server has seen, by model and number."""


@dataclass(frozen=True)
class WatchedServer:
    """Attributes:
    address: http:// (REST) or grpc://; as text it has no user and password.
    timeout: seconds that loading a version may take.
    poll: seconds between two looks of the server at `models.config`, and at the folder.
    retries: of a request; by default, while the server or a proxy is overloaded, until its time-out.
    """

    address: str
    timeout: float = 120.0
    poll: float = 1.0
    retries: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.address, ServerAddress):
            object.__setattr__(self, "address", ServerAddress(self.address))

    @property
    def settle(self) -> float:
        """Seconds after which the server has followed a change: it reads the file, then the folder, then acts."""
        return 2.5 * self.poll

    @property
    def patience(self) -> float:
        """Seconds after which a server that shows no sign of a change does not follow it."""
        return min(self.timeout, 12 * self.settle)

    @property
    def hint(self) -> str:
        """What to check if nothing happens."""
        return (
            "check that it reads this folder's models.config (--model_config_file, "
            "--model_config_file_poll_wait_seconds=1) and that no label of another model there is on a version that is "
            "not loaded"
        )

    def wait(self) -> None:
        """Waits a moment before the next look."""
        time.sleep(0.2 * self.poll)  # a proxy may limit requests

    def states(self, models: Iterable[str] = SERVABLES) -> States:
        """The states of models' versions; none for a model that the server does not have.

        Raises:
            ClientError: the server does not respond, or not as TensorFlow Serving.
        """
        states: States = {}
        for model in models:
            with self._connected(model) as (transport, connection):
                try:
                    entries = check_status(transport.status(), connection)
                except ModelNotFoundError:
                    entries = []
            states[model] = {
                int(entry["version"]): VersionState(entry["state"], _problem(entry.get("status"))) for entry in entries
            }
        return states

    def labels(self, names: Iterable[str], models: Iterable[str] = SERVABLES) -> dict[str, dict[str, int]]:
        """The versions that labels name, by model and label; without those that the server does not have.

        Each name must match `LABEL`; the server takes others in its file, but no request can name them.

        Raises:
            ClientError: the server does not respond, or not as TensorFlow Serving.
        """
        found = {model: {name: self._label(model, name) for name in names} for model in models}
        return {
            model: {name: number for name, number in labels.items() if number is not None}
            for model, labels in found.items()
        }

    @contextmanager
    def _connected(self, model: str, label: str | None = None) -> Iterator[tuple[Transport, Connection]]:
        """Any model on the server, also one that is not ours."""
        server = cast(ServerAddress, self.address)
        connection = Connection(
            server.url,
            cast(Servable, model),
            label=label,
            retries=self.retries,
            ca_file=server.ca_file,
            headers=server.headers,
            proxy=server.proxy,
            cert=server.cert,
        )
        transport = open_transport(connection)
        try:
            yield transport, connection
        finally:
            transport.close()

    def _label(self, model: str, name: str) -> int | None:
        with self._connected(model, name) as (transport, connection):
            try:
                return int(check_metadata(transport.metadata(), connection)["model_spec"]["version"])
            except ModelNotFoundError as error:
                number = _NOT_LOADED.search(str(error))
                return int(number[1]) if number else None


def _problem(status: Any) -> str:
    """Why a version could not be loaded, at least the code; "" if nothing is wrong."""
    found = status if isinstance(status, dict) else {}
    code = found.get("error_code") or "OK"
    return str(found.get("error_message") or ("" if code == "OK" else code))


def running_server(address: str) -> States | None:
    """The states on a server that has our models; None if none responds, or it has not.

    Raises:
        ClientError: the address is wrong, or the server's response is not TensorFlow Serving's.
    """
    try:
        states = WatchedServer(address, retries=0).states()
    except ConnectionSettingsError:
        raise
    except ServerUnreachableError:
        return None
    except ServerUnavailableError:
        states = WatchedServer(address).states()
    return states if all(states.values()) else None
