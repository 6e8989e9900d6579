"""TensorFlow Serving's `models.config`: written for its target, read back for the labels it holds."""

from dataclasses import dataclass, field

from google.protobuf import text_format

from emotion_ai.client.protos import ModelServerConfig
from emotion_ai.errors import ExportError


@dataclass(frozen=True)
class ModelConfig:
    """One served model: which versions, and which labels name some of them."""

    name: str
    base_path: str
    versions: tuple[int, ...]
    labels: dict[str, int] = field(default_factory=dict)


def render(configs: list[ModelConfig]) -> str:
    """The text format that `--model_config_file` takes; an empty `versions` leaves the server's default, the newest."""
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
    """Reads what `render` writes, and what people write by hand in the same format.

    Raises:
        ExportError: not in that format.
    """
    try:
        message = text_format.Parse(text, ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ExportError(f"models.config: cannot be read ({error}); mend it, or remove it and export again") from error
    return [
        ModelConfig(
            entry.name,
            entry.base_path,
            tuple(entry.model_version_policy.specific.versions),
            dict(entry.version_labels),
        )
        for entry in message.model_config_list.config
    ]
