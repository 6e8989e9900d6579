"""Files are written completely or not at all."""

from pathlib import Path

import pytest

from emotion_ai.files import atomic_path, write_json, write_text


def test_json_keeps_the_order_of_its_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": [\n    0.1\n  ]\n}\n'


@pytest.mark.parametrize("sync", [True, False])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old", sync=sync)

    def fail() -> None:
        with atomic_path(path, sync=sync) as partial:
            partial.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
