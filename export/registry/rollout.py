"""Changes of `models.config` that a running server follows, one step at a time.

TensorFlow Serving reads the file once a second, and then the folders. It rejects the whole file if a label moves to a
version that is not AVAILABLE; until the folders have been read, AVAILABLE may be out of date. So the labels of a first
step are always those that the server has, a state is believed once the server has had the time to follow the file, and
each step can be killed: what it leaves is a file that the server accepts.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from emotion_ai.client.transport import LABEL
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ClientError, ExportError, ServerUnreachableError
from emotion_ai.files import read_text
from emotion_ai.published import CONFIG_FILE, LOCK_FILE, whole_versions
from emotion_ai_export.registry.following import WITHOUT_FLAG, Following
from emotion_ai_export.registry.label_history import earlier_versions
from emotion_ai_export.registry.loading import LoadError, LoadWatch, damage_of, garbage_of
from emotion_ai_export.registry.model_config import (
    ModelConfig,
    parse,
    read_config,
    replace_entries,
    write_config_text,
)
from emotion_ai_export.registry.server_record import (
    UNCONFIRMED,
    confirm,
    forget_unconfirmed,
    leave_out,
    left_out,
    read_record,
    take_back,
)
from emotion_ai_export.registry.staging import locked, notice
from emotion_ai_export.registry.watched_server import States, WatchedServer, running_server

VERSION_LABELS = ("stable", "canary")


@dataclass(frozen=True)
class Rollout:
    """Changes of one folder's `models.config`, whose lock the caller holds, and the server that follows them."""

    base: Path
    server: WatchedServer

    def agree(self, configs: list[ModelConfig], number: int | None = None) -> list[ModelConfig]:
        """The entries with the labels that the server has, and without the versions that it could not load.

        They differ from the file's if the server rejected that, for a label of a version that it has not loaded. What
        the server reports may be older than the file, so this waits until it cannot be. It does not if `number`, the
        version to be loaded next, is not loaded and all labels are as in the file: nothing else matters then. A
        version that failed and was repaired is tried again only if the server has seen the file without it.

        Raises:
            ExportError: the server has labels that this folder never gave it; it reads another file.
            ClientError: the server does not respond.
        """
        states, names = self._first_states(configs), _label_names(configs)
        known = {model: found[number] for model, found in states.items() if number in found} if number else {}
        ended = number is not None and all(state.name == "END" and not state.failed for state in known.values())
        garbage = any(state.failed and garbage_of(self.base / m / str(number)) for m, state in known.items())
        same = self.server.labels(names) == {config.name: _askable(config.labels) for config in configs}
        if not (same and (ended or garbage)):
            time.sleep(min(self.server.settle, max(0.0, self.server.settle - _age(self.base))))
            states = self.server.states()
        labels = self._server_labels(configs, states)
        for number in left_out(self.base):
            if loaded(states, number) and any(number in config.versions for config in configs):
                take_back(self.base, number)
        agreed = [
            replace(c, labels=labels[c.name], versions=(*versions_or_newest(self.base, c), *labels[c.name].values()))
            for c in configs
        ]
        return [_without_broken(self.base, config) for config in agreed]

    def _first_states(self, configs: list[ModelConfig]) -> States:
        """The server's states. Without a server, a version at which a command was killed may be what keeps it from
        starting, so it is taken out of the file."""
        try:
            return self.server.states()
        except ServerUnreachableError:
            startable = [_without_broken(self.base, config) if config.versions else config for config in configs]
            dropped = {n for config in configs for n in config.versions} - {n for c in startable for n in c.versions}
            if dropped:
                replace_entries(self.base, startable)
                numbers = ", ".join(map(str, sorted(dropped)))
                notice(f"{self.base / CONFIG_FILE}: version {numbers}, which no server has loaded, is left out")
            raise

    def _server_labels(self, configs: list[ModelConfig], states: States) -> dict[str, dict[str, int]]:
        """The server's labels by model; a line on stderr for each that differs from the file."""
        names = _label_names(configs)
        served, same = self.server.labels(names), True
        notices: dict[str, None] = {}
        for config, name in product(configs, names):
            listed, now = config.labels.get(name), served[config.name].get(name)
            same &= listed == now
            if listed == now:
                continue
            if self._gave(name, listed, now, states):
                notices[
                    f"{self.base / CONFIG_FILE}: {name} is {_version(listed)} there, but {_version(now)} on "
                    f"{self.server.address}, which rejects a file whose label names a version that is not loaded; "
                    "the server's labels are written back"
                ] = None
            elif now is None and listed is not None and not loaded(states, listed):
                served[config.name][name] = listed  # unused there, so the server accepts it
            else:
                raise ExportError(
                    f"{self.server.address}: {name} is {_version(now)} there, but {_version(listed)} in "
                    f"{self.base / CONFIG_FILE}, which that server does not read; give the right one with --server, or "
                    "leave the server out with --offline"
                )
        for text in notices:
            notice(text)
        if same:
            confirm(self.base, _common(configs))
        others = {c.name: {name: n for name, n in c.labels.items() if name not in names} for c in configs}
        return {model: others[model] | labels for model, labels in served.items()}

    def load(self, configs: list[ModelConfig], number: int) -> list[ModelConfig]:
        """The entries with one more version, once the server has loaded it.

        Raises:
            LoadError: it cannot load the version.
            ExportError: not in time.
            ClientError: it does not respond.
        """
        before = self.server.states()
        listed = {config.name for config in configs if number in config.versions}
        labelled = number in {n for config in configs for n in config.labels.values()}
        for model in SERVABLES:
            state, version = before[model].get(number), self.base / model / str(number)
            if not (state and state.failed):
                continue
            if damage_of(version) if model in listed else garbage_of(version):
                raise LoadError(self.server, model, number, state.problem)
            if model in listed and not labelled:
                configs, listed = self._drop(configs, number), set()  # repaired since: tried again once it was out
                before = self.server.states()
                break
        if not (loaded(before, number) and len(listed) == len(configs)):
            leave_out(self.base, number, UNCONFIRMED)  # until it is loaded, in case this process is killed
        longer = [replace(config, versions=(*versions_or_newest(self.base, config), number)) for config in configs]
        damaged = [] if listed else [m for m in SERVABLES if damage_of(self.base / m / str(number))]
        if damaged:  # their error comes at once if the server does not load and warm up the others first
            first = [new if new.name in damaged else old for old, new in zip(configs, longer, strict=True)]
            replace_entries(self.base, first)
            LoadWatch(self.base, self.server, number, before, listed, damaged).wait()
        replace_entries(self.base, longer)
        LoadWatch(self.base, self.server, number, before, listed).wait()
        return longer

    def _drop(self, configs: list[ModelConfig], number: int) -> list[ModelConfig]:
        """The entries without a version, once the server has followed."""
        shorter = [replace(config, versions=tuple(n for n in config.versions if n != number)) for config in configs]
        if all(config.versions for config in shorter):  # an empty list would mean the newest
            replace_entries(self.base, shorter)
            time.sleep(self.server.settle)
        return shorter

    def relabel(self, configs: list[ModelConfig], label: str, number: int | None) -> list[ModelConfig]:
        """The entries with a label on a loaded version, or without it, once the server has them.

        Raises:
            LoadError: the server unloaded the version, and cannot load it again.
            ExportError: not in time.
            ClientError: it does not respond.
        """
        moved = [relabelled(config, label, number) for config in configs]
        replace_entries(self.base, moved)
        following = Following(self.base, self.server)
        while any(labels.get(label) != number for labels in self.server.labels([label]).values()):
            states = self.server.states()
            if number is not None and not loaded(states, number):
                self.load(configs, number)  # it was about to be unloaded, and the file is rejected
                replace_entries(self.base, moved)
            if loading := following.loading(states):
                if following.waited > self.server.settle:
                    following.say(f"waiting for {' version '.join(map(str, loading[0]))}, which is LOADING")
            elif following.useless() or following.waited > self.server.timeout:
                raise ExportError(
                    f"{self.server.address}: {label} has not moved to {_version(number)} after "
                    f"{following.waited:.0f} s; {self.server.hint}"
                )
            self.server.wait()
        return moved

    def move(
        self, configs: list[ModelConfig], label: str, number: int | None, remember: Callable[[], None]
    ) -> list[ModelConfig]:
        """Moves a label on the server; returns the entries to go on with. `remember` is called before the label moves.

        Raises:
            LoadError: the server cannot load the version; `models.config` is as before.
            ExportError: not in time, or the server reads another file; `models.config` is as before.
            ClientError: it does not respond; `models.config` is as before.
        """
        text = read_text(self.base / CONFIG_FILE)
        agreed = self.agree(configs, number)
        reason = left_out(self.base).get(number or 0)
        try:
            longer = agreed if number is None else self.load(agreed, number)
            remember()
            moved = self.relabel(longer, label, number)
        except BaseException as error:
            self.take_out(error, number, reason)
            self._restore(agreed, text)
            raise
        if number is not None:
            take_back(self.base, number)
        confirm(self.base, _common(moved))
        return moved

    def wait_unloaded(self, numbers: list[int]) -> None:
        """Waits a moment until the server has dropped versions; a line on stderr tells if it has not."""
        deadline = time.monotonic() + self.server.settle
        while True:
            states = self.server.states()
            found = [(model, n, state.name) for model in states for n, state in states[model].items()]
            kept = sorted({n for _, n, name in found if n in numbers and name in ("AVAILABLE", "UNLOADING")})
            if not kept:
                return
            if time.monotonic() > deadline:
                break
            self.server.wait()
        busy = next((f"{model} version {n}" for model, n, name in found if name == "LOADING"), "")
        notice(
            f"{self.server.address}: still keeps version {', '.join(map(str, kept))} in memory; "
            + (f"{busy} is LOADING, and {WITHOUT_FLAG}" if busy else self.server.hint)
        )

    def take_out(self, error: BaseException, number: int | None, reason: str | None) -> None:
        """Records why a version is not served; what did not fail gets its former record, if it had one."""
        if isinstance(error, LoadError):
            leave_out(self.base, error.number, error.reason)
        elif number is not None and reason is not None:
            leave_out(self.base, number, reason)
        elif number is not None:
            take_back(self.base, number)

    def _restore(self, agreed: list[ModelConfig], text: str) -> None:
        """Writes the file as it was, without a version that has failed meanwhile and with the server's labels."""
        restored = [_without_broken(self.base, config) for config in agreed]
        if restored != [config for config in parse(text) if config.name in SERVABLES]:
            replace_entries(self.base, restored)
        elif read_text(self.base / CONFIG_FILE) != text:
            write_config_text(self.base, text)

    def _gave(self, label: str, listed: int | None, now: int | None, states: States) -> bool:
        """Whether a command of this folder gave the server that label, and wrote another one since."""
        confirmed = read_record(self.base).labels
        if confirmed is not None:
            return confirmed.get(label) == now
        rejected = listed is not None and not loaded(states, listed)
        return rejected and now in earlier_versions(self.base, label, listed).values()


