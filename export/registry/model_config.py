"""TensorFlow Serving's `models.config`: which versions of each model are served, and their labels."""

from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from emotion_ai.client.protos import ModelServerConfig
from emotion_ai.errors import ExportError
from emotion_ai.files import write_text
from emotion_ai.published import CONFIG_FILE


@dataclass(frozen=True)
class ModelConfig:
    """One served model.

    Attributes:
        name: the name in requests.
        base_path: the folder of its versions, as the server sees it.
        versions: to load; empty means the newest, which is the server's default.
        labels: versions by label.
    """

    name: str
    base_path: str
    versions: tuple[int, ...]
    labels: dict[str, int] = field(default_factory=dict)


def render(configs: list[ModelConfig]) -> str:
    """Protobuf text format, as `--model_config_file` reads it."""
    message = ModelServerConfig()
    for config in configs:
        entry = message.model_config_list.config.add(
            name=config.name, base_path=config.base_path, model_platform="tensorflow"
        )
        if config.versions:
            entry.model_version_policy.specific.versions.extend(sorted(config.versions))
        entry.version_labels.update(config.labels)
    return text_format.MessageToString(message)


def parse(text: str) -> list[ModelConfig]:
    """Reads protobuf text format, written by `render` or by hand.

    Raises:
        ExportError: the text is not in that format.
    """
    try:
        message = text_format.Parse(text, ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{CONFIG_FILE}: not valid protobuf text ({error}); fix it, or delete it and export again"
        ) from error
    return [
        ModelConfig(
            entry.name,
            entry.base_path,
            tuple(entry.model_version_policy.specific.versions),
            dict(entry.version_labels),
        )
        for entry in message.model_config_list.config
    ]


def read_config(base: Path) -> list[ModelConfig]:
    """The models that `<base>/models.config` lists; none without the file.

    Raises:
        ExportError: the file cannot be parsed.
    """
    file = base / CONFIG_FILE
    return parse(file.read_text(encoding="utf-8")) if file.exists() else []


def replace_config(base: Path, configs: list[ModelConfig]) -> None:
    """Writes `<base>/models.config` as a whole and waits until it is on the disk."""
    write_text(base / CONFIG_FILE, render(configs), sync=True)
