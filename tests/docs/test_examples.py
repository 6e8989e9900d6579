"""Runs every fenced block of the README, the documentation and the model cards, or checks it as far as a test can.

| block | test |
|---|---|
| `python` | runs, in one namespace per page |
| `bash` | runs: the requests with curl |
| `javascript` | runs in node |
| `console` | the lines after `$` run; the others must match the output, where `...` matches anything |
| `json`, `yaml` | is parsed; commands of a workflow are checked as below |
| `text` | must not look like a command |
| none, `sh` | one command per line, see below |

All requests go to one embedded server with two versions of small random networks. Each page starts in its own folder
with a photo, a crop, video frames, Kaggle's two files and the models. Commands that take hours, never return, or need
something that is not installed are checked without running them:

- `emotion-ai predict`, `versions`, `promote`, `rollback`, `prune` run; `predict --watch`, which never ends, is parsed.
- `train`, `cross-validate`, `sweep`, `evaluate`, `export`: the configuration is composed with the overrides, so every
  key and choice exists and nothing mandatory is missing. Arguments of the other commands are parsed by the application.
- `python -m`: the module's own parser accepts the arguments.
- `make`: a dry run, so every target exists.
- `pip install`: the extras, or the list of requirements, exist. `tensorflow_model_server`: the flags exist.
- `docker compose`, `kubectl`: an export writes the files.

Any other block or command fails the test.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
import yaml
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from emotion_ai import cli
from emotion_ai.contract import Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.published import onnx_file
from emotion_ai.vision.crops import crop
from emotion_ai.vision.photo import PORTRAITS, load_photo

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "src/emotion_ai/assets/weights").glob("*.md")),
]
PAGES.remove(ROOT / "docs/guides/pytorch-serving.md")  # followed by test_serving_guide
GENERATED = "configuration"  # the page generated from conf
FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
REST = "http://127.0.0.1:8501"
HYDRA = {"train": "train", "cross-validate": "train", "sweep": "train", "evaluate": "evaluate", "export": "export"}
RUN = ("predict", "versions", "promote", "rollback", "prune")
DEFAULT_SERVER = ("versions", "promote", "rollback", "prune")  # use a server without --server
SERVER_FLAGS = {
    *("--port", "--rest_api_port", "--model_name", "--model_base_path", "--model_config_file"),
    *("--model_config_file_poll_wait_seconds", "--allow_version_labels_for_unavailable_models"),
    *("--max_num_load_retries", "--grpc_max_threads", "--enable_profiler"),
    *("--tensorflow_intra_op_parallelism", "--tensorflow_inter_op_parallelism"),
}
LOOKUP = "RowId,ImageId,FeatureName,Location\n1,1,left_eye_center_x,\n2,2,nose_tip_y,\n"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text without indentation, and its first line."""

    kind: str
    text: str
    line: int

    @property
    def tool(self) -> str:
        """The program that runs it."""
        if self.kind == "javascript":
            return "node"
        return "curl" if self.kind == "bash" or self.text.startswith("$ curl") else "python"


def blocks_of(text: str) -> list[Block]:
    found = [
        Block(m["kind"].strip(), textwrap.dedent(m["text"]), text.count("\n", 0, m.start()) + 1)
        for m in FENCE.finditer(text)
    ]
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(found), "unclosed fence"
    assert "~~~" not in text
    assert "<pre" not in text
    return found


def read(page: str) -> str:
    if page == GENERATED:
        return str(runpy.run_path(str(ROOT / "docs" / "hooks.py"))["configuration"]())
    return (ROOT / page).read_text()


CASES = [
    (page, tool)
    for page in [*(str(path.relative_to(ROOT)) for path in PAGES), GENERATED]
    for tool in sorted({block.tool for block in blocks_of(read(page))})
]


@pytest.fixture(scope="module")
def served(
    folders: dict[str, Path], onnx_models: dict[Task, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Any]]:
    """A folder with two published versions, and the addresses of a server for it."""
    from emotion_ai_export.convert.parity import Comparison, ParityReport
    from emotion_ai_export.registry.publish import publisher, put_in_place, write_config
    from emotion_ai_export.serving.deployment import write_deployment
    from emotion_ai_export.serving.launch import running

    base = tmp_path_factory.mktemp("published") / "models"
    proof = ParityReport([Comparison("SavedModel", "face", "serving_bytes", "keypoints", "real", 1, 5e-5, 1e-4)])
    for number in (1, 2):
        with publisher(base) as staging:
            for name, folder in folders.items():
                shutil.copytree(folder, staging / name)
                (staging / name / "assets.extra").mkdir(exist_ok=True)
                (staging / name / "assets.extra" / "parity.json").write_text(json.dumps(proof.as_dict()))
            for task, model in onnx_models.items():
                (staging / "face" / onnx_file(task)).write_bytes(model.SerializeToString())
            put_in_place(staging, base, number)
            write_config(base, "host")
    write_deployment(base, "host")
    with running(base) as addresses:
        yield base, addresses


