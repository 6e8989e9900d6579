"""The served models: found in folders, loaded, replaced and unloaded while requests are answered."""

import gc
import logging
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray

from emotion_ai.errors import EmotionAIError
from emotion_ai_export.registry.model_config import ModelConfig, parse
from emotion_ai_export.registry.publish import CONFIG_FILE, versions_of
from emotion_ai_export.registry.quiet_tensorflow import tf
from emotion_ai_export.registry.warmup import WARMUP_FILE, requests
from emotion_ai_export.serving.embedded.wire import NAMES, ServingError

log = logging.getLogger(__name__)


class Servable:
    """One loaded and warmed version.

    A TF1 session runs it, as in TensorFlow Serving: the same errors come from the same operations. Nothing closes the
    session; it goes when the last request that uses it lets go of this object.

    Args:
        folder: a SavedModel.
        version: its number, told in answers.

    Raises:
        Refusal, tf.errors.OpError: the version cannot be loaded, or a warm-up request fails.
    """

    def __init__(self, folder: Path, version: int = 0) -> None:
        from tensorflow.core.protobuf.config_pb2 import CallableOptions

        if not (folder / "saved_model.pb").is_file():
            raise ServingError(
                "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                f"`saved_model.pb`)\nSpecified file path: {folder}",
                "NOT_FOUND",
            )
        threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or os.cpu_count() or 1
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=2)
        graph = tf.Graph()
        with graph.as_default():
            session = tf.compat.v1.Session(graph=graph, config=config)
            self.signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
        self.version = version
        self._calls = {}
        for name, signature in self.signatures.items():
            feed, fetch = ([info.name for info in part.values()] for part in (signature.inputs, signature.outputs))
            options = CallableOptions(feed=feed, fetch=fetch) if feed else None
            # session.run would check shapes against the signature; the server leaves that to the operations
            self._calls[name] = session._make_callable_from_options(options) if feed else None
        self._warm_up(folder / WARMUP_FILE)

    def dtypes(self, signature: str) -> dict[str, np.dtype[Any]]:
        """The inputs' dtypes by name; object stands for strings.

        Raises:
            Refusal: there is no such signature.
        """
        if signature not in set(self.signatures):  # the protobuf map itself chokes on lone surrogates
            raise ServingError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self.signatures[signature].inputs
        return {name: np.dtype(tf.as_dtype(inputs[name].dtype).as_numpy_dtype) for name in sorted(inputs)}

    def run(self, signature: str, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name.

        Raises:
            Refusal: the model does not take these tensors.
        """
        definition = self.signatures[signature]
        try:
            values = self._calls[signature](*(tensors[name] for name in definition.inputs))
        except tf.errors.OpError as error:
            raise ServingError(error.message, _code(error)) from error
        return dict(zip(definition.outputs, map(np.asarray, values), strict=True))

    def call(
        self, signature: str, tensors: dict[str, NDArray[Any]], wanted: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """`run` as gRPC and warm-up requests ask for it: an empty signature is the default one.

        Raises:
            Refusal: no such signature, inputs that are not its own, or an output that it has not.
        """
        signature = signature or "serving_default"
        if signature not in set(self.signatures):
            raise ServingError(f'Serving signature key "{signature}" not found.', "FAILED_PRECONDITION")
        definition = self.signatures[signature]
        names = ",".join(sorted(tensors))
        for alias, info in sorted(definition.inputs.items()):
            if alias not in tensors:
                raise ServingError(
                    f"Signature input alias: {alias}(feed name: {info.name}) not found in request and no default value "
                    f"provided. Inputs expected to be in the request {{{names}}}, or default input alias set: "
                )
        if len(tensors) != len(definition.inputs):
            known = ",".join(sorted(definition.inputs))
            raise ServingError(
                f"input size does not match signature: {len(tensors)}!={len(definition.inputs)} "
                f"len({{{names}}})!=len({{{known}}})"
            )
        for position, (alias, dtype) in enumerate(self.dtypes(signature).items()):
            if tensors[alias].dtype != dtype:
                expected, got = (NAMES.get(kind.name, kind.name) for kind in (dtype, tensors[alias].dtype))
                raise ServingError(f"Expects arg[{position}] to be {expected} but {got} is provided")
        for alias in wanted:
            if alias not in set(definition.outputs):
                known = ",".join(sorted(definition.outputs))
                raise ServingError(
                    f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                    f"{{{known}}}."
                )
        outputs = self.run(signature, tensors)
        return {alias: outputs[alias] for alias in wanted or sorted(outputs)}

    def metadata(self) -> dict[str, Any]:
        """All signatures, as the server describes them in JSON."""
        options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        described = {name: MessageToDict(signature, **options) for name, signature in self.signatures.items()}
        return {"signature_def": {"signature_def": described}}

    def _warm_up(self, file: Path) -> None:
        for signature, tensors in requests(file) if file.is_file() else ():
            self.call(signature, tensors)


@dataclass
class _Version:
    state: str
    code: str = "OK"
    message: str = ""
    servable: Servable | None = None
    seen: tuple[int, ...] = ()


class ModelStore:
    """Keeps the versions that a base folder asks for in memory.

    `<base>/models.config` says which versions and labels, where it exists; otherwise each model's newest is served.
    A new version is loaded before the old one is dropped, and the old one stays if the new one fails.
    """

    def __init__(self, base: Path, poll_seconds: float = 1.0) -> None:
        self.base, self.poll_seconds = base, poll_seconds
        self._models: dict[str, dict[int, _Version]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._configs: list[ModelConfig] = []
        self._config_error = ""
        self._changed = False
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Loads and watches in a thread of its own."""
        self._thread = threading.Thread(target=self._watch, name="model-store", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread:
            self._thread.join()

    def find(self, model: str, version: int | None = None, label: str | None = None) -> Servable:
        """The loaded version that a request means; the newest without a version or label.

        Raises:
            Refusal: it is not served.
        """
        with self._lock:
            if label is not None:
                version = self._labels.get(model, {}).get(label)
                if version is None:
                    raise ServingError(f"Unrecognized servable version label: {label}")
            loaded = {number: v.servable for number, v in self._models.get(model, {}).items() if v.servable}
            chosen = loaded.get(version if version is not None else max(loaded, default=-1))
        if chosen is None:
            wanted = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise ServingError(f"Servable not found for request: {wanted}", "NOT_FOUND")
        return chosen

    def status(self, model: str, version: int | None = None) -> list[dict[str, Any]]:
        """Every version that was ever seen, newest first, as the server tells it.

        Raises:
            Refusal: no such model or version.
        """
        with self._lock:
            known = self._models.get(model, {})
            if not known:
                raise ServingError(f"Could not find any versions of model {model}", "NOT_FOUND")
            if version is not None and version not in known:
                raise ServingError(f"Could not find version {version} of model {model}", "NOT_FOUND")
            return [
                {
                    "version": str(number),
                    "state": entry.state,
                    "status": {"error_code": entry.code, "error_message": entry.message},
                }
                for number, entry in sorted(known.items(), reverse=True)
                if version in (None, number)
            ]

    def refresh(self) -> None:
        """Looks at the folders once; loads and drops what they ask for."""
        self._read_config()
        for config in self._configs:
            self._refresh_model(config)
        for model in self._models.keys() - {config.name for config in self._configs}:
            self._unload(model, set(self._models[model]))
        if self._changed:
            self._changed = False
            gc.unfreeze()
            gc.collect()  # graphs are cyclic
            gc.freeze()  # otherwise each request of many numbers has all models' graphs looked through

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self.refresh()
            except Exception:  # a folder may vanish between two looks; the next look sees it as it is
                log.exception("looking for models failed; trying again")
            self._stopping.wait(self.poll_seconds)

    def _read_config(self) -> None:
        file = self.base / CONFIG_FILE
        try:
            if file.exists():
                self._configs = parse(file.read_text(encoding="utf-8"))
            else:
                folders = sorted(p.name for p in self.base.iterdir() if not p.name.startswith(".") and versions_of(p))
                known = self._models.keys() - set(folders)
                self._configs = [ModelConfig(name, name, ()) for name in [*folders, *known]]
            self._config_error = ""
        except (EmotionAIError, OSError, UnicodeDecodeError) as error:
            if str(error) != self._config_error:
                log.warning("%s; what was served stays", error)
            self._config_error = str(error)

    def _refresh_model(self, config: ModelConfig) -> None:
        folder = self.base / Path(config.base_path).name  # the file may be rendered for a container
        present = versions_of(folder)
        listed = {version for version in config.versions if version in present}
        wanted = listed if config.versions else set(present[-1:])
        known = self._models.setdefault(config.name, {}) if wanted else self._models.get(config.name, {})
        for number in sorted(wanted):
            entry, seen = known.get(number), _fingerprint(folder / str(number))
            if entry is None or not (entry.servable or (entry.code != "OK" and entry.seen == seen)):
                self._load(config.name, number, folder / str(number), seen)
        loaded = {number for number, entry in known.items() if entry.servable}
        # a label moves once its new version is loaded, and its old version goes afterwards: no request finds neither
        old = self._labels.get(config.name, {})
        moved = {label: number if number in loaded else old.get(label) for label, number in config.labels.items()}
        labels = {label: number for label, number in moved.items() if number in loaded}
        with self._lock:
            self._labels[config.name] = labels  # type: ignore[assignment]
        if not wanted or loaded & wanted:
            self._unload(config.name, loaded - wanted - set(labels.values()))

    def _load(self, model: str, number: int, folder: Path, seen: tuple[int, ...]) -> None:
        self._set(model, number, _Version("LOADING"))
        try:
            self._set(model, number, _Version("AVAILABLE", servable=Servable(folder, number)))
            log.info("loaded %s version %d", model, number)
        except Exception as error:  # whatever is in the folder must not stop the others
            code, message = _code(error), getattr(error, "message", str(error))
            self._set(model, number, _Version("END", code, message, seen=seen))
            log.warning("cannot load %s version %d: %s", model, number, " ".join(message.split()))

    def _unload(self, model: str, numbers: set[int]) -> None:
        for number in numbers:
            if self._models[model][number].servable:
                self._set(model, number, _Version("END"))
                log.info("unloaded %s version %d", model, number)

    def _set(self, model: str, number: int, entry: _Version) -> None:
        with self._lock:
            self._models[model][number] = entry
        self._changed = True


def _fingerprint(folder: Path) -> tuple[int, ...]:
    """Changes when a broken version is mended in place."""
    files = (folder, folder / "saved_model.pb", folder / "variables")
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


def _code(error: Exception) -> str:
    """The status code's name: OutOfRangeError is OUT_OF_RANGE."""
    if isinstance(error, ServingError):
        return error.code
    if isinstance(error, tf.errors.OpError):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).upper()
    return "UNKNOWN"
