import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.published import list_versions
from emotion_ai_export.registry.model_config import parse, render
from emotion_ai_export.registry.publish import (
    next_version,
    publisher,
    put_in_place,
    write_checksums,
    write_config,
)

FILES = [f"part-{number}" for number in range(20)]


def stage(staging: Path) -> None:
    for name in SERVABLES:
        (staging / name / "assets.extra").mkdir(parents=True)
        for file in FILES:
            (staging / name / file).write_text(f"{name} {file}")


def publish_one(base: Path) -> int:
    with publisher(base) as staging:
        stage(staging)
        version = next_version(base)
        put_in_place(staging, base, version)
    return version


def hidden(base: Path) -> list[str]:
    return [path.name for path in base.iterdir() if path.name.startswith(".staging")]


def test_a_polling_reader_never_sees_a_part(tmp_path: Path) -> None:
    seen: set[Path] = set()
    incomplete: list[Path] = []
    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            for path in [p for name in SERVABLES for p in (tmp_path / name).glob("*") if p.name.isdigit()]:
                if path not in seen:
                    seen.add(path)
                    if not all((path / file).is_file() for file in FILES):
                        incomplete.append(path)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        versions = [publish_one(tmp_path) for _ in range(15)]
    finally:
        done.set()
        reader.join()
    assert versions == list(range(1, 16))
    assert len(seen) > 3
    assert not incomplete
    assert not hidden(tmp_path)


def test_a_killed_publisher_leaves_nothing_visible_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom emotion_ai_export.registry.publish import publisher\n"
        "with publisher(Path(sys.argv[1])) as staging:\n"
        "    (staging / 'face').mkdir()\n    (staging / 'face' / 'saved_model.pb').write_text('half')\n"
        "    print('staged', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "staged\n"
        with pytest.raises(ExportError, match="another export"), publisher(tmp_path):
            pass
        assert len(hidden(tmp_path)) == 1  # the loser has not touched the winner's
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [list_versions(tmp_path / name) for name in SERVABLES] == [[], [], []]
    assert len(hidden(tmp_path)) == 1
    assert publish_one(tmp_path) == 1
    assert not hidden(tmp_path)


def test_a_failure_between_the_renames_leaves_nothing_and_its_number_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename: Callable[..., None] = os.rename

    def failing(source: Path, target: Path) -> None:
        if "face" in str(target):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("os.rename", failing)
    with pytest.raises(KeyboardInterrupt):
        publish_one(tmp_path)
    monkeypatch.undo()
    assert [list_versions(tmp_path / name) for name in SERVABLES] == [[], [], []]
    assert not hidden(tmp_path)
    assert publish_one(tmp_path) == 2
    assert [list_versions(tmp_path / name) for name in SERVABLES] == [[2], [2], [2]]


def test_a_command_killed_at_any_place_loses_nothing_and_blocks_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.export.registry.kills", str(tmp_path), "kill", "11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    kills = {name: int(count) for name, count in (line.split() for line in done.stdout.splitlines())}
    assert kills.keys() == {"export", "promote", "rollback", "prune"}
    assert min(kills.values()) >= 3


def test_one_number_for_three_models_is_the_highest_present_plus_one(tmp_path: Path) -> None:
    for path in ("keypoints/7", "face/3", "emotion/v9", "emotion/.staging-10", "emotion/2.5"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "face/99").write_text("a file is no version")
    assert publish_one(tmp_path) == 8


def test_a_version_is_never_overwritten(tmp_path: Path) -> None:
    publish_one(tmp_path)
    with publisher(tmp_path) as staging:
        stage(staging)
        (staging / "keypoints" / "part-0").write_text("new")
        with pytest.raises(ExportError, match="never overwritten"):
            put_in_place(staging, tmp_path, 1)
    assert (tmp_path / "keypoints/1/part-0").read_text() == "keypoints part-0"


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ExportError, match="choose another folder with out="),
        publisher(tmp_path / "file" / "models"),
    ):
        pass


def test_checksums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    stage(tmp_path)
    version = tmp_path / "face"
    write_checksums(version)
    command = ["sha256sum", "--check", "--strict", "--quiet", "assets.extra/SHA256SUMS"]
    assert subprocess.run(command, cwd=version, check=False, capture_output=True).returncode == 0
    assert len((version / "assets.extra/SHA256SUMS").read_text().splitlines()) == len(FILES)
    (version / "part-3").write_text("changed")
    assert subprocess.run(command, cwd=version, check=False, capture_output=True).returncode != 0


def test_the_configuration_serves_labelled_versions_and_the_newest(tmp_path: Path) -> None:
    for _ in range(4):
        publish_one(tmp_path)
    path = write_config(tmp_path, "host")
    first = parse(path.read_text())
    assert {c.name for c in first} == set(SERVABLES)
    for config in first:  # nothing was labelled yet: what is served first is stable until a promotion moves it
        assert config.base_path == str(tmp_path / config.name)
        assert (config.versions, config.labels) == ((4,), {"stable": 4})

    path.write_text(render([replace(config, labels={"stable": 2, "gone": 77}) for config in first]))
    publish_one(tmp_path)
    for config in parse(write_config(tmp_path, "container").read_text()):
        assert config.base_path == f"/models/{config.name}"
        assert (config.versions, config.labels) == ((2, 5), {"stable": 2})


def test_a_configuration_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    publish_one(tmp_path)
    (tmp_path / "models.config").write_text("model_config_list { config {")
    with pytest.raises(ExportError, match=r"models\.config"):
        write_config(tmp_path, "host")
    assert (tmp_path / "models.config").read_text() == "model_config_list { config {"
    with pytest.raises(ExportError, match="target=moon"):
        write_config(tmp_path, "moon")
