from pathlib import Path

import pytest
from omegaconf import OmegaConf

from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.evaluated_faces import evaluated_faces


def test_a_small_file_of_unclear_classes_is_asked_about(tmp_path: Path) -> None:
    """Without a Usage column and ids above 4, class 4 may be FER2013's sad or the five-class file's surprise."""
    path = tmp_path / "holdout.csv"
    path.write_text("emotion,pixels\n" + "".join(f"{label},{'7 ' * 48 * 48}\n" for label in (4, 3, 0)))
    settings = {"path": str(path), "labels": "auto", "part": None, "without_duplicates": False, "vote_file": None}
    cfg = OmegaConf.create({"data": settings, "task": {"name": "emotion"}, "seed": 0})
    with pytest.raises(ConfigError, match="its classes are unclear; give data.labels=five or data.labels=fer7"):
        evaluated_faces(cfg)
    cfg.data.labels = "fer7"
    assert evaluated_faces(cfg).faces.targets.tolist() == [2, 3, 0]
