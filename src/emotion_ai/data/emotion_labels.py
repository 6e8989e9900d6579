"""What the class ids of an emotion CSV mean, and FER+'s votes beside them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import FER7, ClassSet, known_expression
from emotion_ai.contract import EMOTIONS
from emotion_ai.data.cache import Arrays, spill_folder
from emotion_ai.data.csv_files import open_table, parse_integer
from emotion_ai.data.image_arrays import take
from emotion_ai.errors import ConfigError, DataError

LABELS = ("auto", "five", "fer7")
_FER_NAMES = (*FER7, "Contempt")
"""What class ids mean here: FER2013's, and one for contempt, which only files with names have."""

_FERPLUS = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)
"""FER+'s columns."""

_CHOICE: dict[str, str] = {
    "five": "five classes, ids 0-4",
    "fer7": "FER2013's seven classes, ids 0-6",
}
_TELLING = 200
"""Rows in which FER2013's two last classes, 28 % of its faces, would hardly be missing by chance."""


def parse_label(path: Path, row: int, text: str) -> tuple[int, bool]:
    """The class id in a cell of the column `emotion`, and whether it is a name; a name's id is FER2013's.

    Raises:
        DataError: neither an id nor a known name.
    """
    named = known_expression(text)
    if named is not None:
        return _FER_NAMES.index(named), True
    where = f"{path}, row {row}, column emotion"
    if any(letter.isalpha() for letter in text):
        raise DataError(
            f"{where}: {text.strip()[:20]!r} is not an integer, nor a class such as happy; correct or remove the row"
        )
    label = parse_integer(path, row, "emotion", text)
    if not 0 <= label < 7:
        raise DataError(
            f"{where}: unknown class id {label}; ids are 0-6 (or 0-4) in FER2013's order; for another order, as in "
            "AffectNet or RAF-DB, write the names"
        )
    return label, False


def load_votes(path: Path, faces: Path, parts: NDArray[np.str_], classes: ClassSet) -> NDArray[np.float32]:
    """Shares of FER+'s annotators who chose each of K classes, float32 (N, K), for the rows of FER2013.

    Joined by position within each Usage, because some image names are missing (Barsoum et al. 2016, arXiv:1608.01041).

    Raises:
        DataError: missing, damaged or wrong content, or other numbers of rows.
    """
    found: dict[str, list[list[int]]] = {}
    with open_table(path) as (header, lines):
        columns = {name.strip(): index for index, name in enumerate(header)}
        if missing := [name for name in ("Usage", *_FERPLUS) if name not in columns]:
            raise DataError(f"{path}: lacks the column {', '.join(missing)}; give FER+'s fer2013new.csv")
        for line, cells in lines:
            counts = [parse_integer(path, line, name, cells[columns[name]]) for name in _FERPLUS]
            if min(counts) < 0 or sum(counts) == 0:
                raise DataError(f"{path}, row {line}: its votes are {counts}, expected counts; correct the row")
            found.setdefault(cells[columns["Usage"]].strip(), []).append(counts)
    chosen = [(place, classes.index(name)) for place, name in enumerate(_FERPLUS[:8])]
    shares = np.zeros((len(parts), len(classes)), np.float32)
    for part in np.unique(parts):
        rows, table = parts == part, np.array(found.get(str(part), []), np.float32).reshape(-1, len(_FERPLUS))
        if rows.sum() != len(table):
            raise DataError(f"{path}: votes on {len(table)} faces of {part or 'no Usage'}, {faces} has {rows.sum()}")
        for place, index in chosen:
            if index is not None:
                shares[rows, index] = table[:, place] / table.sum(1)
    return shares


def class_scheme(path: Path, arrays: Arrays, labels: str, beside: str | None, notice: Callable[[str], None]) -> str:
    """What the class ids of a file mean: "five", "fer7", or "" where it has names.

    Args:
        path: for messages.
        arrays: `targets`, `part` and `named` of the file.
        labels: what the user says.
        beside: the scheme of the training file, for a file of a run's other splits ("" if that has none); None if the
            file stands alone.
        notice: prints a line for the user.

    Raises:
        DataError: the ids count from 1, or exceed the scheme.
        ConfigError: the scheme cannot be told.
    """
    ids = arrays["targets"]
    present = set(np.unique(ids).tolist())
    if arrays["named"].any():
        return ""
    if labels == "auto":
        if present >= {1, 2, 3, 4, 5} and 0 not in present:
            raise DataError(
                f"{path}: the class ids are {min(present)}-{max(present)}, so they may count from 1; write the "
                "names, or give data.labels=fer7 if 0 just does not occur"
            )
        labels = _guessed_scheme(path, arrays, present, beside)
        notice(f"data.labels=auto reads {_CHOICE[labels]}")
    if labels == "five" and max(present) >= len(EMOTIONS):
        raise DataError(f"{path}: has the class id {max(present)}, so it has more than five; use data.labels=fer7")
    return labels


def _guessed_scheme(path: Path, arrays: Arrays, present: set[int], beside: str | None) -> str:
    if (arrays["part"] != "").any() or max(present) >= len(EMOTIONS):
        return "fer7"
    if beside is None or beside == "five":
        return "five"
    telling = len(arrays["targets"]) >= _TELLING and len(present) == len(EMOTIONS)
    if beside == "fer7" and not telling:
        return "fer7"
    if beside == "" and telling:
        return "five"
    found = "no class id above 4 and no Usage column"
    if beside == "fer7":
        raise ConfigError(
            f"{path}: has {found}, so it seems to have five classes, but the training file has seven; write class "
            "names into its column emotion, or give data.labels=fer7"
        )
    raise ConfigError(f"{path}: has {found}, so its classes are unclear; give data.labels=five or data.labels=fer7")


def in_class_set(
    path: Path, arrays: Arrays, scheme: str, votes: NDArray[np.float32] | None, classes: ClassSet
) -> Arrays:
    """The faces of a class set, with its indices; with votes also those that half saw as one of its classes, as -1.

    Raises:
        DataError: there are none.
    """
    if votes is not None:
        arrays = arrays | {"votes": votes}
    names = EMOTIONS if scheme == "five" else _FER_NAMES
    indices = [classes.index(name) for name in names]
    targets = np.array([-1 if index is None else index for index in indices])[arrays["targets"]]
    keep = targets >= 0
    if not keep.any():
        present = sorted({names[index].lower() for index in np.unique(arrays["targets"])})
        raise DataError(
            f"{path}: has only faces of {' and '.join(present)}, which are left out; the classes are "
            f"{', '.join(classes.names)}: give a file with these, or other classes, such as classes=seven"
        )
    if votes is not None:
        keep |= votes.sum(1) >= 0.5
    images = arrays["images"] if keep.all() else take(arrays["images"], keep, spill_folder())
    others = {name: values[keep] for name, values in (arrays | {"targets": targets}).items() if name != "images"}
    return {"images": images, **others}
