"""Pages that MkDocs takes from the program itself: command line, configuration, model cards."""

import html
import re
import subprocess
import sys
from pathlib import Path

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
STAGES = ("train", "evaluate", "export")
GROUPS = ("task", "model", "trainer", "data", "experiment")
HYDRA = ("train", "cross-validate", "evaluate", "export")
AUGMENT = """::: emotion_ai.data.augment.Augmentation
    options: {members: false, show_root_heading: false, show_root_toc_entry: false}"""
CARDS = ROOT / "src" / "emotion_ai" / "assets" / "weights"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that no file of `docs` holds."""
    files.append(File.generated(config, "reference/command-line.md", content=command_line()))
    files.append(File.generated(config, "reference/configuration.md", content=configuration()))
    for card in sorted(CARDS.glob("*.md")):
        files.append(File.generated(config, f"cards/{card.name}", abs_src_path=str(card)))
    return files


def command_line() -> str:
    """What every command takes, as Typer's own tool writes it from the application."""
    command = [sys.executable, "-m", "typer", "emotion_ai.cli", "utils", "docs", "--name", "emotion-ai"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace("&#x27;", "'")
    head, _, rest = text.partition("\n**Usage**")
    commands = rest[rest.index("\n## ") :]  # the list before them is the outline once more
    body = re.sub(r"```console\n\$ (.*?)\n```", r"```text\n\1\n```", commands)  # a form, not an example
    for stage in HYDRA:
        page = "configuration.md#" + ("train" if stage == "cross-validate" else stage)
        taken = f"Takes `key=value`; `emotion-ai {stage} --help` and [Configuration]({page}) list the keys.\n"
        body = re.sub(rf"(## `emotion-ai {stage}`\n\n.*?\n\n).*?(?=\n## |\Z)", rf"\g<1>{taken}", body, flags=re.DOTALL)
    return head.replace("# `emotion-ai`", "# Command line", 1) + body


def configuration() -> str:
    """Every key of `conf`, its default and the comment beside it."""
    parts = [
        "# Configuration",
        "`train`, `cross-validate`, `evaluate` and `export` take every key of their table as `key=value`; a group is "
        "chosen by its name, as in `trainer=gpu`, and its keys are written `group.key=value`. `null` means that "
        "nothing is chosen, `???` that it must be given. An unknown key is an error. `emotion-ai train --help` shows "
        "the whole as one file.",
    ]
    for stage in STAGES:
        parts += [f"## {stage}", *_file(CONF / f"{stage}.yaml")]
    for group in GROUPS:
        parts.append(f"## Group `{group}`")
        for path in sorted((CONF / group).glob("*.yaml")):
            parts += [f"### `{group}={path.stem}`", *_file(path, "" if group == "experiment" else f"{group}.")]
        if group == "task":
            parts += ["### `task.augment`", AUGMENT]
    parts += [
        "## ablations",
        "`emotion-ai ablations` reads one file: what each budget runs, and what each row changes.",
        '??? note "conf/ablations.yaml"\n\n    ```yaml\n'
        + "".join(f"    {line}\n" if line else "\n" for line in (CONF / "ablations.yaml").read_text().splitlines())
        + "    ```",
    ]
    return "\n\n".join(parts) + "\n"


def _file(path: Path, prefix: str = "") -> list[str]:
    """Its head's comment, what it takes from groups, and a table of its keys."""
    lines = path.read_text().splitlines()
    root = yaml.compose(path.read_text())
    parts = []
    for line in lines:
        if not line.startswith("#"):
            break
        if line.startswith("# emotion-ai "):
            parts.append(f"```\n{line.removeprefix('# ')}\n```")
        elif not line.startswith("# @"):
            parts.append(f"{line.removeprefix('# ')[:1].upper()}{line.removeprefix('# ')[1:]}.")
    rows = []
    for key, value in root.value:
        if key.value == "defaults":
            chosen = [_choice(entry) for entry in value.value]
            if any(chosen):
                parts.append(f"Starts from {', '.join(filter(None, chosen))}.")
        elif key.value != "hydra":
            rows += _rows(value, prefix + key.value, lines)
    if rows:
        parts.append("\n".join(["| key | default | |", "|---|---|---|", *rows]))
    return parts


def _choice(entry: yaml.Node) -> str:
    """An entry of a defaults list, as it is written on the command line."""
    if isinstance(entry, yaml.ScalarNode):
        return "" if entry.value == "_self_" else f"`{entry.value}`"
    ((group, choice),) = entry.value
    name = group.value.removeprefix("override ").removeprefix("/")
    return "" if name.startswith("hydra") else f"`{name}={choice.value}`"


def _rows(node: yaml.Node, key: str, lines: list[str]) -> list[str]:
    if isinstance(node, yaml.MappingNode):
        return [row for name, value in node.value for row in _rows(value, f"{key}.{name.value}", lines)]
    written = node.start_mark.buffer[node.start_mark.pointer : node.end_mark.pointer].strip()
    beside = lines[node.start_mark.line][node.start_mark.column :].removeprefix(written).strip()
    return [f"| `{key}` | `{written}` | {html.escape(beside.removeprefix('#').strip()).replace('|', '&#124;')} |"]