def warn_if_running(base: Path, address: str) -> None:
    """Prints a line on stderr if a server has our models, although `models.config` is changed without it."""
    with suppress(ClientError):
        if not running_server(address):
            return
        notice(
            f"{address}: a server is running; if it reads this models.config, it rejects a label of a version that it "
            "has not loaded, and every later change: run the command again without --offline"
        )
        configs = [config for config in read_config(base) if config.name in SERVABLES]
        names = {name for config in configs for name in _askable(config.labels)}
        labels = {config.name: _askable(config.labels) for config in configs}
        if configs and WatchedServer(address).labels(names) == labels:
            with locked(base):
                confirm(base, _common(configs))


def server_of(base: Path, address: str | None) -> WatchedServer | None:
    """The server at an address, if one runs there with the versions that this folder lists."""
    listed = [config for config in read_config(base) if config.name in SERVABLES]
    with suppress(ClientError):
        states = running_server(address) if address and listed else None
        if states and all(states[config.name].keys() >= set(config.versions) for config in listed):
            return WatchedServer(address or "")
    return None


def load_published(base: Path, number: int, server: WatchedServer) -> None:
    """Waits until a server has loaded a version that was just published, then drops the newest before it.

    What is no fault of the version is one line on stderr.

    Raises:
        LoadError: the server cannot load it; it is left out of `models.config`.
    """
    rollout = Rollout(base, server)
    text = read_text(base / CONFIG_FILE)
    configs = [config for config in parse(text) if config.name in SERVABLES]
    try:
        agreed = rollout.agree(configs)
        longer = rollout.load(agreed, number)
        take_back(base, number)
        settle(base, longer)
    except LoadError as error:
        leave_out(base, error.number, error.reason)
        settle(base, configs)
        raise
    except (ExportError, ClientError) as error:
        take_back(base, number)
        notice(f"{error}; version {number} is published, and loaded when a server follows")


