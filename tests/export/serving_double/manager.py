"""Sources, labels and the manager that loads and unloads versions."""

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from emotion_ai.client import protos
from tests.export.serving_double import RELOAD, SCALE, StatusError
from tests.export.serving_double.saved_models import read_version

MANAGE_SECONDS = 0.1


@dataclass
class Servable:
    """A version as the manager sees it: new, loading, ready, disabled or error."""

    folder: Path
    stage: str = "new"
    aspired: bool = True
    signatures: Any = None


@dataclass
class Server:
    """Everything between the flags and the two APIs."""

    flags: argparse.Namespace
    configs: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    states: dict[str, dict[int, tuple[str, str, str]]] = field(default_factory=dict)  # of every version ever seen
    servables: dict[tuple[str, int], Servable] = field(default_factory=dict)
    pending: dict[str, dict[int, Path]] = field(default_factory=dict)
    executor: Executor | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    config_lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Loads what is configured.

        Raises:
            StatusError: the configuration is rejected, or a version failed.
        """
        self.executor = ThreadPoolExecutor(8)  # as --num_initial_load_threads
        for period, step in (
            (self.flags.file_system_poll_wait_seconds, self.poll_file_system),
            (MANAGE_SECONDS, self.manage),
        ):
            threading.Thread(target=repeat, args=(period * SCALE, step), daemon=True).start()
        self.reload(self.read_config())
        self.executor = ThreadPoolExecutor(self.flags.num_load_threads) if self.flags.num_load_threads else None
        if self.flags.model_config_file and self.flags.model_config_file_poll_wait_seconds:
            period = self.flags.model_config_file_poll_wait_seconds * SCALE
            threading.Thread(target=repeat, args=(period, self.poll_config), daemon=True).start()

    # --- sources

    def read_config(self) -> Any:
        config = protos.ModelServerConfig()
        if not self.flags.model_config_file:
            if not self.flags.model_base_path:
                empty = "Both server_options.model_base_path and server_options.model_config_file are empty!"
                raise StatusError("INVALID_ARGUMENT", empty)
            name, path = self.flags.model_name, self.flags.model_base_path
            config.model_config_list.config.add(name=name, base_path=path, model_platform="tensorflow")
            return config
        try:
            text = Path(self.flags.model_config_file).read_text()
            return text_format.Parse(text, config, allow_unknown_field=True)
        except OSError as error:
            raise StatusError("NOT_FOUND", f"{self.flags.model_config_file}; {error.strerror}") from error
        except (text_format.ParseError, UnicodeDecodeError) as error:
            print(error, file=sys.stderr)
            text = f"Invalid protobuf file: '{self.flags.model_config_file}'"
            raise StatusError("INVALID_ARGUMENT", text) from error

    def poll_config(self) -> None:
        try:
            self.reload(self.read_config())
        except StatusError as error:
            log(f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error}")

    def reload(self, config: Any) -> None:
        """`ServerCore::ReloadConfig`: labels first, then the whole list, then a wait for models that are new."""
        with self.config_lock:
            entries = list(config.model_config_list.config)
            if not entries:
                return  # "Taking no action for empty config"
            for position, entry in enumerate(entries):
                if entry.name in [other.name for other in entries[:position]]:
                    text = f"Illegal to list model {entry.name} multiple times in config list"
                    raise StatusError("INVALID_ARGUMENT", text)
                if not entry.base_path.startswith("/"):
                    text = f"Expected model {entry.name} to have an absolute path or URI; got base_path()="
                    raise StatusError("INVALID_ARGUMENT", text + entry.base_path)
            labels = {entry.name: self.new_labels(entry) for entry in entries}
            with self.lock:
                new = [entry for entry in entries if entry.name not in self.configs]
                gone = self.configs.keys() - {entry.name for entry in entries}
                self.labels, self.configs = labels, {entry.name: entry for entry in entries}
                self.pending |= {name: {} for name in gone}
            self.wait_for(new)

    def new_labels(self, entry: Any) -> dict[str, int]:
        old = self.labels.get(entry.name, {})
        for label, version in entry.version_labels.items():
            unused = old.get(label, version) == version
            state = self.states.get(entry.name, {}).get(version, ("",))[0]
            if state != "AVAILABLE" and not (unused and self.flags.allow_version_labels_for_unavailable_models):
                text = f"Request to assign label to version {version} of model {entry.name}, "
                raise StatusError("FAILED_PRECONDITION", text + "which is not currently available for inference")
        return dict(entry.version_labels)

    def wait_for(self, entries: list[Any]) -> None:
        """Waits for configured versions, or the newest; for ever where none appears."""
        failed = set()
        for entry in entries:
            needed = list(entry.model_version_policy.specific.versions)
            while True:
                known = dict(self.states.get(entry.name, {}))
                ended = {number: state for number, state in known.items() if state[0] == "END" and state[1] != "OK"}
                if needed and all(known.get(number, ("",))[0] in ("AVAILABLE", "END") for number in needed):
                    break
                if not needed and ("AVAILABLE" in [s[0] for s in known.values()] or (known and ended == known)):
                    ended = ended if ended == known else {}
                    break
                time.sleep(0.02)
            failed |= {
                f"{{{{name: {entry.name} version: {number}}} due to error: {state[1]}: {state[2]}}}"
                for number, state in ended.items()
                if number in (needed or ended)
            }
        if failed:
            text = f"{len(failed)} servable(s) did not become available: {{{', '.join(sorted(failed))}, }}"
            raise StatusError("UNKNOWN", text)

    def poll_file_system(self) -> None:
        """`FileSystemStoragePathSource`: one missing base path makes the whole poll fail."""
        with self.lock:
            configs = dict(self.configs)
        found = {}
        for name, entry in configs.items():
            try:
                children = os.listdir(entry.base_path)
            except OSError:
                log(f"encountered a filesystem access error: Could not find base path {entry.base_path} for {name}")
                return
            present = sorted(int(child) for child in children if re.fullmatch("[0-9]{1,18}", child))
            policy = entry.model_version_policy
            if policy.WhichOneof("policy_choice") == "specific":
                present = [number for number in present if number in policy.specific.versions]
            elif policy.WhichOneof("policy_choice") != "all":
                present = present[-(policy.latest.num_versions or 1) :]
            found[name] = {number: Path(entry.base_path) / str(number) for number in present}
        with self.lock:
            self.pending |= {name: versions for name, versions in found.items() if name in self.configs}

    # --- manager

    def manage(self) -> None:
        """A round of `AspiredVersionsManager`: at most one load or unload."""
        with self.lock:
            for key, servable in list(self.servables.items()):
                if not servable.aspired and servable.stage in ("new", "disabled", "error"):
                    del self.servables[key]
            for name in list(self.pending):
                self.aspire(name)
            action = self.next_action()
        if action is None:
            return
        name, number = action
        servable = self.servables[action]
        if servable.stage == "ready":
            self.state(name, number, "UNLOADING")
            servable.stage = "disabled"
            self.state(name, number, "END")
            return
        servable.stage = "loading"
        if self.executor:
            self.executor.submit(self.load, name, number, servable)
        else:
            self.load(name, number, servable)  # inline: nothing else happens until it ends

    def aspire(self, name: str) -> None:
        """Applies the versions that are wanted, unless one of them is still being unloaded."""
        wanted = self.pending[name]
        managed = {number: servable for (model, number), servable in self.servables.items() if model == name}
        if any(number in managed and not managed[number].aspired for number in wanted):
            return
        del self.pending[name]
        for number, servable in managed.items():
            servable.aspired = number in wanted
        failed = {number for number in wanted if RELOAD and number in managed and managed[number].stage == "error"}
        for number in sorted(wanted.keys() - managed.keys() | failed):
            self.servables[name, number] = Servable(wanted[number])
            self.state(name, number, "START")

    def next_action(self) -> tuple[str, int] | None:
        """`AvailabilityPreservingPolicy`: unloads if a wanted version serves, otherwise loads the highest new one."""
        loads = []
        for name in sorted({model for model, _ in self.servables}):
            versions = {number: servable for (model, number), servable in self.servables.items() if model == name}
            wanted = [servable for servable in versions.values() if servable.aspired]
            if not wanted or any(servable.stage == "ready" for servable in wanted):
                for number, servable in sorted(versions.items()):
                    if not servable.aspired and servable.stage == "ready":
                        return name, number
            loads += (
                [(name, max(new))]
                if (new := [n for n, s in versions.items() if s.aspired and s.stage == "new"])
                else []
            )
        return loads[0] if loads else None

    def load(self, name: str, number: int, servable: Servable) -> None:
        self.state(name, number, "LOADING")
        for attempt in range(self.flags.max_num_load_retries + 1):
            if attempt:
                time.sleep(self.flags.load_retry_interval_micros / 1e6 * SCALE)
                if not servable.aspired:
                    break
            try:
                servable.signatures = read_version(servable.folder)
                servable.stage = "ready"
                self.state(name, number, "AVAILABLE")
                return
            except StatusError as error:
                failure = error
                log(f"Loading servable: {{name: {name} version: {number}}} failed: {error.code}: {error}")
        servable.stage = "error"
        self.state(name, number, "END", failure.code, str(failure))

    def state(self, name: str, number: int, state: str, code: str = "OK", text: str = "") -> None:
        with self.lock:
            self.states.setdefault(name, {})[number] = (state, code, text)

    # --- requests

    def status(self, model: str, number: int | None) -> list[dict[str, Any]]:
        with self.lock:
            known = dict(self.states.get(model, {}))
        if not known:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {model}")
        if number is not None and number not in known:
            raise StatusError("NOT_FOUND", f"Could not find version {number} of model {model}")
        return [
            {"version": str(n), "state": state, "status": {"error_code": code, "error_message": text}}
            for n, (state, code, text) in sorted(known.items(), reverse=True)
            if number in (None, n)
        ]

    def find(self, model: str, number: int | None, label: str | None) -> tuple[int, Any]:
        with self.lock:
            if label is not None:
                number = self.labels.get(model, {}).get(label)
                if number is None:
                    raise StatusError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            ready = {n: s.signatures for (m, n), s in self.servables.items() if m == model and s.stage == "ready"}
        chosen = max(ready, default=-1) if number is None else number
        if chosen not in ready:
            text = f"Latest({model})" if number is None else f"Specific({model}, {number})"
            raise StatusError("NOT_FOUND", f"Servable not found for request: {text}")
        return chosen, ready[chosen]


def repeat(seconds: float, step: Callable[[], None]) -> None:
    while True:
        step()
        time.sleep(seconds)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
