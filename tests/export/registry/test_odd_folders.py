"""Published folders in which something odd lies: each command ends with one line, or goes on, and loses nothing."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError, ServerUnreachableError
from emotion_ai.published import list_versions, whole_versions
from emotion_ai_export.registry.listing import describe_versions, versions_command
from emotion_ai_export.registry.model_config import parse, read_config, render
from emotion_ai_export.registry.publish import next_version, publisher, write_config
from emotion_ai_export.registry.staging import damaged_versions
from emotion_ai_export.registry.versions import promote, prune, rollback
from emotion_ai_export.registry.watched_server import WatchedServer
from tests.export.registry.kills import export

COMMANDS: dict[str, Callable[[Path], object]] = {
    "export": export,
    "promote": lambda base: promote(base, 2),
    "rollback": rollback,
    "prune": lambda base: prune(base, 1),
}
each_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture(autouse=True)
def without_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk would take most of these tests' time."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Versions 1 to 4; stable names 3 and named 1 before."""
    base = tmp_path / "models"
    for _ in range(4):
        export(base)
    promote(base, 3)
    return base


def tree(base: Path) -> dict[str, str]:
    """Visible files and their content."""
    found = [path for path in base.rglob("*") if not path.relative_to(base).parts[0].startswith(".")]
    return {str(path.relative_to(base)): path.read_text() for path in found if path.is_file()}


def in_place(path: Path, kind: str, outside: Path) -> None:
    """Puts something other than a file at `path`."""
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)


@each_command
@pytest.mark.parametrize("kind", ["link", "folder", "FIFO"])
def test_a_lock_that_is_no_file_is_refused_and_nothing_is_emptied(
    base: Path, tmp_path: Path, command: str, kind: str
) -> None:
    outside = tmp_path / "precious"
    outside.write_text("content")
    (base / ".lock").unlink()
    in_place(base / ".lock", kind, outside)
    before = tree(base)
    with pytest.raises(ExportError, match=r"\.lock: not a regular file; remove it"):
        COMMANDS[command](base)
    assert outside.read_text() == "content"
    assert tree(base) == before