def settle(base: Path, configs: list[ModelConfig]) -> None:
    """Writes the last step of a change: what `settled` lists."""
    replace_entries(base, settled(base, configs))
    forget_unconfirmed(base)


def settled(base: Path, configs: list[ModelConfig]) -> list[ModelConfig]:
    """The policy between changes: labelled versions, and the newest that was listed and is not left out."""
    whole = set(whole_versions(base))

    def policy(config: ModelConfig) -> tuple[int, ...]:
        good = _without_broken(base, config).versions
        return tuple(sorted({*config.labels.values(), *sorted(whole & set(good))[-1:]} & whole)) or good

    return [replace(config, versions=policy(config)) for config in configs]


def _without_broken(base: Path, config: ModelConfig) -> ModelConfig:
    """The entry without versions that are left out, unless a label names them; with another one if none remains."""
    broken = left_out(base).keys() - set(config.labels.values())
    listed = tuple(sorted({n for n in versions_or_newest(base, config) if n not in broken}))
    return replace(config, versions=listed or tuple(n for n in whole_versions(base) if n not in broken)[-1:])


def relabelled(config: ModelConfig, label: str, number: int | None) -> ModelConfig:
    """The entry with a label on a version; None removes the label."""
    others = {name: value for name, value in config.labels.items() if name != label}
    return replace(config, labels=others if number is None else {**others, label: number})


