"""Pages generated from the program: command line, configuration, model cards."""

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
GROUPS = (
    *(
        "task",
        "data",
        "classes",
        "model",
        "optimizer",
        "scheduler",
        "trainer",
        "logger",
        "callbacks",
        "debug",
        "experiment",
        "sweep",
    ),
)
HYDRA = ("train", "cross-validate", "sweep", "evaluate", "export")
AUGMENT = """::: emotion_ai.data.augment.Augmentation
    options: {members: false, show_root_heading: false, show_root_toc_entry: false}"""
CARDS = ROOT / "src" / "emotion_ai" / "assets" / "weights"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    files.append(File.generated(config, "reference/command-line.md", content=command_line()))
    files.append(File.generated(config, "reference/configuration.md", content=configuration()))
    for card in sorted(CARDS.glob("*.md")):
        files.append(File.generated(config, f"cards/{card.name}", abs_src_path=str(card)))
    return files


def command_line() -> str:
    """Arguments and options of every command, from Typer's documentation tool."""
    command = [sys.executable, "-m", "typer", "emotion_ai.cli", "utils", "docs", "--name", "emotion-ai"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace("&#x27;", "'")
    head, _, rest = text.partition("\n**Usage**")
    commands = rest[rest.index("\n## ") :]  # after the list of commands, which the outline repeats
    body = re.sub(r"```console\n\$ (.*?)\n```", r"```text\n\1\n```", commands)  # usage, not an example
    for stage in HYDRA:
        page = "configuration.md#" + ("train" if stage in ("cross-validate", "sweep") else stage)
        taken = f"Settings are `key=value`; see `emotion-ai {stage} --help` and [Configuration]({page}).\n"
        body = re.sub(rf"(## `emotion-ai {stage}`\n\n.*?\n\n).*?(?=\n## |\Z)", rf"\g<1>{taken}", body, flags=re.DOTALL)
    return head.replace("# `emotion-ai`", "# Command line", 1) + body


def configuration() -> str:
    """Every key of `conf` with its default and its comment."""
    parts = [
        "# Configuration",
        "`train`, `cross-validate`, `sweep`, `evaluate` and `export` take every key below as `key=value`. Select an "
        "option of a group by its name (`trainer=gpu`) and override its keys as `group.key=value`. `null` means not "
        "set, `???` mandatory. Unknown keys are errors. `emotion-ai train --help` prints the composed config. The "
        "[configuration guide](../guides/configuring.md) has examples.",
    ]
    for stage in STAGES:
        parts += [f"## {stage}", *_file(CONF / f"{stage}.yaml")]
    for group in GROUPS:
        parts.append(f"## Group `{group}`")
        for path in sorted((CONF / group).glob("*.yaml")):
            prefix = "" if "# @package _global_" in path.read_text() else f"{group}."
            parts += [f"### `{group}={path.stem}`", *_file(path, prefix)]
        if group == "task":
            parts += ["### `task.augment`", AUGMENT]
    parts += [
        "## ablations",
        "`emotion-ai ablations` reads one file with the runs of each budget and the changes of each row.",
        '??? note "conf/ablations.yaml"\n\n    ```yaml\n'
        + "".join(f"    {line}\n" if line else "\n" for line in (CONF / "ablations.yaml").read_text().splitlines())
        + "    ```",
    ]
    return "\n\n".join(parts) + "\n"


def _file(path: Path, prefix: str = "") -> list[str]:
    """The comment at its top, the options it starts from, and a table of its keys."""
    lines = path.read_text().splitlines()
    root = yaml.compose(path.read_text())
    parts = []
    for line in lines:
        if not line.startswith("#"):
            break
        if line.startswith("# emotion-ai "):
            parts.append(f"```\n{line.removeprefix('# ')}\n```")
        elif not line.startswith("# @"):
            parts.append(f"{line.removeprefix('# ')[:1].upper()}{line.removeprefix('# ')[1:].rstrip('.')}.")
    rows = []
    for key, value in root.value:
        if key.value == "defaults":
            chosen = [_choice(entry) for entry in value.value]
            if any(chosen):
                parts.append(f"Based on {', '.join(filter(None, chosen))}.")
        elif key.value != "hydra":
            rows += _rows(value, prefix + key.value, lines)
    if rows:
        parts.append("\n".join(["| key | default | description |", "|---|---|---|", *rows]))
    return parts


def _choice(entry: yaml.Node) -> str:
    """An entry of a defaults list, as on the command line."""
    if isinstance(entry, yaml.ScalarNode):
        return "" if entry.value == "_self_" else f"`{entry.value}`"
    ((group, choice),) = entry.value
    name = group.value.removeprefix("override ").removeprefix("/")
    return "" if name.startswith(("hydra", "optional")) else f"`{name}={choice.value}`"


def _rows(node: yaml.Node, key: str, lines: list[str]) -> list[str]:
    if isinstance(node, yaml.MappingNode):
        return [row for name, value in node.value for row in _rows(value, f"{key}.{name.value}", lines)]
    written = node.start_mark.buffer[node.start_mark.pointer : node.end_mark.pointer].strip()
    beside = lines[node.start_mark.line][node.start_mark.column :].removeprefix(written).strip()
    return [f"| `{key}` | `{written}` | {html.escape(beside.removeprefix('#').strip()).replace('|', '&#124;')} |"]
