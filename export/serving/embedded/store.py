"""The served models: found in folders, then loaded, replaced and unloaded while requests are served."""

import gc
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_ai.client import protos
from emotion_ai.errors import EmotionAIError
from emotion_ai.published import CONFIG_FILE, list_versions
from emotion_ai_export.registry.model_config import ModelConfig, read_config
from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.loaded_model import LoadedModel, error_code

log = logging.getLogger(__name__)


@dataclass
class _Version:
    state: str
    code: str = "OK"
    message: str = ""
    model: LoadedModel | None = None
    seen: tuple[int, ...] = ()


class ModelStore:
    """Keeps the served versions of a published folder in memory.

    `<base>/models.config` lists versions and labels; without it, the newest version of each model is served. A new
    version is loaded before the old one is dropped, and the old one stays if the new one fails.
    """

    def __init__(self, base: Path, poll_seconds: float = 1.0) -> None:
        self.base, self.poll_seconds = base, poll_seconds
        self._models: dict[str, dict[int, _Version]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._configs: dict[str, ModelConfig] = {}
        self._config_error = ""
        self._changed = False
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Loads what is there, then starts the thread that watches the folder."""
        self._try_to_refresh()
        self._thread = threading.Thread(target=self._watch, name="model-store", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends that thread; loaded versions stay."""
        self._stopping.set()
        if self._thread:
            self._thread.join()

    def find(self, model: str, version: int | None = None, label: str | None = None) -> LoadedModel:
        """The loaded version for a request; the newest without a version or label.

        Raises:
            ServingError: no such version is served.
        """
        with self._lock:
            if label is not None:
                version = self._labels.get(model, {}).get(label)
                if version is None:
                    raise ServingError(f"Unrecognized servable version label: {label}")
            loaded = {number: v.model for number, v in self._models.get(model, {}).items() if v.model}
            chosen = loaded.get(version if version is not None else max(loaded, default=-1))
        if chosen is None:
            needed = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise ServingError(f"Servable not found for request: {needed}", "NOT_FOUND")
        return chosen

    def status(self, model: str, version: int | None = None) -> Any:
        """State of every version ever seen, newest first, as a `GetModelStatusResponse`.

        Raises:
            ServingError: no such model or version.
        """
        with self._lock:
            known = self._models.get(model, {})
            if not known:
                raise ServingError(f"Could not find any versions of model {model}", "NOT_FOUND")
            if version is not None and version not in known:
                raise ServingError(f"Could not find version {version} of model {model}", "NOT_FOUND")
            response = protos.GetModelStatusResponse()
            for number in sorted(known if version is None else [version], reverse=True):
                entry = known[number]
                status = {"error_code": entry.code, "error_message": entry.message}
                response.model_version_status.add(version=number, state=entry.state, status=status)
            return response

    def refresh(self) -> None:
        """Reads the folder once, then loads and drops versions to match it."""
        self._read_config()
        for config in self._configs.values():
            self._refresh_model(config)
        for model in self._models.keys() - self._configs.keys():
            self._unload(model, set(self._models[model]))
        if self._changed:
            self._changed = False
            gc.unfreeze()
            gc.collect()  # graphs are cyclic
            gc.freeze()  # otherwise a request with many numbers triggers collections that walk all models' graphs

    def _watch(self) -> None:
        while not self._stopping.wait(self.poll_seconds):
            self._try_to_refresh()

    def _try_to_refresh(self) -> None:
        try:
            self.refresh()
        except Exception:  # a folder may vanish while it is read; the next round sees the change
            log.exception("reading the models' folder failed; trying again")

    def _read_config(self) -> None:
        try:
            configs = read_config(self.base)
            if not (self.base / CONFIG_FILE).exists():
                folders = sorted(p.name for p in self.base.iterdir() if not p.name.startswith(".") and list_versions(p))
                known = self._models.keys() - set(folders)
                configs = [ModelConfig(name, name, ()) for name in [*folders, *known]]
            self._configs, self._config_error = {config.name: config for config in configs}, ""
        except (EmotionAIError, OSError, UnicodeDecodeError) as error:
            if str(error) != self._config_error:
                log.warning("%s; the served versions stay", error)
            self._config_error = str(error)

    def _refresh_model(self, config: ModelConfig) -> None:
        folder = self.base / Path(config.base_path).name  # models.config may be written for a container
        present = list_versions(folder)
        listed = {version for version in config.versions if version in present}
        needed = listed if config.versions else set(present[-1:])
        known = self._models.setdefault(config.name, {}) if needed else self._models.get(config.name, {})
        for number in sorted(needed):
            entry, seen = known.get(number), _fingerprint(folder / str(number))
            if entry is None or not (entry.model or (entry.code != "OK" and entry.seen == seen)):
                self._load(config.name, number, folder / str(number), seen)
        with self._lock:
            self._relabel(config.name)
        loaded = {number for number, entry in known.items() if entry.model}
        if not needed or loaded & needed:
            self._unload(config.name, loaded - needed - set(self._labels[config.name].values()))

    def _load(self, model: str, number: int, folder: Path, seen: tuple[int, ...]) -> None:
        self._set(model, number, _Version("LOADING"))
        try:
            self._set(model, number, _Version("AVAILABLE", model=LoadedModel(folder, number)))
            log.info("loaded %s version %d", model, number)
        except Exception as error:  # a broken version must not stop the others
            code, message = error_code(error), getattr(error, "message", str(error))
            self._set(model, number, _Version("END", code, message, seen=seen))
            log.warning("cannot load %s version %d: %s", model, number, " ".join(message.split()))

    def _unload(self, model: str, numbers: set[int]) -> None:
        for number in numbers:
            if self._models[model][number].model:
                self._set(model, number, _Version("END"))
                log.info("unloaded %s version %d", model, number)

    def _set(self, model: str, number: int, entry: _Version) -> None:
        with self._lock:  # whoever sees that a version is AVAILABLE finds it under its labels
            self._models[model][number] = entry
            self._relabel(model)
        self._changed = True

    def _relabel(self, model: str) -> None:
        """Moves labels to loaded versions; until then they stay, so no request finds neither version."""
        loaded = {number for number, entry in self._models.get(model, {}).items() if entry.model}
        old = self._labels.get(model, {})
        wanted = self._configs[model].labels if model in self._configs else {}
        chosen = {label: number if number in loaded else old.get(label, -1) for label, number in wanted.items()}
        self._labels[model] = {label: number for label, number in chosen.items() if number in loaded}


def _fingerprint(folder: Path) -> tuple[int, ...]:
    """Changes when the files of a version change."""
    files = (folder, folder / "saved_model.pb", folder / "variables")
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