def versions_or_newest(base: Path, config: ModelConfig) -> tuple[int, ...]:
    """The versions that an entry lists, ascending; without any, what the server takes: the newest."""
    return tuple(sorted(config.versions)) or tuple(whole_versions(base)[-1:])


def loaded(states: States, number: int) -> bool:
    """Whether a version of all models is AVAILABLE."""
    return all(number in found and found[number].name == "AVAILABLE" for found in states.values())


def _age(base: Path) -> float:
    """Seconds since `models.config` was written, by the clock of its file system; a copy may keep an old mtime."""
    (base / LOCK_FILE).touch()
    return (base / LOCK_FILE).stat().st_ctime - (base / CONFIG_FILE).stat().st_ctime


def _label_names(configs: list[ModelConfig]) -> list[str]:
    return sorted({*VERSION_LABELS, *(label for config in configs for label in _askable(config.labels))})


def _askable(labels: dict[str, int]) -> dict[str, int]:
    """The labels that requests can name."""
    return {name: number for name, number in labels.items() if LABEL.fullmatch(name)}


def _common(configs: list[ModelConfig]) -> dict[str, int]:
    """The labels that are the same version of all models."""
    first, *others = (config.labels for config in configs)
    return {name: number for name, number in first.items() if all(each.get(name) == number for each in others)}


def _version(number: int | None) -> str:
    return "not set" if number is None else f"version {number}"
