"""Reports on data with faces outside the five emotions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_ai.class_set import FIVE, SEVEN, ClassSet
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.evaluated_faces import evaluated_faces, with_other_expressions
from emotion_ai.evaluation.outside import evaluate_agreement, evaluate_outside
from emotion_ai.evaluation.predictions import predict
from emotion_ai.evaluation.stage import evaluate
from emotion_ai.evaluation.statistics import Units
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.provenance import RunRecord
from tests.evaluation.test_evaluation_stage import TINY, config

FER_IDS = np.array([0, 1, 4, 3, 5, 2, 6])
"""FER2013's ids of Angry, Disgust, Sad, Happy, Surprise, Fear and Neutral."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 faces of seven classes with FER+'s votes beside them, the first 70 of Training."""
    folder = tmp_path_factory.mktemp("fer")
    faces = synthetic_faces(140, 0, SEVEN)
    rng = np.random.default_rng(0)
    lines, votes = ["emotion,pixels,Usage"], [
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    ]  # fmt: skip
    places = [4, 5, 3, 1, 2, 6, 0]  # of our classes in FER+'s columns
    for i, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        part = "Training" if i < 70 else "PublicTest"
        lines.append(f"{FER_IDS[label]},{' '.join(map(str, image[::2, ::2].ravel()))},{part}")
        counts = rng.integers(0, 2, 10)
        counts[places[label] if i % 3 else 9] += 6  # a third of the faces is "not a face" for most annotators
        votes.append(f"{part},," + ",".join(map(str, counts)))
    (folder / "fer2013.csv").write_text("\n".join(lines) + "\n")
    (folder / "fer2013new.csv").write_text("\n".join(votes) + "\n")
    return folder


def saved(path: Path, classes: ClassSet) -> Path:
    torch.manual_seed(0)
    network = FaceNetwork("emotion", TINY, classes=None if classes is FIVE else classes.names).eval()
    torch.nn.init.normal_(network.head.linear.weight, std=0.5)  # type: ignore[union-attr,arg-type]
    save_network(network, path, RunRecord(calibration={"uncertain_below": 0.3}))
    return path


@pytest.mark.parametrize("classes", [FIVE, SEVEN], ids=["five", "seven"])
def test_other_faces_are_measured_whether_or_not_the_network_knows_their_class(
    classes: ClassSet, dataset: Path, tmp_path: Path
) -> None:
    loaded = load_network(saved(tmp_path / "n.safetensors", classes), "emotion")
    given = [f"data.path={dataset / 'fer2013.csv'}", f"data.vote_file={dataset / 'fer2013new.csv'}"]
    chosen = evaluated_faces(config("task=emotion", "checkpoint=x", "data.part=PublicTest", *given), classes)
    known = 5 if classes is FIVE else 7
    assert set(chosen.faces.labels.tolist()) == set(range(known))
    assert (chosen.outside is None) == (classes is SEVEN)
    predictions = predict(loaded.network, chosen.faces.images)
    found = evaluate_outside(loaded, chosen, predictions, False, "none", 0)
    assert list(found.summary) == ["AUROC against Fear", "AUROC against Neutral", "AUROC against Fear and Neutral"]
    assert found.summary["AUROC against Neutral"].n == 60
    assert {row[0] for row in found.tables[1].rows} >= {"all five", "Fear", "Neutral"}
    scores = {row[0] for row in found.tables[0].rows}
    assert ("Neutral: energy" in scores) == (classes is FIVE)
    assert ("Neutral: total probability of the five" in scores) == (classes is SEVEN)
    agreement = evaluate_agreement(chosen, predictions, 5, Units.faces(len(chosen.faces)), 0)
    assert sum(int(str(row[1])) for row in agreement.rows[:2]) == 50
    own = chosen.faces.labels < 5
    thirds = chosen.faces.ids is not None and (chosen.faces.ids.astype(int) - 1) % 3 > 0
    assert agreement.rows[0][:2] == ("annotators agree", int((own & thirds).sum()))


def test_the_report_and_the_card_hold_them(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_ai.evaluation.emotion._activation_maps", lambda *_: None)
    monkeypatch.setattr("emotion_ai.evaluation.report._image", lambda name, _: name)
    path, card = saved(tmp_path / "n.safetensors", SEVEN), tmp_path / "card.md"
    given = [f"data.path={dataset / 'fer2013.csv'}", f"data.vote_file={dataset / 'fer2013new.csv'}"]
    evaluate(config("task=emotion", f"checkpoint={path}", *given, f"out={tmp_path / 'out'}", f"card={card}"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"accuracy", "accuracy over all classes", "AUROC against Neutral"} < set(report["summary"])
    assert "data.vote_file=fer2013new.csv" in report["command"]
    titles = " ".join(table["title"] for table in report["tables"])
    for part in ("Named as one of the five", "Share of the rest", "rest mixed in", "FER+ annotators agree"):
        assert part in titles
        assert part in card.read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Naming others" in page
    assert "Risk with others mixed in" in page


def test_training_faces_of_other_classes_are_no_duplicates(dataset: Path, tmp_path: Path) -> None:
    lines = (dataset / "fer2013.csv").read_text().splitlines()
    neutral = next(line for line in lines[1:71] if line.startswith("6,"))
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join([*lines, f"0,{neutral.split(',')[1]},PublicTest"]) + "\n")
    cfg = config("task=emotion", "checkpoint=x", f"data.path={path}", "data.part=PublicTest")
    assert evaluated_faces(cfg, FIVE).duplicates.sum() == 0
    assert evaluated_faces(cfg, SEVEN).duplicates.sum() == 1


def test_only_expressions_have_others() -> None:
    assert with_other_expressions(FIVE).names == (*SEVEN.names, "Contempt")
    assert with_other_expressions(SEVEN).names == (*SEVEN.names, "Contempt")
    for own in (ClassSet.of(("cat", "dog")), ClassSet.of((*FIVE.names, "Bored"))):
        assert with_other_expressions(own) == own


def test_data_without_any_of_the_networks_classes(dataset: Path, tmp_path: Path) -> None:
    lines = (dataset / "fer2013.csv").read_text().splitlines()
    path = tmp_path / "neutral.csv"
    path.write_text("\n".join([lines[0], *(line for line in lines if line.startswith("6,"))]) + "\n")
    with pytest.raises(DataError, match="has no face of Angry, Disgust"):
        evaluated_faces(config("task=emotion", "checkpoint=x", f"data.path={path}"))


def test_votes_belong_to_fer2013(dataset: Path) -> None:
    with pytest.raises(ConfigError, match="give its CSV as data.path"):
        evaluated_faces(config("task=emotion", "checkpoint=x", f"data.vote_file={dataset / 'fer2013new.csv'}"))
