"""Threads and retries of TensorFlow Serving: one rule, passed wherever a command is rendered."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from emotion_ai.errors import ConfigError
from emotion_ai_export.registry.publish import write_config
from emotion_ai_export.serving import engines, flags
from emotion_ai_export.serving.deployment import write_deployment
from emotion_ai_export.serving.engines import ServerOptions
from emotion_ai_export.serving.flags import available_cpus, runtime_flags
from tests.export.serving.deployment.deployment_files import container


def test_two_cpus_get_the_measured_values() -> None:
    assert runtime_flags(2) == [
        "--max_num_load_retries=0",
        "--grpc_max_threads=64",
        "--tensorflow_intra_op_parallelism=1",
        "--tensorflow_inter_op_parallelism=2",
    ]


@pytest.mark.parametrize(("cpus", "grpc_threads"), [(1, 64), (4, 128), (16, 512)])
def test_threads_follow_the_cpus(cpus: int, grpc_threads: int) -> None:
    found = dict(flag.split("=") for flag in runtime_flags(cpus))
    assert int(found["--grpc_max_threads"]) == grpc_threads > 4 * cpus, "the server's default is four per core"
    assert int(found["--tensorflow_inter_op_parallelism"]) == cpus
    assert found["--tensorflow_intra_op_parallelism"] == "1"


@pytest.mark.parametrize("cpus", [1, 2, 6])
def test_all_files_pass_the_flags_of_their_limit(base: Path, target: str, cpus: int) -> None:
    write_config(base, target)
    texts = {path.name: path.read_text() for path in write_deployment(base, target, cpus)}
    server = yaml.safe_load(texts["compose.yaml"])["services"]["server"]
    pod = container(texts["kubernetes.yaml"])
    shell = re.search(r"```\n(tensorflow_model_server.*?)```", texts["README.md"], re.DOTALL)
    assert shell is not None
    for command in (server["command"], pod["args"], shlex.split(shell[1].replace("\\\n", ""))):
        assert [flag for flag in command if flag in runtime_flags(cpus)] == runtime_flags(cpus)
    assert server["cpus"] == cpus
    assert pod["resources"]["limits"]["cpu"] == pod["resources"]["requests"]["cpu"] == str(cpus)


@pytest.mark.parametrize("engine", ["tensorflow-serving", "docker"])
def test_serve_passes_the_flags_of_its_cpus(
    base: Path, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "available_cpus", lambda: 3)
    monkeypatch.setenv("TFS_BIN", "/opt/tensorflow_model_server")
    command = engines.command_line(base, ServerOptions(engine=engine), tmp_path)
    assert command[-4:] == runtime_flags(3)


@pytest.mark.parametrize(
    ("limit", "cpus"), [("150000 100000", 2), ("100000 100000", 1), ("1000 100000", 1), ("max 100000", 4), (None, 4)]
)
def test_a_limit_of_the_container_counts(
    limit: str | None, cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    if limit:
        file.write_text(f"{limit}\n")
    monkeypatch.setattr(flags, "_CGROUP_LIMIT", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert available_cpus() == cpus


@pytest.mark.parametrize("cpus", [0, -1, 1.5, True, "2", None])
def test_other_cpus_are_an_error_and_nothing_is_written(base: Path, cpus: int) -> None:
    write_config(base, "host")
    with pytest.raises(ConfigError, match=rf"cpus must be an integer >= 1, got {cpus}"):
        write_deployment(base, "host", cpus)
    assert not (base / "deployment").exists()


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ("cpus=0", "cpus must be an integer >= 1, got 0"),
        ("server=localhost", "write it as http://HOST:PORT"),
        ("server=5", "write it as"),
    ],
)
def test_export_refuses_wrong_settings_before_it_starts(tmp_path: Path, choice: str, problem: str) -> None:
    from hydra import compose, initialize_config_module

    from emotion_ai_export.convert.stage import export

    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        cfg = compose("export", ["checkpoint=bundled", f"out={tmp_path / 'models'}", choice])
    with pytest.raises(ConfigError, match=problem):
        export(cfg)
    assert not (tmp_path / "models").exists()
