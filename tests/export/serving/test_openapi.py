"""The OpenAPI document: valid, complete, and true of the server that runs; then fuzzed with it."""

import base64
import copy
import json
import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import openapi_spec_validator
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from schemathesis.specs.openapi import checks

from emotion_ai.contract import BYTES_INPUT, INPUTS, MAX_FACES, SERVABLES, outputs
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.serving import openapi
from emotion_ai_export.serving.launch import Addresses

SIGNATURES = [(model, name) for model in SERVABLES for name in INPUTS if outputs(model, name)]
CALLS = int(os.environ.get("EMOTION_AI_FUZZ_CALLS", "81"))
FILE = {"b64": base64.b64encode(encode_png(np.full((20, 30), 90, np.uint8))).decode()}
PIXELS = np.full((96, 96, 1), 90).tolist()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.openapi()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def validator(document: dict[str, Any], name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    openapi_spec_validator.validate(document)
    json.dumps(document)


def test_the_document_has_every_path(document: dict[str, Any]) -> None:
    places = ("", "/versions/{version}", "/labels/{label}")
    assert set(document["paths"]) == {
        f"/v1/models/{model}{place}{action}"
        for model in SERVABLES
        for place in places
        for action in ("", ":predict", "/metadata")
    }
    ids = [operation["operationId"] for path in document["paths"].values() for key, operation in path.items()
           if key in ("get", "post")]  # fmt: skip
    assert len(ids) == len(set(ids)) == len(document["paths"])


@pytest.mark.parametrize(("model", "signature"), SIGNATURES)
@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize("named", [False, True])
def test_requests_and_responses_are_as_described(
    document: dict[str, Any], live: Addresses, session: requests.Session,
    model: str, signature: str, key: str, named: bool,
) -> None:  # fmt: skip
    face: Any = {"image_bytes": FILE, "images": PIXELS, "request": 0}[INPUTS[signature]]
    faces: Any = [face, face]
    if named:
        faces = {INPUTS[signature]: faces} if key == "inputs" else [{INPUTS[signature]: face} for face in faces]
    body = {"signature_name": signature, key: faces}
    validator(document, f"{model.capitalize()}Request").validate(body)
    response = session.post(f"{live.rest}/v1/models/{model}:predict", json=body, timeout=30)
    assert response.status_code == 200
    responses = validator(document, f"{model.capitalize()}Response")
    responses.validate(response.json())
    text = response.text.replace("keypoints", "points").replace("probabilities", "shares")
    if len(outputs(model, signature)) > 1:
        assert not responses.is_valid(json.loads(text)), "the schema does not check names"
    assert not responses.is_valid({"predictions": [], "outputs": []})


@pytest.mark.parametrize("model", SERVABLES)
@pytest.mark.parametrize(
    ("path", "status", "schema"),
    [
        ("", 200, "Status"),
        ("/versions/1", 200, "Status"),
        ("/metadata", 200, "Metadata"),
        ("/versions/1/metadata", 200, "Metadata"),
        ("/versions/9", 404, "Error"),
        ("/versions/9/metadata", 404, "Error"),
        ("/labels/none/metadata", 400, "Error"),
        ("/versions/x", 400, "Error"),
    ],
)
def test_status_and_metadata_are_as_described(
    document: dict[str, Any], live: Addresses, session: requests.Session,
    model: str, path: str, status: int, schema: str,
) -> None:  # fmt: skip
    response = session.get(f"{live.rest}/v1/models/{model}{path}", timeout=30)
    assert response.status_code == status
    validator(document, schema).validate(response.json())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": []},
        {"instances": [0]},
        {"signature_name": "none", "instances": [FILE]},
        {"signature_name": "serving_bytes", "instances": [FILE], "inputs": [FILE]},
        {"signature_name": "serving_bytes", "instances": [{"b64": "eA=="}]},
        {"signature_name": "serving_bytes", "instances": [FILE] * (MAX_FACES + 1)},
    ],
    ids=range(7),
)
def test_what_the_schema_rejects_the_server_rejects(
    document: dict[str, Any], live: Addresses, session: requests.Session, body: dict[str, Any]
) -> None:
    valid = validator(document, "FaceRequest").is_valid(body)
    assert valid == ("eA==" in str(body)), "only the content of a file is beyond the schema"
    response = session.post(f"{live.rest}/v1/models/face:predict", json=body, timeout=30)
    assert response.status_code == 400
    validator(document, "Error").validate(response.json())


