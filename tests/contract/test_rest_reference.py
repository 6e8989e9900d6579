"""The embedded server responds as TensorFlow Serving did; the table lists the differences and their reasons."""

import ast
import asyncio
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from emotion_ai_export.serving.embedded import NAME
from emotion_ai_export.serving.embedded.app import create_app
from emotion_ai_export.serving.embedded.store import ModelStore
from tests.contract.reference.build_models import build
from tests.contract.reference.real import real_server

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "reference" / "rest.jsonl").read_text().splitlines()]

_NO_EXAMPLES = "classify and regress are not implemented: our models are predict only"
_NO_PAGE = "no client reads the page about a path outside /v1"
_NO_UINT8 = "no input of ours is uint8: numbers out of range are an error rather than wrapped"
DIFFERENT = {
    "classify": _NO_EXAMPLES,
    "regress": _NO_EXAMPLES,
    "classify with context": _NO_EXAMPLES,
    "root": _NO_PAGE,
    "v1": _NO_PAGE,
    "v2": _NO_PAGE,
    "monitoring wrong path": _NO_PAGE,
    "types overflow": _NO_UINT8,
    "types negative": _NO_UINT8,
    "gzip request": "no client compresses: PNG and JPEG files are small already",
}
SAME_TEXT = re.compile(
    "Servable not found|Could not find|Unrecognized servable version label|Serving signature name|Malformed"
)
"""Errors that callers tell apart by their text. Of the others, they show the text and act on the status."""

Ask = Callable[[dict[str, Any]], httpx.Response]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("reference")
    build(base)
    return base


@pytest.fixture(scope="module")
def embedded(models: Path) -> Ask:
    store = ModelStore(models)
    store.refresh()
    app = create_app(store)

    def ask(recorded: dict[str, Any]) -> httpx.Response:
        async def request() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://embedded") as client:
                return await client.request(**_request(recorded))

        return asyncio.run(request())

    return ask


@pytest.fixture(scope="module")
def real(models: Path) -> Iterator[Ask]:
    if not os.environ.get("TFS_BIN"):
        pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
    with real_server(models) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield lambda recorded: client.request(**_request(recorded))


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["label"])
def test_embedded_responses_are_as_recorded(recorded: dict[str, Any], embedded: Ask) -> None:
    answer = embedded(recorded)
    got, expected = _comparable(answer.status_code, answer.text), _comparable(recorded["status"], recorded["body"])
    own_text = recorded["status"] >= 400 and recorded["body"] and not SAME_TEXT.search(recorded["body"])
    if (own_text or recorded["method"] == "OPTIONS") and recorded["label"] not in DIFFERENT:
        assert answer.json()["error"]
        got, expected = (got[0], None), (expected[0], None)
    reason = DIFFERENT.get(recorded["label"])
    assert (got == expected) == (reason is None), reason or f"{answer.status_code} {answer.text}"
    assert answer.headers["server"] == NAME
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["label"])
def test_real_responses_are_as_recorded(recorded: dict[str, Any], real: Ask) -> None:
    answer = real(recorded)
    assert _comparable(answer.status_code, answer.text) == _comparable(recorded["status"], recorded["body"])


_CLEAN = b'{"instances": [{"b64": "aGVsbG8="}, {"b64": "/w=="}]}'
ACCEPTED = {
    "line breaks in base64": _CLEAN.replace(b"aGVs", b"aG\\r\\nVs\\n"),
    "blanks in base64": _CLEAN.replace(b"aGVsbG8=", b" aGVs bG8 =\\t"),
    "no padding": _CLEAN.replace(b"=", b""),
    "a byte order mark": b"\xef\xbb\xbf " + _CLEAN,
}
REJECTED = {
    "a surplus =": ("bytes:predict", _CLEAN.replace(b"==", b"===")),
    "a = without need": ("bytes:predict", _CLEAN.replace(b"aGVsbG8=", b"aGVs=")),
    "half of the padding": ("bytes:predict", _CLEAN.replace(b"==", b"=")),
    "a lone digit": ("bytes:predict", _CLEAN.replace(b"/w==", b"/")),
    "a doubled key": ("bytes:predict", _CLEAN.replace(b"}]}", b'}], "instances": [{"b64": ""}]}')),
    "an action in capitals": ("bytes:PREDICT", _CLEAN),
    "an encoded colon": ("bytes%3Apredict", _CLEAN),
}


@pytest.fixture(params=["embedded", "real"])
def post(request: pytest.FixtureRequest) -> Callable[[str, bytes], httpx.Response]:
    ask = request.getfixturevalue(request.param)
    return lambda path, body: ask(
        {"method": "POST", "path": f"/v1/models/{path}", "req": repr(body), "req_headers": {}}
    )


@pytest.mark.parametrize("case", ACCEPTED)
def test_sloppy_bodies_are_accepted(case: str, post: Callable[[str, bytes], httpx.Response]) -> None:
    answer, clean = post("bytes:predict", ACCEPTED[case]), post("bytes:predict", _CLEAN)
    assert (answer.status_code, answer.json()) == (200, clean.json()), answer.text


@pytest.mark.parametrize("case", REJECTED)
def test_other_sloppy_requests_are_rejected(case: str, post: Callable[[str, bytes], httpx.Response]) -> None:
    answer = post(*REJECTED[case])
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


def test_differences_are_few_and_known() -> None:
    labels = [recorded["label"] for recorded in RECORDED]
    assert len(labels) == len(set(labels)) == 119
    assert set(labels) >= DIFFERENT.keys()


def _request(recorded: dict[str, Any]) -> dict[str, Any]:
    body = recorded["req"]
    if body is not None:
        body = ast.literal_eval(body) if body.startswith("b'") else body.encode()
    headers = recorded["req_headers"]
    return {"method": recorded["method"], "url": recorded["path"], "content": body, "headers": headers}


def _comparable(status: int, text: str) -> tuple[int, Any]:
    try:
        return status, _plain(json.loads(text))
    except ValueError:
        return status, text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else float(np.float32(value))  # the two print different digits of a float32
    if isinstance(value, str):
        return re.sub(r"__inference_(\w+)_\d+", r"__inference_\1", value)
    return value
