"""The files that an export writes beside the models, rendered and parsed."""

from pathlib import Path
from typing import Any

import yaml

from emotion_ai_export.registry.publish import write_config
from emotion_ai_export.serving.deployment import write_deployment

MIB = 2**20


def put_version(folder: Path, size: int) -> None:
    folder.mkdir(parents=True)
    with (folder / "saved_model.pb").open("wb") as stream:
        stream.truncate(size)


def rendered(base: Path, target: str) -> dict[str, str]:
    write_config(base, target)
    return {path.name: path.read_text() for path in write_deployment(base, target)}


def manifests(text: str) -> dict[str, dict[str, Any]]:
    documents = list(yaml.safe_load_all(text))
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


def container(text: str) -> dict[str, Any]:
    (only,) = manifests(text)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(only)


def seen_as(base: Path, target: str) -> str:
    return "/models" if target == "container" else str(base)
