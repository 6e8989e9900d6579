"""TensorFlow Serving's `models.config`: which versions of each model are served, and their labels."""

import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf import text_format

from emotion_ai.client.protos import ModelServerConfig
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.files import atomic_path, read_text
from emotion_ai.published import CONFIG_FILE, CONTAINER_BASE
from emotion_ai_export.registry.config_text import replaced


@dataclass(frozen=True)
class ModelConfig:
    """One served model.

    Attributes:
        name: the name in requests.
        base_path: the folder of its versions, as the server sees it.
        versions: to load; empty means the newest, which is the server's default.
        labels: versions by label.
        rest: the entry's other settings, serialized: platform, `logging_config`, a policy that is not `specific`.
    """

    name: str
    base_path: str
    versions: tuple[int, ...]
    labels: dict[str, int] = field(default_factory=dict)
    rest: bytes = b""


def render(configs: list[ModelConfig]) -> str:
    """Protobuf text format, as `--model_config_file` reads it."""
    message = ModelServerConfig()
    for config in configs:
        entry = message.model_config_list.config.add()
        entry.MergeFromString(config.rest)
        entry.name, entry.base_path = config.name, config.base_path
        if not entry.model_type:  # the deprecated field; the server refuses both
            entry.model_platform = entry.model_platform or "tensorflow"
        if config.versions:
            entry.model_version_policy.specific.versions.extend(sorted(config.versions))
        entry.version_labels.update(config.labels)
    return text_format.MessageToString(message)


def parse(text: str) -> list[ModelConfig]:
    """Reads protobuf text format, written by `render` or by hand.

    Raises:
        ExportError: the text is not in that format, has fields that cannot be kept, or lists a model twice.
    """
    try:
        message = text_format.Parse(text, ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{CONFIG_FILE}: cannot be read ({error}); fix it, or move it away and export again"
        ) from error
    if message.WhichOneof("config") == "custom_model_config":
        raise ExportError(
            f"{CONFIG_FILE}: has a custom_model_config, not a model_config_list; publish to another folder"
        )
    entries = message.model_config_list.config
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            raise ExportError(f"{CONFIG_FILE}: lists the model {name!r} {count} times; remove all entries but one")
    return [_from_entry(entry) for entry in entries]


def read_config(base: Path) -> list[ModelConfig]:
    """The models that `<base>/models.config` lists; none without the file.

    Raises:
        ExportError: the file cannot be read or parsed.
    """
    file = base / CONFIG_FILE
    try:
        return parse(read_text(file))
    except FileNotFoundError:
        if file.is_symlink():
            raise ExportError(f"{file}: a link to a missing file; remove it") from None
        return []
    except OSError as error:
        raise ExportError(f"{file}: cannot be read ({error.strerror}); fix it, or move it away") from error
    except ValueError as error:
        raise ExportError(f"{file}: cannot be read ({error}); fix it, or move it away and export again") from error


def read_own_config(base: Path) -> list[ModelConfig]:
    """The same, for a caller that will replace the file.

    Raises:
        ExportError: the file cannot be read, or replacing it would lose a setting.
    """
    file = base / CONFIG_FILE
    configs = read_config(base)
    if file.is_symlink():
        raise ExportError(f"{file}: a link, which would be replaced; put the file itself there")
    for config in configs:
        if config.name not in SERVABLES:
            continue
        policy = _policy(config)
        if policy:
            raise ExportError(
                f"{file}: {config.name} has the version policy '{policy}', which labels would replace; "
                "remove its model_version_policy"
            )
        if Path(config.base_path).name != config.name:
            raise ExportError(
                f"{file}: {config.name} is served from {config.base_path}, not from this folder; "
                "give that entry another name, or publish to another folder"
            )
    return configs


def relocated(base: Path, configs: list[ModelConfig]) -> tuple[list[ModelConfig], str]:
    """The entries of a folder that was copied or moved, with paths of this one, and the folder that they named.

    Paths below `CONTAINER_BASE`, where a container sees the folder, stay. So do those of other models, unless they lie
    below the other folder and this one has them, too.

    Returns:
        The entries; the other folder, "" if they name this one.
    """
    own = base.resolve()
    parents = {Path(config.base_path).parent for config in configs if config.name in SERVABLES}
    foreign = sorted(path for path in parents if path != Path(CONTAINER_BASE) and path.resolve() != own)

    def moved(config: ModelConfig) -> ModelConfig:
        path = Path(config.base_path)
        root = next((root for root in foreign if path.is_relative_to(root)), None)
        if root is None or not (config.name in SERVABLES or (base / path.relative_to(root)).is_dir()):
            return config
        return replace(config, base_path=str(own / path.relative_to(root)))

    return [moved(config) for config in configs], str(foreign[0]) if foreign else ""


def replace_config(base: Path, configs: list[ModelConfig]) -> None:
    """Writes `<base>/models.config` as a whole and waits until it is on the disk; the text of other entries stays."""
    file = base / CONFIG_FILE
    text = _changed(read_text(file), configs) if file.is_file() else None
    write_config_text(base, text or render(configs))


def write_config_text(base: Path, text: str) -> None:
    """Replaces `<base>/models.config`, with its permissions: the server may run as another user."""
    file = base / CONFIG_FILE
    with atomic_path(file, sync=True) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
        if file.exists():
            shutil.copymode(file, partial)


def _changed(text: str, configs: list[ModelConfig]) -> str | None:
    """A text with other entries in the places of the present ones; None if that is not possible."""
    listed = parse(text)
    if [config.name for config in configs] != [config.name for config in listed]:
        return None
    new = {place: render([config]) for place, config in enumerate(configs) if config != listed[place]}
    entries = {place: "\n".join(rendered.splitlines()[1:-1]).lstrip() for place, rendered in new.items()}
    changed = replaced(text, entries)
    wanted = [parse(new[place])[0] if place in new else config for place, config in enumerate(listed)]
    return changed if changed is not None and parse(changed) == wanted else None


def replace_entries(base: Path, configs: list[ModelConfig]) -> None:
    """Replaces the entries of some models, if they differ; those of other models stay."""
    entries = {config.name: replace(config, versions=tuple(sorted(set(config.versions)))) for config in configs}
    listed = read_config(base)
    changed = [entries.get(config.name, config) for config in relocated(base, listed)[0]]
    if changed != listed:
        replace_config(base, changed)


def _from_entry(entry: "ModelServerConfig") -> ModelConfig:
    name, base_path, labels = entry.name, entry.base_path, dict(entry.version_labels)
    versions = tuple(entry.model_version_policy.specific.versions)
    for key in ("name", "base_path", "version_labels"):
        entry.ClearField(key)
    if entry.model_version_policy.WhichOneof("policy_choice") in (None, "specific"):
        entry.ClearField("model_version_policy")
    return ModelConfig(name, base_path, versions, labels, entry.SerializeToString())


def _policy(config: ModelConfig) -> str | None:
    """An entry's version policy, unless it is `specific` or the default, the newest version."""
    entry = ModelServerConfig().model_config_list.config.add()
    entry.MergeFromString(config.rest)
    policy = entry.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    return None if choice == "latest" and policy.latest.num_versions <= 1 else choice