def test_a_new_signature_is_described_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.dumps(openapi.openapi())
    monkeypatch.setattr(openapi, "INPUTS", INPUTS | {"serving_new": BYTES_INPUT})
    document = openapi.openapi()
    validator(document, "EmotionRequest").validate({"signature_name": "serving_new", "instances": [FILE]})
    monkeypatch.undo()
    assert json.dumps(openapi.openapi()) == before


AS_GENERATED = object()
BROKEN = (b"", b"x", encode_png(np.zeros((1, 1), np.uint8)), encode_png(np.full((96, 96), 9, np.uint8))[:60])
NAMES = tuple(dict.fromkeys(INPUTS.values()))
images = st.one_of(
    st.just(FILE),
    st.sampled_from([{"b64": base64.b64encode(content).decode()} for content in BROKEN]),
    st.builds(dict, b64=st.text(max_size=9)),
    st.just(PIXELS),
    st.floats(0, 255, width=32).map(lambda value: np.full((96, 96, 1), value).tolist()),
    st.integers(-(2**70), 2**70).map(lambda value: np.full((96, 96, 1), value, object).tolist()),
    st.lists(st.integers(0, 255), max_size=5),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def bodies() -> st.SearchStrategy[Any]:
    """Bodies that are mostly well-formed, with every kind of mistake in between: random JSON would rarely get far."""
    named = st.builds(lambda name, image: {name: image}, st.sampled_from([*NAMES, "x"]), images)
    faces = st.lists(images, max_size=3) | st.lists(named, max_size=3) | images.map(lambda face: [face] * 3)
    columns = st.builds(lambda name, face: {name: face}, st.sampled_from(NAMES), faces)
    signature = st.fixed_dictionaries({"signature_name": st.sampled_from([*INPUTS, *INPUTS, "", "none"])})
    values = st.fixed_dictionaries({"instances": faces}) | st.fixed_dictionaries({"inputs": faces | columns})
    more = st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name", "x"]), anything, max_size=2)
    whole = st.builds(lambda *parts: {key: part[key] for part in parts for key in part}, signature, values)
    mixed = st.builds(lambda *parts: {key: part[key] for part in parts for key in part}, more, whole, more)
    return whole | whole | mixed | more | anything


@pytest.mark.timeout(max(300, CALLS))
def test_no_undocumented_response(document: dict[str, Any], live: Addresses) -> None:
    """EMOTION_AI_FUZZ_CALLS=10000 makes that many calls; TFS_BIN makes them to a real TensorFlow Serving as well."""
    documented = [getattr(checks, f"{name}_conformance") for name in ("status_code", "content_type", "response_schema")]
    generated = copy.deepcopy(document)
    generated["components"]["schemas"]["Pixels"] = {"type": "array", "maxItems": 3}  # 9,216 random numbers take seconds
    schema = schemathesis.openapi.from_dict(generated)
    counts: dict[int, int] = {}
    found: list[Any] = list(schema.get_all_operations())
    operations = [result.ok() for result in found]
    session = requests.Session()
    session.trust_env = False

    def fuzz(operation: Any, calls: int) -> None:
        strategy = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode))
        body = st.just(AS_GENERATED) | bodies() if operation.body else st.just(AS_GENERATED)

        @settings(max_examples=calls, suppress_health_check=list(HealthCheck), database=None)
        @hypothesis.seed(0)
        @hypothesis.given(case=strategy, body=body)
        def call(case: Any, body: Any) -> None:
            if body is not AS_GENERATED:
                case.body = body
            response = case.call(base_url=live.rest, session=session, timeout=60)
            counts[response.status_code] = counts.get(response.status_code, 0) + 1
            digits = str((case.path_parameters or {}).get("version", ""))
            if digits.isdigit() and int(digits) >= openapi.FIRST_MISSING_VERSION:
                assert (response.status_code, response.content) == (400, b"")
            else:
                case.validate_response(response, checks=documented)

        call()

    for operation in operations:
        fuzz(operation, max(1, CALLS // len(operations)))
    print(f"responses by status: {counts}")
    assert {200, 400, 404} <= set(counts)
