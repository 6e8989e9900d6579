"""TensorFlow Serving's `models.config`: written for its target, read back for the labels it holds."""

import re
from dataclasses import dataclass, field
from typing import Any

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
    lines = ["model_config_list {"]
    for config in configs:
        lines += ["  config {", f'    name: "{config.name}"', f'    base_path: "{_escaped(config.base_path)}"']
        lines += ['    model_platform: "tensorflow"']
        if config.versions:
            numbers = " ".join(f"versions: {version}" for version in sorted(config.versions))
            lines += [f"    model_version_policy {{ specific {{ {numbers} }} }}"]
        for label, version in sorted(config.labels.items()):
            lines += [f'    version_labels {{ key: "{label}" value: {version} }}']
        lines += ["  }"]
    return "\n".join([*lines, "}", ""])


def parse(text: str) -> list[ModelConfig]:
    """Reads what `render` writes, and what people write by hand in the same format.

    Raises:
        ExportError: not in that format.
    """
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[{}:]|[^\s{}:"#]+|#[^\n]*', text)
    tokens = [token for token in tokens if not token.startswith("#")]
    try:
        tree, rest = _message(tokens)
        if rest:
            raise ValueError(f"unexpected {rest[0]}")
        return [_config(entry) for group in tree.get("model_config_list", []) for entry in group.get("config", [])]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"models.config: cannot be read ({error}); mend it, or remove it and export again") from error


def _message(tokens: list[str]) -> tuple[dict[str, list[Any]], list[str]]:
    fields: dict[str, list[Any]] = {}
    while tokens and tokens[0] != "}":
        name, tokens = tokens[0], tokens[1:]
        if tokens[0] == ":":
            tokens = tokens[1:]
        if tokens[0] == "{":
            value, tokens = _message(tokens[1:])
            if tokens[0] != "}":
                raise ValueError(f"{name} is not closed")
        else:
            value = tokens[0]  # type: ignore[assignment]
        fields.setdefault(name, []).append(value)
        tokens = tokens[1:]
    return fields, tokens


def _config(entry: dict[str, list[Any]]) -> ModelConfig:
    versions = [
        int(version)
        for policy in entry.get("model_version_policy", [])
        for specific in policy.get("specific", [])
        for version in specific.get("versions", [])
    ]
    labels = {_text(pair["key"][0]): int(pair["value"][0]) for pair in entry.get("version_labels", [])}
    return ModelConfig(_text(entry["name"][0]), _text(entry["base_path"][0]), tuple(versions), labels)


def _text(token: str) -> str:
    if not token.startswith('"'):
        raise ValueError(f"{token} is not quoted")
    return re.sub(r"\\(.)", r"\1", token[1:-1])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