def test_a_lock_with_two_names_keeps_its_content(base: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (base / ".lock").unlink()
    os.link(tmp_path / "precious", base / ".lock")
    promote(base, 2)
    assert (tmp_path / "precious").read_text() == "content"


@each_command
def test_staging_links_and_files_are_removed_but_not_what_they_point_to(
    base: Path, tmp_path: Path, command: str
) -> None:
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("content")
    (base / ".staging-link").symlink_to(outside)
    (base / ".staging-dangling").symlink_to(tmp_path / "nothing")
    (base / ".staging-file").write_text("")
    os.mkfifo(base / ".staging-4-fifo")
    COMMANDS[command](base)
    assert not list(base.glob(".staging-*"))
    assert (outside / "file").read_text() == "content"
    assert 4 in whole_versions(base)


@each_command
def test_a_staging_folder_that_cannot_be_deleted_blocks_nothing(
    base: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of another user is."""
    delete = shutil.rmtree

    def refusing(path: Path) -> None:
        if "foreign" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        delete(path)

    (base / ".staging-foreign" / "face").mkdir(parents=True)
    monkeypatch.setattr("shutil.rmtree", refusing)
    COMMANDS[command](base)
    assert [path.name for path in base.glob(".staging-*")] == [".staging-foreign"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        ".staging-foreign: left by another command and cannot be deleted (Permission denied); "
        "its owner should delete it"
    )


def test_a_staging_folder_in_use_is_not_deleted_even_if_the_lock_was(base: Path) -> None:
    with publisher(base) as staging:
        (base / ".lock").unlink()
        for command in COMMANDS.values():
            with pytest.raises(ExportError, match="another export is running there"):
                command(base)
        assert staging.is_dir()
    assert promote(base, 2) == 2


UNREADABLE = {
    "not UTF-8": (b"\xff\xfem\x00", "cannot be read"),
    "a field that is not known": (b"model_config_list { config { name: 'face' quota_config {} } }", "quota_config"),
    "several unknown fields": (b"custom_model_config { a: 1 b: 2 }", 'no field named "a"'),
    "no list": (
        b"custom_model_config { type_url: 'x' value: 'y' }",
        "has a custom_model_config, not a model_config_list",
    ),
    "binary": (bytes(range(256)), "cannot be read"),
    "a model twice": (b"model_config_list { config { name: 'face' } config { name: 'face' } }", "'face' 2 times"),
    "huge": (b"#" * (2**20 + 1), "larger than 1048576 bytes"),
    "all versions": (
        b"model_config_list { config { name: 'face' base_path: '/m/face' model_version_policy { all {} } } }",
        "face has the version policy 'all'",
    ),
    "latest versions": (
        b"model_config_list { config { name: 'face' base_path: '/m/face' model_version_policy { latest "
        b"{ num_versions: 2 } } } }",
        "face has the version policy 'latest'",
    ),
    "served from elsewhere": (
        b"model_config_list { config { name: 'face' base_path: '/somebody/else' } }",
        "face is served from /somebody/else",
    ),
}


@each_command
@pytest.mark.parametrize("content", UNREADABLE)
def test_a_configuration_that_would_lose_something_is_refused(base: Path, command: str, content: str) -> None:
    text, problem = UNREADABLE[content]
    (base / "models.config").write_bytes(text)
    files = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    with pytest.raises(ExportError, match=problem) as error:
        COMMANDS[command](base)
    assert "models.config" in str(error.value)
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == files
    assert not list(base.glob(".staging-*"))


@each_command
@pytest.mark.parametrize("kind", ["link", "folder", "FIFO"])
def test_a_configuration_that_is_no_file_is_refused(base: Path, tmp_path: Path, command: str, kind: str) -> None:
    config, outside = base / "models.config", tmp_path / "precious"
    shutil.move(config, outside)
    in_place(config, kind, outside)
    before = outside.read_text()
    with pytest.raises(ExportError, match=r"models\.config: "):
        COMMANDS[command](base)
    assert outside.read_text() == before
    assert config.lstat().st_mode
    assert whole_versions(base) == [1, 2, 3, 4]


@each_command
def test_a_configuration_without_our_models_is_one_line(base: Path, command: str) -> None:
    (base / "models.config").write_text("")
    if command == "export":
        assert COMMANDS[command](base) == 5
    else:
        with pytest.raises(ExportError, match="does not list keypoints, emotion, face; publish with"):
            COMMANDS[command](base)


@each_command
def test_entries_of_other_models_stay(base: Path, command: str) -> None:
    other = """model_config_list { config {
      name: "other" base_path: "/elsewhere/other" model_platform: "tensorflow"
      model_version_policy { all {} } version_labels { key: "old" value: 7 } } }"""
    config = base / "models.config"
    config.write_text(render([*parse(other), *read_config(base)]))
    COMMANDS[command](base)
    assert parse(config.read_text())[0] == parse(other)[0]
    assert "all {" in config.read_text()
    assert [entry.name for entry in read_config(base)] == ["other", *SERVABLES]


def test_a_version_that_another_entry_serves_is_not_deleted(base: Path) -> None:
    entry = f'model_config_list {{ config {{ name: "mine" base_path: "{base}/face" model_version_policy {{ specific {{ '
    entry += 'versions: 2 } } model_platform: "tensorflow" } }'
    (base / "models.config").write_text(render([*read_config(base), *parse(entry)]))
    assert prune(base, 1) == [1]
    assert whole_versions(base) == [2, 3, 4]


def test_a_label_whose_version_is_gone_is_named(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in SERVABLES:
        shutil.rmtree(base / model / "3")
    write_config(base, "host")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("version 3, which stable named, does not exist; the label is removed")


@pytest.mark.parametrize(
    "content",
    [b"[1]", b'"stable"', b"1", b"null", b'{"stable": "2"}', b'{"stable": {}}', b'{"stable": {"x": 2}}', b"\xff",
     b'{"stable": true}', b'{"stable": {"2": [1]}}', b"[" * 100_000, b" " * (2**20 + 1), b"{"],
)  # fmt: skip
def test_a_record_of_earlier_versions_that_is_none_is_refused(base: Path, content: bytes) -> None:
    (base / ".before.json").write_bytes(content)
    before = tree(base)
    for command in ("promote", "rollback"):
        with pytest.raises(ExportError, match=r"\.before\.json: .*; delete it"):
            COMMANDS[command](base)
    assert (base / ".before.json").read_bytes() == content
    assert tree(base) == before
    (base / ".before.json").unlink()
    assert promote(base, 2) == 2


@pytest.mark.parametrize("name", [".before.json", ".last-version"])
@pytest.mark.parametrize("kind", ["folder", "FIFO"])
def test_a_hidden_file_that_is_none_is_one_line(base: Path, name: str, kind: str) -> None:
    (base / name).unlink()
    in_place(base / name, kind, base)
    command = COMMANDS["rollback" if name == ".before.json" else "export"]
    with pytest.raises(ExportError, match="; delete it"):
        command(base)
    assert whole_versions(base) == [1, 2, 3, 4]


def test_the_record_of_version_0_1_is_read(base: Path) -> None:
    (base / ".before.json").write_text('{"stable": 2}')
    assert [rollback(base), rollback(base)] == [2, 2]


def test_a_promotion_that_fails_keeps_what_a_rollback_leads_to(base: Path) -> None:
    with pytest.raises(ServerUnreachableError):
        promote(base, 4, server=WatchedServer("http://127.0.0.1:9"))
    assert read_config(base)[0].labels == {"stable": 3}
    assert rollback(base) == 1


def test_parts_of_a_version_are_not_used(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(base / "face" / "4")
    shutil.rmtree(base / "emotion" / "2")
    assert [version.number for version in describe_versions(base)] == [1, 3]
    result = CliRunner().invoke(app, ["versions", str(base), "--server", "http://127.0.0.1:9", "--json"])
    assert [version["number"] for version in json.loads(result.stdout)] == [1, 3]
    assert "version 2 is not complete (no emotion) and not used" in result.stderr
    assert promote(base) == 3
    assert prune(base, 1) == [1, 2]
    assert [list_versions(base / model) for model in SERVABLES] == [[3, 4], [3, 4], [3]]  # it may be on its way
    assert export(base) == 5
    assert [entry.versions for entry in read_config(base)] == [(3, 5)] * 3
    assert prune(base, 1) == [4]


def test_a_version_is_damaged_unless_a_command_is_at_work_on_it(base: Path) -> None:
    shutil.rmtree(base / "face" / "4")
    shutil.rmtree(base / "face" / "2")
    (base / ".staging-2-face-00000000").mkdir()
    assert damaged_versions(base) == [4]
    promote(base, 1)  # finishes the removal of version 2
    assert [list_versions(base / model) for model in SERVABLES] == [[1, 3, 4], [1, 3, 4], [1, 3]]


def test_no_number_is_used_twice(base: Path) -> None:
    for number in (3, 4):
        for model in SERVABLES:
            shutil.rmtree(base / model / str(number))
    assert export(base) == 5


@pytest.mark.parametrize("content", ["", "x", "-1", "1" + 18 * "0", 100 * "9", "\0", 101 * "1"])
def test_a_last_number_that_is_none_is_refused(base: Path, content: str) -> None:
    (base / ".last-version").write_text(content)
    with pytest.raises(ExportError, match=r"\.last-version: holds no version number .*; delete it"):
        export(base)
    assert whole_versions(base) == [1, 2, 3, 4]


def test_numbers_end_where_the_server_cannot_follow(base: Path) -> None:
    (base / ".last-version").write_text(18 * "9")
    with pytest.raises(ExportError, match="no version number is left"):
        export(base)


@pytest.mark.parametrize(
    ("place", "number", "said"),
    [
        (-1, "2", "stable is not the same version of all models (3 of keypoints, 3 of emotion, 2 of face); move it"),
        (None, "99", "stable is version 99, which does not exist; move it with: emotion-ai promote"),
    ],
)
def test_versions_tells_of_labels_that_the_table_cannot_show(
    base: Path, capsys: pytest.CaptureFixture[str], place: int | None, number: str, said: str
) -> None:
    versions_command(base, None, as_json=False)
    assert not capsys.readouterr().err
    parts = (base / "models.config").read_text().split("value: 3")
    changed = parts[:place] if place else parts[:1]
    rest = parts[len(changed) :]
    text = "value: 3".join(changed) + f"value: {number}" + f"value: {number}".join(rest)
    (base / "models.config").write_text(text)
    versions_command(base, None, as_json=False)
    assert said in capsys.readouterr().err


def test_names_that_are_no_plain_number_are_no_versions(base: Path) -> None:
    for name in ("007", "9" * 30, "9" * 200, "-1", "1.5", "²", ".8"):
        for model in SERVABLES:
            (base / model / name).mkdir()
    assert whole_versions(base) == [1, 2, 3, 4]
    assert prune(base, 1) == [1, 2]
    assert next_version(base) == 5


def test_a_version_that_cannot_be_moved_stays_whole_and_the_others_are_deleted(own_base: Path) -> None:
    (own_base / "emotion" / "1").chmod(0o500)
    with pytest.raises(ExportError, match=r"emotion/1: cannot be removed \(Permission denied\)"):
        prune(own_base, 1)
    assert whole_versions(own_base) == [1, 3, 4]
    (own_base / "emotion" / "1").chmod(0o700)
    assert prune(own_base, 1) == [1]


def test_a_version_that_is_a_link_is_removed_without_its_target(base: Path, tmp_path: Path) -> None:
    for model in SERVABLES:
        shutil.move(base / model / "1", tmp_path / model)
        (base / model / "1").symlink_to(tmp_path / model)
    assert prune(base, 1) == [1, 2]
    assert all((tmp_path / model / "saved_model.pb").is_file() for model in SERVABLES)


def test_a_file_in_the_place_of_a_model_is_found_before_the_work(base: Path) -> None:
    shutil.rmtree(base / "face")
    (base / "face").write_text("")
    with pytest.raises(ExportError, match="face: not a folder"), publisher(base):
        raise AssertionError("the work has begun")


def test_a_link_in_the_place_of_the_deployment_folder_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    shutil.rmtree(base / "deployment")
    (base / "deployment").symlink_to(tmp_path)
    before = tree(base)
    with pytest.raises(ExportError, match="deployment: a link"):
        export(base)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert tree(base) == before  # the version and its configuration were taken back


@pytest.mark.parametrize("odd", ["a FIFO", "not JSON", "no rows", "zero tolerance", "deep"])
def test_odd_records_of_a_version_do_not_stop_the_list(base: Path, odd: str) -> None:
    proof = base / "face" / "4" / "assets.extra" / "parity.json"
    if odd == "a FIFO":
        os.mkfifo(proof)
        os.mkfifo(proof.with_name("emotion.safetensors"))
    else:
        texts = {"not JSON": "{", "no rows": "[]", "zero tolerance": '{"rows": [{"difference": 1, "tolerance": 0}]}'}
        proof.write_text(texts.get(odd, "[" * 100_000))
    assert describe_versions(base)[-1].parity is None


@pytest.fixture
def own_base() -> Iterator[Path]:
    """A folder as `base`, of a user whose rights apply, also where tests run as root."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own belongs to root
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            for _ in range(4):
                export(folder / "models")
            promote(folder / "models", 3)
            yield folder / "models"
        finally:
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o700)
            if os.getuid() == 0:
                os.seteuid(0)


@each_command
@pytest.mark.parametrize("place", [".", "models.config", "face", "face/1", "keypoints/1"])
def test_missing_rights_are_one_error_and_change_nothing(own_base: Path, command: str, place: str) -> None:
    before = tree(own_base)
    path = own_base / place
    path.chmod(0o500 if path.is_dir() else 0)
    fails = place in {"export": (".", "models.config", "face"), "prune": (".", "models.config", "face", "face/1",
                      "keypoints/1")}.get(command, (".", "models.config"))  # fmt: skip
    if fails:
        with pytest.raises((ExportError, PermissionError)):
            COMMANDS[command](own_base)
        path.chmod(0o700)
        if command == "prune" and "/" in place:  # the other one was deleted
            before = {name: text for name, text in before.items() if name.split("/")[1:2] != ["2"]}
        assert tree(own_base) == before
        assert not list(own_base.glob(".staging-*"))
    else:
        COMMANDS[command](own_base)


def test_a_full_disk_changes_nothing_at_any_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.export.registry.kills", str(tmp_path), "full", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    writes = {name: int(count) for name, count in (line.split() for line in done.stdout.splitlines())}
    assert writes.keys() == COMMANDS.keys()
    assert writes["export"] >= 5
