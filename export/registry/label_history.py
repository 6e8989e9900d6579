"""What each label named before, in `.before.json`; a rollback goes back to it."""

import json
import re
from pathlib import Path
from typing import Any

from emotion_ai.errors import ExportError
from emotion_ai.files import read_text, write_json
from emotion_ai.published import PREVIOUS_FILE

_NONE = "none"  # a label that is not set, as a key of JSON
_KEY = re.compile(rf"{_NONE}|[0-9]{{1,18}}")


def earlier_versions(base: Path, label: str, current: int | None) -> dict[int | None, int | None]:
    """What a label named before, by what it names now; the last entry is that of its last promotion.

    An entry holds only while the label names its key, so one of a promotion that was killed or failed does no harm.
    """
    entries = read_history(base).get(label, {})
    if not isinstance(entries, dict):  # written by version 0.1: of the last promotion alone
        return {current: entries}
    return {None if key == _NONE else int(key): value for key, value in entries.items()}


def remember(base: Path, label: str, current: int | None, number: int | None, previous: int | None) -> None:
    """Records before a label moves from `current` to `number` that a rollback from there leads to `previous`."""
    known = earlier_versions(base, label, current)
    entries = {key: known[key] for key in (current,) if key in known and key != number} | {number: previous}
    record = {_NONE if key is None else str(key): value for key, value in entries.items()}
    write_json(base / PREVIOUS_FILE, read_history(base) | {label: record}, sync=True)


def read_history(base: Path) -> dict[str, Any]:
    """The file's content; nothing without the file.

    Raises:
        ExportError: it holds something else.
    """
    file = base / PREVIOUS_FILE
    try:
        found = json.loads(read_text(file))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not valid JSON ({error})"
        raise ExportError(f"{file}: {reason}; delete it") from error
    if not _is_record(found):
        raise ExportError(f"{file}: not the labels' earlier versions; delete it")
    return found


def _is_record(found: Any) -> bool:
    def is_number(value: Any) -> bool:
        return value is None or type(value) is int

    def is_entry(value: Any) -> bool:
        if not isinstance(value, dict):
            return is_number(value)
        return bool(value) and all(_KEY.fullmatch(key) for key in value) and all(map(is_number, value.values()))

    return isinstance(found, dict) and all(map(is_entry, found.values()))
