"""Groups of faces, their metrics and the gate on the worst one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError, WorstGroupError
from emotion_ai.evaluation.groupings import Grouping, default_groupings, read_groupings
from emotion_ai.evaluation.side_tables import FaceRows
from emotion_ai.evaluation.slices import Gate, Slices, slice_metrics
from emotion_ai.evaluation.stage import evaluate
from emotion_ai.evaluation.statistics import Units
from emotion_ai.evaluation.tables import Interval
from emotion_ai.models import FaceNetwork, save_network
from emotion_ai.provenance import RunRecord
from tests.evaluation.test_evaluation_stage import TINY, config

ROWS = FaceRows(np.arange(1, 91).astype(str), None, 90)
SIDE = Grouping.of_texts("side", np.array(["left"] * 30 + ["right"] * 30 + [""] * 30))


def gate(**settings: object) -> DictConfig:
    return OmegaConf.create({"worst_group": None, "by": None, "min_faces": 1} | settings)


def sliced(accuracies: dict[str, tuple[int, int]], units: Units | None = None, **settings: object) -> Slices:
    """Slices of emotion predictions with (correct, all) faces in each group."""
    names = np.concatenate([[name] * n for name, (_, n) in accuracies.items()])
    correct = np.concatenate([np.arange(n) < hits for hits, n in accuracies.values()])
    groupings = [Grouping.of_texts("group", names)]
    over = units or Units.faces(len(names))
    predictions = np.eye(5, dtype=np.float32)[np.where(correct, 0, 1)]
    checked = Gate.of(gate(**settings), "emotion", groupings)
    return slice_metrics("emotion", predictions, np.zeros(len(names), np.int64), groupings, over, 0, checked)


def test_groups_have_their_metric_and_the_worst_is_named() -> None:
    found = sliced({"a": (9, 10), "b": (3, 10), "c": (20, 20)})
    assert [(g.group, g.estimate.value, g.estimate.n) for g in found.groups] == [
        ("a", 0.9, 10),
        ("b", 0.3, 10),
        ("c", 1, 20),
    ]
    low, high = found.groups[2].estimate.low, found.groups[2].estimate.high
    assert (low, high) == pytest.approx((0.8389, 1), abs=1e-4)  # Wilson's, though every face is right
    assert found.worst.group == "b"
    by_group, worst = found.tables()
    assert by_group.title == "By group"
    assert worst.rows[0][:3] == ("group: b", 10, 0.3)


def test_faces_of_other_classes_do_not_count() -> None:
    groupings = [Grouping.of_texts("half", np.repeat(["a", "b", "c"], 10))]
    labels = np.concatenate([np.zeros(20, np.int64), np.full(10, 6)])
    predictions = np.eye(5, dtype=np.float32)[np.zeros(30, np.int64)]
    checked = Gate.of(gate(), "emotion", groupings)
    found = slice_metrics("emotion", predictions, labels, groupings, Units.faces(30), 0, checked)
    assert [(g.group, g.estimate.n) for g in found.groups] == [("a", 10), ("b", 10)]
    assert (found.overall.value, found.overall.n) == (1, 20)


def test_small_groups_are_listed_but_cannot_be_the_worst() -> None:
    found = sliced({"a": (9, 10), "b": (0, 2)}, min_faces=3)
    assert [g.group for g in found.groups] == ["a", "b"]
    assert found.worst.group == "a"


def test_a_group_with_one_person_has_no_interval() -> None:
    people = Units.of(np.repeat([0, 1, 2], [10, 5, 5]), "people")
    rows = sliced({"a": (9, 10), "b": (3, 10)}, people).tables()[0].rows
    assert rows[0][:4] == ("a", 10, 1, 0.9)
    assert rows[0][4] is None
    assert isinstance(rows[1][4], Interval)


@pytest.mark.parametrize(("bound", "passes"), [(0.3, True), (0.31, False), (None, True)])
def test_the_gate_compares_the_worst_group(bound: float | None, passes: bool) -> None:
    found = sliced({"a": (9, 10), "b": (3, 10)}, worst_group=bound)
    if passes:
        found.check()
    else:
        with pytest.raises(WorstGroupError, match=r"worst group group=b: accuracy 0.3000 .*n = 10\) is below .*=0.31"):
            found.check()


def test_the_gate_bounds_an_rmse_from_above() -> None:
    faces = synthetic_faces(20, 0).faces("keypoints")
    half = [Grouping.of_texts("half", np.repeat(["near", "far"], 10))]
    off = faces.points + np.repeat([1, 3], 10)[:, None, None].astype(np.float32)
    for bound, passes in ((3.1, True), (2.9, False)):
        checked = Gate.of(gate(worst_group=bound), "keypoints", half)
        found = slice_metrics("keypoints", off, faces.targets, half, Units.faces(20), 0, checked)
        assert found.worst.group == "far"
        assert found.worst.estimate.value == pytest.approx(3, abs=1e-3)
        if passes:
            found.check()
        else:
            with pytest.raises(WorstGroupError, match="rmse .* is above"):
                found.check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"worst_group": 80}, "an accuracy above 0, up to 1, got 80"),
        ({"worst_group": "high"}, "got high"),
        ({"worst_group": True}, "got True"),
        ({"worst_group": float("nan")}, "got nan"),
        ({"by": "age"}, "gate.by=age: no such column; the faces are grouped by side"),
        ({"min_faces": 0}, "integer >= 1, got 0"),
        ({"min_faces": 31}, "the largest group has 30 faces; lower it"),
    ],
)
def test_settings_of_the_gate_that_cannot_be_used(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Gate.of(gate(**settings), "emotion", [SIDE])


def test_a_bound_needs_groups() -> None:
    with pytest.raises(ConfigError, match="give slices=FILE"):
        Gate.of(gate(worst_group=0.5), "emotion", [])


def test_numbers_are_cut_into_groups_of_similar_size() -> None:
    values = np.random.default_rng(0).normal(size=90)
    found = Grouping.of_numbers("x", values)
    assert found.sizes() == [30, 30, 30]
    assert values[found.codes == 0].max() < values[found.codes == 1].min()
    values[:3] = np.nan
    assert (Grouping.of_numbers("x", values).codes[:3] == -1).all()
    assert Grouping.of_numbers("x", np.ones(5)).names == ("all",)
    assert Grouping.of_numbers("x", np.full(5, np.nan)).sizes() == [0]
    edged = Grouping.of_numbers("yaw", np.array([15.0, 15.1, 80.0]), (15.0, 30.0))
    assert (edged.names, edged.codes.tolist()) == (("up to 15", "15 to 30", "above 30"), [0, 1, 2])


def test_a_slices_file_may_have_words_numbers_and_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "slices.csv"
    lines = [f"{'fm'[row % 2]},{row},{10 * (row % 3)},{'x' if row else ''}" for row in range(90)]
    path.write_text("\n".join(["sex,age,light,note", *lines]) + "\n")
    sex, age, light, note = read_groupings(path, ROWS)
    assert (sex.names, sex.sizes()) == (("f", "m"), [45, 45])
    assert age.sizes() == [30, 30, 30]
    assert light.names == ("0", "10", "20")
    assert note.sizes() == [89]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group\n" + "a\n" * 89, "has 89 rows, expected 90"),
        ("group,x\n" + ",1\n" * 90, "column group: empty for all 90"),
        ("group\n" + "\n".join(f"a{i}" for i in range(90)), "90 different values, at most 50 can be groups"),
        ("id,group\n" + "1,a\n" * 90, "column id: '1' occurs 90 times"),
        ("group\n" + '"a\n' * 90, "has 45 rows"),
    ],
)
def test_slices_files_that_do_not_fit_are_errors(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "slices.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_groupings(path, ROWS)
    with pytest.raises(DataError, match="no such file|cannot be read|not a regular file|folder"):
        read_groupings(tmp_path / "none.csv", ROWS)
    with pytest.raises(DataError, match=str(tmp_path)):
        read_groupings(tmp_path, ROWS)


def test_keypoints_are_grouped_by_yaw_blur_and_size() -> None:
    found = default_groupings(synthetic_faces(30, 0).faces("keypoints"))
    names = [grouping.column for grouping in found]
    assert names[0].startswith("yaw")
    assert {"sharpness", "brightness", "distance of the outer eye corners, pixels"} <= set(names)
    for grouping in found:
        assert sum(grouping.sizes()) == 30
    assert [g.column for g in default_groupings(synthetic_faces(9, 0).faces("emotion"))] == ["sharpness", "brightness"]


def test_evaluate_prints_slices_and_fails_below_the_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    save_network(FaceNetwork("keypoints", TINY).eval(), tmp_path / "n.safetensors", RunRecord())
    slices = tmp_path / "slices.csv"
    slices.write_text(
        "id,group\n" + "".join(f"{row},{'even' if row % 2 == 0 else 'odd|x'}\n" for row in range(500, 0, -1))
    )
    given = ["task=keypoints", f"checkpoint={tmp_path / 'n.safetensors'}", f"slices={slices}"]
    card, out = tmp_path / "card.md", tmp_path / "out"
    with pytest.raises(WorstGroupError, match="worst group group="):
        evaluate(config(*given, "gate.worst_group=0.1", f"out={out}", f"card={card}"))
    shown, report = capsys.readouterr().out, json.loads((out / "report.json").read_text())
    rows = next(table["rows"] for table in report["tables"] if table["title"] == "By group")
    assert [row[:2] for row in rows] == [["even", 250], ["odd|x", 250]]
    assert "Worst group" in shown
    assert 'alt="Slices" src="data:image/png' in (out / "report.html").read_text()
    assert r"| odd\|x |" in card.read_text()
    assert "slices=slices.csv gate.worst_group=0.1" in report["command"]
