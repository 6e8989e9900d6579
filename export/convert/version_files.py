"""`assets.extra` of a version: checkpoints, parity report, model card, contract and checksums."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_ai.contract import CLASSES, INPUTS, UNCERTAIN_BELOW, Servable, Task, outputs
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.models.checkpoint import bundled, contract_record
from emotion_ai.provenance import RunRecord
from emotion_ai.published import CARD_FILE, CONTRACT_FILE, MODEL_TASKS, PARITY_FILE, checkpoint_file
from emotion_ai_export.registry.publish import write_checksums


@dataclass(frozen=True)
class SourceNetwork:
    """A network to export.

    Attributes:
        checkpoint: "bundled", or its file.
        network: with its weights.
        record: of its training.
    """

    checkpoint: str
    network: FaceNetwork
    record: RunRecord

    @classmethod
    def load(cls, checkpoint: str, task: Task) -> "SourceNetwork":
        """Raises:
        CheckpointError: the file is missing, damaged, or for another task.
        """
        return cls(checkpoint, *load_network(checkpoint, task))


def write_version_files(
    folder: Path,
    servable: Servable,
    sources: dict[Task, SourceNetwork],
    formats: Mapping[Task, Mapping[str, bytes]],
    proof: dict[str, Any],
) -> None:
    """Writes `assets.extra`, which must exist.

    Args:
        folder: the version.
        servable: its model.
        sources: the exported networks.
        formats: each network in other formats, by the place of the file in the version.
        proof: the parity report.
    """
    cards = []
    for task in MODEL_TASKS[servable]:
        source = sources[task]
        save_network(source.network, folder / checkpoint_file(task), source.record)
        for place, content in formats[task].items():
            (folder / place).parent.mkdir(exist_ok=True)
            (folder / place).write_bytes(content)
        cards.append(_card(task, source))
    (folder / CARD_FILE).write_text("\n\n".join(cards))
    contract: dict[str, Any] = {**contract_record(), "signatures": _signatures(servable)}
    if "emotion" in MODEL_TASKS[servable]:
        emotion = sources["emotion"]
        contract[CLASSES] = list(emotion.network.spec.class_set.names)
        contract[UNCERTAIN_BELOW] = emotion.record.uncertain_below
    (folder / CONTRACT_FILE).write_text(json.dumps(contract, indent=2))
    (folder / PARITY_FILE).write_text(json.dumps(proof, indent=1))
    write_checksums(folder)


def _signatures(servable: Servable) -> dict[str, tuple[str, ...]]:
    """The outputs of each signature."""
    return {name: outputs(servable, name) for name in INPUTS if outputs(servable, name)}


def _card(task: Task, source: SourceNetwork) -> str:
    path = bundled(task) if source.checkpoint == "bundled" else Path(source.checkpoint)
    for card in (path.with_suffix(".md"), path.with_name("MODEL_CARD.md")):
        if card.is_file():
            return card.read_text()
    metrics = "\n".join(f"- {name}: {value:.4f}" for name, value in source.record.metrics.items())
    trained = json.dumps(source.record.as_dict().get("data", {}), indent=2)
    return f"# {task}\n\nNo model card lies beside the checkpoint.\n\n{metrics}\n\nData:\n\n```json\n{trained}\n```\n"
