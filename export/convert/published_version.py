"""One published version on disk, loaded and checked."""

import hashlib
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from emotion_ai.contract import INPUTS, SERVABLES, TASKS, Task, outputs
from emotion_ai.errors import ParityError
from emotion_ai.inference.verdict import VerdictRule
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.models.device import Placement
from emotion_ai.published import CHECKSUMS_FILE, MODEL_TASKS, checkpoint_file, litert_file, onnx_file
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.litert import LiteRTKind
from emotion_ai_export.convert.litert_parity import compare_litert
from emotion_ai_export.convert.parity import (
    Comparison,
    compare_on_device,
    compare_onnx,
    compare_saved_model,
    with_saved_model,
)
from emotion_ai_export.convert.parity_cases import ParityCase, Rule, file_cases, parity_faces, pixel_cases
from emotion_ai_export.convert.weights import compare_servable_weights
from emotion_ai_export.registry.warmup import replay_warmup


class PublishedVersion:
    """The three servables of one version. Each method is a check and raises an error if it fails.

    Args:
        number: of the version.
        base: the folder of the models.
        placement: a GPU for `compare_device`.

    Attributes:
        cases: parity cases of the checkpoints, once they are loaded.
        signatures: of the contract that the SavedModels have, once they are compared.
    """

    def __init__(self, number: int, base: Path, placement: Placement | None = None) -> None:
        self.folders = {model: base / model / str(number) for model in SERVABLES}
        self.cases: list[ParityCase] = []
        self.signatures: list[str] = []
        self._placement = placement or Placement.of("cpu")
        self._networks: dict[Task, FaceNetwork] = {}

    def check_files(self) -> None:
        """Compares all files with SHA256SUMS."""
        for folder in self.folders.values():
            sums = folder / CHECKSUMS_FILE
            if not sums.is_file():
                raise ParityError(f"{sums}: is missing; export again")
            lines = (line.partition("  ") for line in sums.read_text().splitlines())
            listed = {name: digest for digest, _, name in lines}
            present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            for name in sorted(listed.keys() | present - {CHECKSUMS_FILE}):
                if name not in present:
                    raise ParityError(f"{folder / name}: is missing; export again")
                if name not in listed:
                    raise ParityError(f"{folder / name}: was added after the export; remove it")
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != listed[name]:
                    raise ParityError(f"{folder / name}: was altered after the export; export again")

    def load_checkpoint(self) -> None:
        """Loads the networks, which must be the same in all models, and makes the parity cases from them."""
        found: dict[Task, FaceNetwork] = {}
        rule: Rule = 0.0
        for model, folder in self.folders.items():
            for task in MODEL_TASKS[model]:
                file = folder / checkpoint_file(task)
                network, record = load_network(file, task)
                if task == "emotion":
                    rule = VerdictRule.of(record, network.spec.class_set)
                first = found.setdefault(task, network)
                weights = first.state_dict()
                same = all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
                if first.spec != network.spec or not same:
                    raise ParityError(f"{file}: holds other weights than this version's other models; export again")
        self.cases = pixel_cases(found, parity_faces(), rule) + file_cases(found, rule)
        self._networks = found

    def compare_device(self) -> list[Comparison]:
        """Compares the checkpoints on a GPU with themselves in float64."""
        return compare_on_device(self._networks, self._placement, self.cases)

    @property
    def has_onnx(self) -> bool:
        """Whether there are ONNX files; versions from before they were published have none."""
        return any((folder / onnx_file(task)).exists() for folder in self.folders.values() for task in TASKS)

    def compare_onnx(self) -> list[Comparison]:
        """Compares the ONNX files with the checkpoints."""
        return [
            row for task in TASKS for row in compare_onnx(task, self._same_in_all(task, onnx_file(task)), self.cases)
        ]

    @property
    def litert_files(self) -> list[tuple[Task, LiteRTKind]]:
        """The LiteRT files that any of the models has."""
        return [
            (task, kind)
            for task in TASKS
            for kind in get_args(LiteRTKind)
            if any((folder / litert_file(task, kind)).exists() for folder in self.folders.values())
        ]

    def compare_litert(self) -> list[Comparison]:
        """Compares the LiteRT files with the checkpoints."""
        rows = []
        for task, kind in self.litert_files:
            rows += compare_litert(task, kind, self._same_in_all(task, litert_file(task, kind)), self.cases)
        return rows

    def _same_in_all(self, task: Task, place: str) -> bytes:
        """The content of a network's file, which must be the same in all models with that network."""
        files = [folder / place for model, folder in self.folders.items() if task in MODEL_TASKS[model]]
        content = files[0].read_bytes()
        for file in files[1:]:
            if file.read_bytes() != content:
                raise ParityError(f"{file}: differs from {files[0]}; export again")
        return content

    def compare_weights(self) -> None:
        """Compares the SavedModels' constants with the checkpoints' weights."""
        graphs = {task: to_graph(to_onnx(network)) for task, network in self._networks.items()}
        for model, folder in self.folders.items():
            compare_servable_weights(str(folder), folder, (graphs[task] for task in MODEL_TASKS[model]))

    def compare_models(self) -> list[Comparison]:
        """Compares the SavedModels with the checkpoints, one at a time."""
        rows = []
        for model, folder in self.folders.items():
            rows += with_saved_model(folder, partial(compare_saved_model, model, self.cases))
        compared = {(row.servable, row.signature) for row in rows}
        self.signatures = [name for name in INPUTS if name in {signature for _, signature in compared}]
        for model, folder in self.folders.items():
            for name in self.signatures:
                if outputs(model, name) and (model, name) not in compared:
                    raise ParityError(f"{folder}: lacks the signature {name} of this version's other models")
        return rows

    def replay_warmups(self) -> None:
        """Replays the warm-up requests."""
        for folder in self.folders.values():
            with_saved_model(folder, partial(replay_warmup, folder))
