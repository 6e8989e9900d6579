"""Why a server does not follow `models.config` yet: what it is loading, or what makes it reject the file."""

import time
from contextlib import suppress
from pathlib import Path

from emotion_ai.client.transport import LABEL
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ClientError, ExportError
from emotion_ai.published import CONFIG_FILE
from emotion_ai_export.registry.model_config import read_config
from emotion_ai_export.registry.staging import notice
from emotion_ai_export.registry.watched_server import States, WatchedServer

FLAG = "--max_num_load_retries=0"
WITHOUT_FLAG = f"a server started without {FLAG} retries a failed load for minutes and follows no other change"


class Following:
    """Watches a server from the moment at which `models.config` changed.

    Args:
        base: the published folder.
        server: that reads its `models.config`.
    """

    def __init__(self, base: Path, server: WatchedServer) -> None:
        self._base, self._server = base, server
        self._start = self._busy = time.monotonic()
        self._looked = 0.0
        self._others = [config.name for config in read_config(base) if config.name not in SERVABLES]
        self._said: set[str] = set()

    @property
    def waited(self) -> float:
        """Seconds since the change."""
        return time.monotonic() - self._start

    def loading(self, states: States) -> list[tuple[str, int]]:
        """The models and versions that are LOADING, also of models that are not ours."""
        if self.waited > self._server.poll:
            states = states | self._states_of_others()
        found = [(m, n) for m, known in states.items() for n, state in known.items() if state.name == "LOADING"]
        if found:
            self._busy = time.monotonic()
        return found

    def useless(self) -> bool:
        """Whether the server has loaded nothing for so long that it does not follow at all.

        Raises:
            ExportError: it rejects the file.
        """
        idle = time.monotonic() - self._busy
        if min(idle, self.waited - self._looked) > self._server.settle:
            self._looked = self.waited
            if reason := self._rejected():
                raise ExportError(f"{self._server.address}: does not follow {self._base / CONFIG_FILE}: {reason}")
        return idle > self._server.patience

    def say(self, text: str) -> None:
        """A line on stderr, once."""
        if text not in self._said:
            notice(f"{self._server.address}: {text}")
        self._said.add(text)

    def _states_of_others(self) -> States:
        """Of models that are not ours; without those that a proxy keeps to itself."""
        found: States = {}
        for model in self._others:
            with suppress(ClientError):
                found |= self._server.states([model])
        return found

    def _rejected(self) -> str:
        """What another model's entry does to the file; "" if nothing is wrong with it."""
        known = self._states_of_others()
        for config in read_config(self._base):
            if config.name not in known:
                continue
            states = known[config.name]
            if not states:
                return (
                    f"it has no version of {config.name}, and may be waiting for one in {config.base_path}; correct "
                    "that entry, or add a version"
                )
            named = {label: n for label, n in config.labels.items() if LABEL.fullmatch(label)}
            try:
                labels = self._server.labels(named, [config.name])[config.name]
            except ClientError:
                continue
            for label, number in named.items():
                state = states[number].name if number in states else "not there"
                if state not in ("AVAILABLE", "LOADING") and labels.get(label) != number:
                    return (
                        f"{label} of {config.name} is version {number} there, which is not loaded ({state}), so the "
                        "whole file is rejected; correct that entry"
                    )
        return ""
