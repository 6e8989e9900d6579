"""Waits until a server has loaded a version, and tells at once what keeps it from that."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.published import CHECKSUMS_FILE, CONFIG_FILE, WARMUP_FILE
from emotion_ai_export.registry.following import WITHOUT_FLAG, Following
from emotion_ai_export.registry.server_record import leave_out
from emotion_ai_export.registry.watched_server import States, WatchedServer

DIFFERS = f"differs from {CHECKSUMS_FILE}"
_SOON, _LATER = 1.5, 12.0  # polls in which no state changes while a version is loaded


class LoadError(ExportError):
    """A server cannot load a version.

    Attributes:
        number: of the version.
        reason: the server's own text, with the model before it.
    """

    def __init__(self, server: WatchedServer, model: str, number: int, problem: str) -> None:
        self.number, self.reason = number, f"{model}: {' '.join(problem.split())}"
        super().__init__(
            f"{server.address}: cannot load {model} version {number}: {' '.join(problem.split())}; it is left out of "
            f"{CONFIG_FILE} until it is promoted again"
        )


class LoadWatch:
    """Waits until a server has loaded a version that has been added to `models.config`.

    Args:
        base: the published folder.
        server: that reads its `models.config`.
        number: of the version.
        before: the server's states before it was added.
        listed: the models whose entries listed it already, for longer than the server needs to follow.
        models: whose version is waited for.
    """

    def __init__(
        self,
        base: Path,
        server: WatchedServer,
        number: int,
        before: States,
        listed: set[str],
        models: Sequence[str] = SERVABLES,
    ) -> None:
        self._base, self._server, self._number, self._models = base, server, number, models
        self._before, self._believed = before, set(listed)
        self._following, self._changed = Following(base, server), time.monotonic()
        self._states: States = {}
        self._added = len(listed) < len(SERVABLES)
        self._damage: dict[tuple[str, int], str] = {}

    def wait(self) -> None:
        """Raises:
        LoadError: the server cannot load the version.
        ExportError: not in time, or another version holds it up.
        ClientError: it does not respond.
        """
        while pending := self._pending():
            self._explain(pending)
            self._server.wait()
        if self._added:  # another server of the folder must not miss this step: it would reject the next ones
            time.sleep(max(0.0, self._server.settle - self._following.waited))

    def _pending(self) -> list[str]:
        """The models whose version is not loaded.

        A state that the server had before the change may be out of date until it has had the time to follow: AVAILABLE
        of a version that is about to be unloaded, or the error of an attempt that it is about to repeat.
        """
        states, now = self._server.states(), time.monotonic()
        pending: list[str] = []
        if states != self._states:
            self._states, self._changed = states, now
        waited = self._following.waited / self._server.settle
        busy = any(state.name == "LOADING" for found in states.values() for state in found.values())
        others = [found[self._number].name for found in states.values() if self._number in found]
        followed = self._added and len(self._believed) == len(SERVABLES) - 1 == others.count("AVAILABLE")
        for model in self._models:
            state = states[model].get(self._number)
            if state != self._before[model].get(self._number):
                self._believed.add(model)
            if state and state.failed and (model in self._believed or ((waited > 1.5 or followed) and not busy)):
                raise LoadError(self._server, model, self._number, state.problem)
            believed = model in self._believed or waited > 1
            if not (state and state.name == "AVAILABLE" and believed):
                pending.append(model)
        return pending

    def _explain(self, pending: list[str]) -> None:
        """Tells soon why it takes longer, and gives up where waiting is useless."""
        following, server, number = self._following, self._server, self._number
        loading = following.loading(self._states)
        model, other = next((each for each in loading if each[1] != number), loading[0] if loading else ("", number))
        still = (time.monotonic() - self._changed) / server.poll
        if loading and still > _SOON:
            damage = self._damage_of(model, other) if model in SERVABLES else ""
            certain = bool(damage) and (still > _LATER or DIFFERS not in damage)
            if certain and other == number:
                raise LoadError(server, model, number, f"{damage} ({WITHOUT_FLAG})")
            if certain:
                leave_out(self._base, other, f"{model}: {damage}")
                raise ExportError(
                    f"{server.address}: version {number} has to wait for {model} version {other}, which is LOADING and "
                    f"broken ({damage}); {WITHOUT_FLAG}; add the flag, or try again later"
                )
            following.say(f"waiting for {model} version {other}, which is LOADING; {WITHOUT_FLAG}")
        unseen = number not in self._states[pending[0]] and not loading
        if unseen and following.waited > 2 * server.settle:
            following.say(f"{pending[0]} version {number} has not appeared yet; {server.hint}")
        useless = unseen and following.useless()
        if not useless and following.waited <= server.timeout:
            return
        problem = f"is not AVAILABLE after {following.waited:.0f} s"
        if other == number and model in SERVABLES:
            raise LoadError(server, model, number, f"{problem}, still LOADING")
        if loading:
            hint = f"{model} version {other} is LOADING; give more time with --timeout; {WITHOUT_FLAG}"
        else:
            hint = server.hint
        raise ExportError(f"{server.address}: {pending[0]} version {number} {problem}; {hint}")

    def _damage_of(self, model: str, number: int) -> str:
        if (model, number) not in self._damage:
            self._damage[model, number] = damage_of(self._base / model / str(number))
        return self._damage[model, number]


def damage_of(version: Path) -> str:
    """What is wrong with the files that a server loads, as far as that shows without TensorFlow; "" if nothing is."""
    if garbage := garbage_of(version):
        return garbage
    try:
        lines = (version / CHECKSUMS_FILE).read_text().splitlines()
    except (OSError, ValueError):
        return ""
    for digest, _, name in (line.partition("  ") for line in lines):
        if name.startswith(("saved_model.pb", "variables/", "assets/", WARMUP_FILE)):
            try:
                found = hashlib.sha256((version / name).read_bytes()).hexdigest()
            except OSError as error:
                return f"{version / name}: {error.strerror}"
            if found != digest:
                return f"{version / name}: {DIFFERS}"
    return ""


def garbage_of(version: Path) -> str:
    """What is wrong with a version that no server can load; "" if it has a file that may be a SavedModel."""
    saved = version / "saved_model.pb"
    try:
        content = saved.read_bytes()
        Empty().ParseFromString(content)
    except OSError as error:
        return f"{saved}: {error.strerror}"
    except DecodeError:
        return f"{saved}: not a SavedModel"
    return "" if content else f"{saved}: empty"