@pytest.fixture
def place(served: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the examples of a page run."""
    (tmp_path / "models").symlink_to(served[0])
    shutil.copy(PORTRAITS[1], tmp_path / "photo.jpg")
    photo = load_photo(PORTRAITS[0])
    Image.fromarray(crop(photo.gray, detect_faces(photo)[0].box)).save(tmp_path / "crop.png")
    (tmp_path / "broken.jpg").write_text("no picture")
    Image.new("RGB", (300, 300), "white").save(tmp_path / "white.png")
    for folder in ("inbox", "frames"):
        (tmp_path / folder).mkdir()
    for number in (1, 2):
        Image.fromarray(load_photo(PORTRAITS[1]).rgb).save(tmp_path / "frames" / f"{number}.png")
    shutil.copytree(tmp_path / "frames", tmp_path / "holiday" / "day1")
    images = synthetic_faces(2, seed=0).images
    rows = [f"{i},{' '.join(map(str, image.ravel()))}\n" for i, image in enumerate(images, 1)]
    (tmp_path / "test.csv").write_text("ImageId,Image\n" + "".join(rows))
    (tmp_path / "IdLookupTable.csv").write_text(LOOKUP)
    (tmp_path / "scores").mkdir()
    pd.DataFrame({"source": ["photo.jpg"]}).to_parquet(tmp_path / "scores" / "part-000000.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.timeout(600)  # includes the conversion and the start of the server
@pytest.mark.parametrize(("page", "tool"), CASES)
def test_examples(page: str, tool: str, place: Path, served: tuple[Path, Any]) -> None:
    if tool != "python" and not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    server = served[1]
    namespace: dict[str, Any] = {}
    for block in blocks_of(read(page)):
        if block.tool != tool:
            continue
        text = block.text.replace(REST, server.rest).replace("grpc://127.0.0.1:8500", server.grpc)
        try:
            run_block(block.kind, text, namespace, server.rest)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{page}, line {block.line}: {type(error).__name__}: {error}") from error


def run_block(kind: str, text: str, namespace: dict[str, Any], rest: str) -> None:
    if kind == "python":
        exec(compile(text, "example", "exec"), namespace)
    elif kind == "bash":
        bash(text)
    elif kind == "javascript":
        Path("example.mjs").write_text(text)
        result = subprocess.run(["node", "example.mjs"], capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
    elif kind == "console":
        for command, expected in dialogue(text):
            curl = command.startswith("curl")
            output = bash(command, check=False) if curl else emotion_ai(shlex.split(command), rest)[1]
            pattern = re.escape(expected.strip()).replace(r"\.\.\.", ".*?")
            assert re.fullmatch(pattern, output.strip().replace(REST, rest), re.DOTALL), f"{command}\n{output}"
    elif kind == "json":
        json.loads(text)
    elif kind == "yaml":
        for step in yaml.safe_load(text).get("steps", ()):
            check_command(shlex.split(step["run"]), rest)
    elif kind == "text":
        assert not re.search(r"^\W*(emotion-ai|make|pip|curl|python) ", text, re.MULTILINE), (
            "use a fence without a language for commands"
        )
    elif kind in ("", "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                check_command(words, rest)
    elif kind == "nginx":
        assert text.count("{") == text.count("}")
        assert all(re.search(r"[;{}]$", line.partition("  #")[0].rstrip()) for line in text.splitlines() if line)
    else:
        raise AssertionError(f"add a test for {kind!r} blocks to {__name__}")


def dialogue(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with its output."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0], "a console block begins with a command"
    for start, end in itertools.pairwise([*starts, len(lines)]):
        yield lines[start].removeprefix("$ "), "\n".join(lines[start + 1 : end])


def bash(script: str, check: bool = True) -> str:
    result = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=120)
    assert not check or result.returncode == 0, result.stderr + result.stdout
    return result.stdout + result.stderr


def emotion_ai(words: list[str], rest: str) -> tuple[int, str]:
    """Exit code and output of the command, run in this process to save the imports."""
    name, *arguments = words
    assert name == "emotion-ai"
    if arguments[0] in DEFAULT_SERVER and not {"--server", "--offline"} & set(arguments):
        arguments += ["--server", rest]
    arguments = [
        path for word in arguments for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    output, original = io.StringIO(), sys.argv
    sys.argv = [name, *arguments]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0), output.getvalue()
    finally:
        sys.argv = original
    return 0, output.getvalue()


class Parsed(Exception):
    """The arguments were parsed."""


def check_command(words: list[str], rest: str) -> None:
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment variables
        words = words[1:]
    words = [words[0].removeprefix(".venv/bin/"), *words[1:]]
    name, *arguments = words
    if name == "emotion-ai":
        stage, *rest_of_them = arguments
        elsewhere = any("example.org" in word or "2001:db8" in word for word in arguments)
        if stage in RUN and "--watch" not in arguments and not elsewhere:
            code, output = emotion_ai(words, rest)
            assert code == 0, output
        elif stage in HYDRA:
            with initialize_config_module("emotion_ai_conf", version_base="1.3"):
                for job in jobs([*(["sweep=default"] if stage == "sweep" else []), *rest_of_them]):
                    assert not OmegaConf.missing_keys(compose(HYDRA[stage], job))
        else:
            command: Any = typer.main.get_command(cli.app)
            command.commands[stage].make_context(stage, rest_of_them)
    elif name == "make":
        settings = {**os.environ, "MAKEFLAGS": ""}
        result = subprocess.run(
            ["make", "--dry-run", *arguments], cwd=ROOT, env=settings, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
    elif name == "python" and arguments[0] == "-m":
        parse = argparse.ArgumentParser.parse_args

        def only_parse(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> None:
            parse(parser, arguments)
            raise Parsed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", arguments[1:])
            patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
            with pytest.raises(Parsed):
                importlib.import_module(arguments[1]).main()
    elif name == "pip":
        check_pip(arguments)
    elif name == "ray":
        # in a process of its own: Ray reads its settings when it is imported
        script = "import sys; from ray.scripts.scripts import cli; name, *rest = sys.argv[1:]"
        script += "; cli.commands[name].make_context(name, rest)"
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=120)
    elif name == "tensorflow_model_server":
        assert {word.partition("=")[0] for word in arguments} <= SERVER_FLAGS
    elif name in ("docker", "kubectl"):
        from emotion_ai_export.serving.deployment import FILES

        assert [name for name in FILES if f"models/deployment/{name}" in arguments]
    else:
        raise AssertionError(f"add a test for {name} to {__name__}")


def jobs(overrides: list[str]) -> list[list[str]]:
    """The overrides of every job of a sweep (`-m`), or of the only job."""
    if "-m" not in overrides:
        return [overrides]
    parsed = OverridesParser.create().parse_overrides([text for text in overrides if text != "-m"])
    values = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [str(each.input_line)]
        for each in parsed
    ]
    return [list(job) for job in itertools.product(*values)]


def check_pip(arguments: list[str]) -> None:
    """`pip install` of this project, of its pinned requirements, or of what is installed without dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert arguments[0] == "install"
    if arguments[1:] in (["--no-deps", "onnx-tf==1.10.0"], ["--no-deps", "."]):
        return
    if "--requirement" in arguments:
        assert arguments[1:-1] == ["--no-deps", "--require-hashes", "--requirement"]
        assert (ROOT / arguments[-1]).is_file()
        return
    assert len(arguments) == 2
    match = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", arguments[1])
    assert match
    assert set((match[1] or "dev").split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ruby", "puts 1"),
        ("", "rm -r models"),
        ("", "emotion-ai train no_such_key=1"),
        ("", "emotion-ai evaluate task=emotion"),
        ("", "emotion-ai train -m optimizer=adamw,none"),
        ("", "emotion-ai verify models --no-such-option"),
        ("", "emotion-ai no-such-stage"),
        ("", "make no-such-target"),
        ("", "pip install '.[none]'"),
        ("", "pip install onnx-tf"),
        ("", "pip install --constraint none.txt ."),
        ("", "tensorflow_model_server --no_such_flag"),
        ("", "docker compose --file none.yaml up"),
        ("text", "  emotion-ai predict photo.jpg"),
        ("python", "1 / 0"),
        ("json", "{"),
        ("console", "$ emotion-ai data none.csv\nerror: another"),
    ],
)
def test_wrong_examples_fail(kind: str, text: str) -> None:
    with pytest.raises((Exception, SystemExit)):
        run_block(kind, text, {}, "http://127.0.0.1:9")


def test_blocks_may_be_indented_and_must_be_closed() -> None:
    assert blocks_of("a\n    ```python\n    x = 1\n    ```\n") == [Block("python", "x = 1\n", 2)]
    with pytest.raises(AssertionError):
        blocks_of("```python\nx = 1\n")
