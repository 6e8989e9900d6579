"""Model cards (Mitchell et al. 2019, arXiv:1810.03993): what weights are, how good, and what for."""

import json
from typing import Any

_TITLES = {"keypoints": "Keypoints: 15 points of a face", "emotion": "Emotion: one of five, from a face"}
_YOUTUBE_FACES = "5e1cb81415bb031aa5636e6438f7cc3d14b3c52d4ff85e98feb573eb27d22f9e"
_FER2013 = "94546ed3436fcb97f29abf226ee54e9a9bd71971b504f8bb326df0c76ec18b2e"
"""Fingerprints of the training files that the bundled weights come from; of other data a card knows the name alone."""
_DATA = {
    _YOUTUBE_FACES: """\
Faces of YouTube Faces (68 points reduced to Kaggle's 15) and partly annotated faces of an MTFL-like set, gray, 96×96,
framed as Kaggle's facial keypoints are. The reported faces show other people than the training faces. Part of the
training annotations is machine-made. Several of the reported faces are frames of one person, which the intervals take
as independent: they are too narrow.

The labels that these weights were trained and calibrated on lay 1.22 pixels too far right. The figures above are on
corrected labels. A network trained with mirror images cannot learn such a shift, so on the old labels it counted as
error: RMSE 1.640 (1.579 to 1.711) with the same weights. It also widened the deviations, which now cover more than they
should.""",
    _FER2013: """\
FER2013 without fear and neutral: five classes, 48×48, enlarged to the 96×96 frame. Training faces whose pixels are also
among the reported faces were removed before training. The labels are noisy: about a third of them are not what the
majority of ten later annotators saw. Disgust is rare (2 %) and its figures are the least certain. The faces come from
web searches and carry no labels of age, sex, skin tone or culture.""",
}
_VOTES = """

What was learnt mixes each label with the votes of FER+ (MIT licence) for the five classes; faces labelled fear or
neutral that at least half of FER+'s annotators saw as one of the five were learnt from, too, and never judged on."""
_TERMS = {
    _YOUTUBE_FACES: "YouTube Faces and MTFL are for research only, and so are these weights.",
    _FER2013: "FER2013 comes under the terms of its competition; use these weights for research only.",
}
_UNFIT = {
    "keypoints": """\
Unfit for: identification; measuring faces for medical or cosmetic purposes; judging attention, tiredness or health;
decisions about people.""",
    "emotion": """\
Unfit for: inferring what somebody feels, means or is; decisions about people, such as hiring, teaching and proctoring,
policing, insurance, credit or medical judgement; watching people without their consent; identification. Inferring
emotions at work and in education is prohibited in the European Union, but for medical or safety reasons (Regulation
(EU) 2024/1689, Article 5(1)(f)), for which these weights are not fit either.""",
}
_LIMITS = {
    "keypoints": """\
Profiles, strongly turned faces, covered faces and faces far from the training framing are less exact (see the
robustness table). On faces from other sources expect larger errors than on these.

Bias: how exact the points are by age, sex or skin tone was not measured; the data carry no such labels. Studies of
other landmark networks found larger errors on older faces, also at equal pose and resolution (arXiv:2604.06961), and on
people with dementia (arXiv:1905.07446). Expect no less here.""",
    "emotion": """\
Five expressions, judged from one gray picture out of its situation. What a face shows is not what a person feels: how
people express anger, disgust, sadness, happiness and surprise differs between cultures, situations and persons, and the
same face may go with several of them (Barrett et al. 2019, doi:10.1177/1529100619832930). Neutral and fearful faces get
one of the five answers all the same.

Bias: differences between groups of age, sex, skin tone or culture were not measured. Others measured some: datasets
of expressions are skewed between groups (20 datasets, arXiv:2303.15889); where a dataset ties an expression to a
group, networks repeat it (arXiv:2503.03446); of six general models tried on FER2013 and three other datasets, the two
most accurate were the most biased (arXiv:2502.11049). A good mean accuracy says nothing about a group.""",
}


def model_card(report: dict[str, Any], record: dict[str, Any]) -> str:
    """Markdown from an evaluation's `report.json` and the checkpoint's training record."""
    task = report["task"]
    heads = "\n".join(
        f"| {name} | {e['value']:.4f} | {e['low']:.4f} to {e['high']:.4f} | {e['n']} |"
        for name, e in report["headlines"].items()
    )
    tables = "\n\n".join(f"### {title}\n\n{_rows(rows)}" for title, rows in report["tables"].items())
    part = f", {report['data']['part']}" if report["data"]["part"] else ""
    passes = "mean of the answers to a face and its mirror image" if report["flip"] else "single forward pass"
    return f"""# {_TITLES[task]}

## Figures

On {report["faces"]} faces of `{report["data"]["source"]}`{part}, {report["seen"]}; {passes}; 95 %
percentile bootstrap intervals over faces (2,000 resamples, seed {report["seed"]}).

| figure | value | 95 % interval | faces |
|---|---|---|---|
{heads}

```
{report["command"]}
```

{tables}
{_calibration(record)}
## Data

{_data(record)}

{_terms(record)} The code is Apache-2.0.

## Use

Intended: research, teaching, and trying out the road from training to serving.

{_UNFIT[task]}

## Limits

{_LIMITS[task]}

## Training

```json
{json.dumps(_trained(record), indent=1)}
```
"""


def _calibration(record: dict[str, Any]) -> str:
    """What was fitted on the faces that choices use, after training."""
    fitted = record.get("calibration", {})
    names = {
        "temperature": "temperature (Guo et al. 2017, arXiv:1706.04599), folded into the weights",
        "calibration_error_before": "calibration error before",
        "calibration_error_cross_fitted": "calibration error after, cross-fitted in five parts",
        "uncertain_below": "an emotion is uncertain below the confidence",
        "deviation_scale": "factor of the deviations, folded into the weights",
    }
    rows = {names[key]: value for key, value in fitted.items()}
    if not rows:
        return ""
    faces = record["data"]["select"]["faces"]
    return f"\n### Calibration, on the {faces} faces that chose the epoch\n\n{_rows(rows)}\n"


def _data(record: dict[str, Any]) -> str:
    if "data" not in record:
        return "The checkpoint does not say what it was trained on."
    train, votes = record["data"]["train"], record.get("config", {}).get("data", {}).get("votes")
    known = _DATA.get(train["fingerprint"], f"{train['faces']} faces of `{train['source']}`, {record['data']['how']}.")
    return known + (_VOTES if votes else "")


def _terms(record: dict[str, Any]) -> str:
    mark = record.get("data", {}).get("train", {}).get("fingerprint")
    return _TERMS.get(mark, "The weights come under the terms of the data that they were trained on.")


def _rows(rows: dict[str, Any]) -> str:
    lines = [f"| {n} | {f'{v:.4f}' if isinstance(v, float) else v} |" for n, v in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _trained(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: record[key] for key in ("config", "data", "epochs", "metrics", "packages", "revision") if key in record
    }
