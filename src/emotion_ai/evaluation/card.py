"""Model cards (Mitchell et al. 2019, arXiv:1810.03993), rendered from an evaluation."""

import json

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


def model_card(report: EvaluationReport, record: RunRecord) -> str:
    """A network's card in Markdown, from an evaluation of it and its training record."""
    tables = "\n\n".join(f"### {table.title}\n\n{table.as_markdown()}" for table in report.tables)
    part = f", {report.part}" if report.part else ""
    passes = "predictions averaged over each face and its mirror image" if report.flip else "single forward pass"
    return f"""# {TITLES[report.task]}

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

{_data(record)}

{_terms(record)} The code is Apache-2.0.

## Use

Intended: research, teaching, and trying out the way from training to serving.

{UNFIT[report.task]}

## Limits

{LIMITS[report.task]}

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


def _data(record: RunRecord) -> str:
    if record.data is None:
        return "The checkpoint has no record of its training data."
    train = record.data.train
    text = DATA.get(train.fingerprint, f"{train.faces} faces of `{train.source}`, {record.data.how}.")
    return text + (VOTES if record.config.get("data", {}).get("vote_file") else "")


def _terms(record: RunRecord) -> str:
    fingerprint = record.data.train.fingerprint if record.data else ""
    return TERMS.get(fingerprint, "The weights come under the terms of their training data.")


def _training(record: RunRecord) -> dict[str, object]:
    content, keys = record.as_dict(), ("config", "data", "epochs", "metrics", "packages", "revision")
    return {key: content[key] for key in keys if key in content}
