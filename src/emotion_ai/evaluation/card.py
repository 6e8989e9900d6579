"""Model cards (Mitchell et al. 2019, arXiv:1810.03993), rendered from an evaluation."""

import json

from emotion_ai.class_set import FIVE, ClassSet
from emotion_ai.evaluation.card_texts import DATA, LIMITS, TERMS, TITLES, UNFIT, VOTES
from emotion_ai.evaluation.report import EvaluationReport
from emotion_ai.evaluation.tables import estimate_table, value_table
from emotion_ai.provenance import RunRecord

_CALIBRATION = {
    "temperature": "temperature (Guo et al. 2017, arXiv:1706.04599), applied to the weights",
    "calibration_error_before": "calibration error before",
    "calibration_error_cross_fitted": "calibration error after, cross-fitted in five folds",
    "emotion_temperature": "temperature of the five emotions' own probabilities",
    "emotion_calibration_error_cross_fitted": "their calibration error after, cross-fitted in five folds",
    "uncertain_below": "abstention threshold: a confidence below it is uncertain",
    "neutral_lead": "lead over Neutral: an emotion that exceeds its probability by less is uncertain",
    "named": "share of the emotions' own faces that are named as one",
    "named_rightly": "of these named rightly",
    "deviation_scale": "scale of the standard deviations, applied to the weights",
}


def model_card(report: EvaluationReport, record: RunRecord, classes: ClassSet = FIVE) -> str:
    """A network's card in Markdown, from an evaluation of it and its training record."""
    words = _words(classes)
    tables = "\n\n".join(f"### {table.title}\n\n{table.as_markdown()}" for table in report.tables)
    part = f", {report.part}" if report.part else ""
    passes = "predictions averaged over each face and its mirror image" if report.flip else "single forward pass"
    return f"""# {TITLES[report.task].format(**words)}

## Metrics

On {report.faces} faces of `{report.source}`{part}, {report.seen}; {passes}; {report.intervals}
(percentiles of 2,000, seed {report.seed}).

{estimate_table("Summary", report.summary, faces=True).as_markdown()}

```
{report.command}
```

{tables}
{_calibration(record)}
## Data

{_data(record, words)}

{_terms(record)} The code is Apache-2.0.

## Use

Intended: research, teaching, and trying out the way from training to serving.

{UNFIT[report.task]}

## Limits

{LIMITS[report.task].format(**words)}

## Training

```json
{json.dumps(_training(record), indent=1)}
```
"""


def _calibration(record: RunRecord) -> str:
    """What was fitted on the validation split after training."""
    if not record.calibration:
        return ""
    values = {_described(key): value for key, value in record.calibration.items()}
    table = value_table("Calibration", ("quantity", "value"), values)
    faces = f", on the {record.data.val.faces} validation faces" if record.data and record.data.val else ""
    return f"\n### {table.title}{faces}\n\n{table.as_markdown()}\n"


def _described(key: str) -> str:
    name, _, which = key.partition("/")
    if name == "named" and which:
        return f"share of {which} faces that are named as an emotion"
    return _CALIBRATION[name] + (f" ({which})" if which else "")


def _words(classes: ClassSet) -> dict[str, str]:
    """What the texts say of a network's classes."""
    count = {5: "five", 7: "seven"}.get(len(classes), str(len(classes)))
    shared = {"classes": count, "Classes": count.capitalize()}
    if classes == FIVE:
        others = "Neutral and fearful faces\nalso get one of the five classes."
        return shared | {"without": " without fear and neutral", "other": "fear or\nneutral", "others": others}
    others = f"Other expressions\nthan {', '.join(classes.names)} also get one of these."
    return shared | {"without": "", "other": "otherwise", "others": others}


def _data(record: RunRecord, words: dict[str, str]) -> str:
    if record.data is None:
        return "The checkpoint has no record of its training data."
    train = record.data.train
    votes = VOTES if record.config.get("data", {}).get("vote_file") else ""
    if train.fingerprint in DATA:
        return (DATA[train.fingerprint] + votes).format(**words)
    return f"{train.faces} faces of `{train.source}`, {record.data.how}." + votes.format(**words)


def _terms(record: RunRecord) -> str:
    fingerprint = record.data.train.fingerprint if record.data else ""
    return TERMS.get(fingerprint, "The weights come under the terms of their training data.")


def _training(record: RunRecord) -> dict[str, object]:
    content, keys = record.as_dict(), ("config", "data", "epochs", "metrics", "packages", "revision")
    return {key: content[key] for key in keys if key in content}
