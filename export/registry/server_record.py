"""What servers said about a published folder, in `.server.json`: labels that one confirmed, and versions left out.

A version is left out of `models.config` while a command waits for a server to load it for the first time, and from then
on if that failed. So neither a kill nor a restart leaves a version there that no server can load.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from emotion_ai.errors import ExportError
from emotion_ai.files import read_text, write_json
from emotion_ai.published import SERVER_FILE, whole_versions

_NUMBER = re.compile("[0-9]{1,18}")
UNCONFIRMED = "a command stopped before a server had loaded it"


@dataclass(frozen=True)
class ServerRecord:
    """Attributes:
    labels: that a server had when a command last ended, by name; None before the first such command.
    left_out: why a version is not served, by its number in decimal.
    """

    labels: dict[str, int] | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def read_record(base: Path) -> ServerRecord:
    """The record; an empty one without the file.

    Raises:
        ExportError: the file holds something else.
    """
    file = base / SERVER_FILE
    try:
        found = json.loads(read_text(file))
    except FileNotFoundError:
        return ServerRecord()
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not valid JSON ({error})"
        raise ExportError(f"{file}: {reason}; delete it") from error
    labels, left_out = (found.get("labels"), found.get("left_out")) if isinstance(found, dict) else (None, None)
    numbers = isinstance(left_out, dict) and all(_NUMBER.fullmatch(key) for key in left_out)
    if not (labels is None or _holds(labels, int)) or not (numbers and _holds(left_out, str)):
        raise ExportError(f"{file}: not the record of a server; delete it")
    return ServerRecord(labels, dict(left_out or {}))


def left_out(base: Path) -> dict[int, str]:
    """Why versions are left out of `models.config`, by number."""
    return {int(number): reason for number, reason in read_record(base).left_out.items()}


def failed(base: Path) -> dict[int, str]:
    """Those of them that a server could not load."""
    return {number: reason for number, reason in left_out(base).items() if reason != UNCONFIRMED}


def leave_out(base: Path, number: int, reason: str) -> None:
    """Records why a version is not served."""
    record = read_record(base)
    _write(base, replace(record, left_out=record.left_out | {str(number): " ".join(reason.split())}))


def take_back(base: Path, number: int) -> None:
    """Removes a version from those that are left out."""
    record = read_record(base)
    if str(number) in record.left_out:
        _write(base, replace(record, left_out={k: v for k, v in record.left_out.items() if k != str(number)}))


def forget_unconfirmed(base: Path) -> None:
    """Removes the versions at which a killed command stopped; `models.config` no longer lists them."""
    record = read_record(base)
    if UNCONFIRMED in record.left_out.values():
        _write(base, replace(record, left_out={k: v for k, v in record.left_out.items() if v != UNCONFIRMED}))


def confirm(base: Path, labels: Mapping[str, int]) -> None:
    """Records the labels that a server has confirmed."""
    record = read_record(base)
    if record.labels != labels:
        _write(base, replace(record, labels=dict(labels)))


def _write(base: Path, record: ServerRecord) -> None:
    present = {str(number) for number in whole_versions(base)}
    kept = {number: reason for number, reason in record.left_out.items() if number in present}
    write_json(base / SERVER_FILE, asdict(replace(record, left_out=kept)), sync=True)


def _holds(found: Any, kind: type) -> bool:
    return isinstance(found, dict) and all(type(value) is kind for value in found.values())
