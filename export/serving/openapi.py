"""The REST API as an OpenAPI 3.1 document, generated from `emotion_ai.contract`."""

from importlib.metadata import version
from typing import Any

from emotion_ai.contract import (
    BYTES_INPUT,
    CLASSES,
    CROP_SIZE,
    DEVIATIONS,
    EMOTIONS,
    EXPRESSIONS,
    IMAGES_INPUT,
    IMAGES_SIGNATURE,
    INPUTS,
    KEYPOINTS,
    MAX_FACES,
    SERVABLES,
    UNCERTAIN_BELOW,
    outputs,
)

Schema = dict[str, Any]

FIRST_MISSING_VERSION = 2**63
"""Versions from this number on are rejected without a body."""

_ERRORS = {
    "400": f"""The request is invalid, a file is not a PNG or JPEG image, or no version has that label. The body is
        empty if the version is {FIRST_MISSING_VERSION} or more.""",
    "404": "No such model, or the version is not loaded.",
    "413": "The body is too large (embedded server, or a proxy).",
    "429": "Overloaded; try again later.",
    "500": "The server failed.",
    "503": "Overloaded or shutting down; try again later.",
    "504": "The request took too long.",
}
_STATES = ("UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END")


def _array(items: Schema, size: int | None = None, **more: Any) -> Schema:
    bounds = {} if size is None else {"minItems": size, "maxItems": size}
    return {"type": "array", "items": items, **bounds, **more}


def _object(properties: dict[str, Schema], required: list[str] | None = None, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": required or list(properties), **more}


_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_ONE_FACE: dict[str, Schema] = {
    "keypoints": _array(
        _array({"type": "number"}, 2),
        len(KEYPOINTS),
        description=f"x right, y down, in pixels of the {CROP_SIZE}x{CROP_SIZE} crop: {', '.join(KEYPOINTS)}",
    ),
    "probabilities": _array(
        _SHARE,
        minItems=2,
        description=f"of {', '.join(EMOTIONS)}, given that it is one of these; or of all `classes`, if they are others",
    ),
    DEVIATIONS: _array(
        _array({"type": "number", "minimum": 0}, 2),
        len(KEYPOINTS),
        description="standard deviations of the keypoints' coordinates, in pixels of the crop",
    ),
    EXPRESSIONS: _array(_SHARE, minItems=2, description="probabilities of all classes, in the order of `classes`"),
    UNCERTAIN_BELOW: _array(
        _SHARE,
        minItems=2,
        description="if the most probable class has a probability below its number here, the face is uncertain",
    ),
    CLASSES: _array(
        {"type": "string"}, minItems=2, description="names of the classes that the version knows; the same for each"
    ),
}
"""An output for one face, by name."""

_FILE = _object(
    {"b64": {"type": "string", "contentEncoding": "base64", "description": "a PNG or JPEG file of one cropped face"}},
    additionalProperties=False,
)
_PIXELS = _array(
    _array(_array({"type": "number"}, 1), CROP_SIZE),
    CROP_SIZE,
    description="gray, 0 to 255: rows of columns of one channel",
)


_NUMBER = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1, "description": "any number"}
_ITEMS = {IMAGES_INPUT: "Pixels", BYTES_INPUT: "File"}


def openapi() -> Schema:
    """The document: predict, status and metadata of every servable, by version and label, and all errors."""
    paths: dict[str, Schema] = {}
    schemas: dict[str, Schema] = {
        "Error": _object({"error": {"type": "string"}}),
        "Status": _status(),
        "Metadata": _metadata(),
        "File": _FILE,
        "Pixels": _PIXELS,
    }
    for servable in SERVABLES:
        title = servable.capitalize()
        schemas |= {f"{title}Request": _request(servable), f"{title}Response": _response(servable)}
        for choice, parameters in _CHOICES.items():
            path = f"/v1/models/{servable}{choice}"
            about = {"parameters": [{"$ref": f"#/components/parameters/{name}"} for name in parameters]}
            suffix = "".join(f"By{name.capitalize()}" for name in parameters)
            predict = _operation(f"predict{title}{suffix}", f"Predict with {servable}", f"{title}Response")
            predict["requestBody"] = {"required": True, "content": _json(f"{title}Request")}
            status = _operation(f"status{title}{suffix}", f"State of the versions of {servable}", "Status")
            metadata = _operation(f"metadata{title}{suffix}", f"Signatures of {servable}", "Metadata")
            paths |= {
                f"{path}:predict": about | {"post": predict},
                path: about | {"get": status},
                f"{path}/metadata": about | {"get": metadata},
            }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Emotion AI",
            "version": version("emotion-ai"),
            "description": "15 keypoints and the emotion of cropped faces, served by TensorFlow Serving.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8501"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": {
                name: {"name": name, "in": "path", "required": True, "schema": schema}
                for name, schema in _PARAMETERS.items()
            },
            "responses": {
                code: {"description": " ".join(text.split()), "content": _json("Error")}
                for code, text in _ERRORS.items()
            },
        },
    }


_CHOICES: dict[str, list[str]] = {"": [], "/versions/{version}": ["version"], "/labels/{label}": ["label"]}
_PARAMETERS: dict[str, Schema] = {
    "version": {"type": "integer", "minimum": 1, "maximum": FIRST_MISSING_VERSION - 1, "examples": [1]},
    "label": {"type": "string", "pattern": "^[A-Za-z0-9_]+$", "examples": ["stable"]},
}


def _json(schema: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _operation(name: str, summary: str, schema: str) -> Schema:
    failures = {code: {"$ref": f"#/components/responses/{code}"} for code in _ERRORS}
    success = {"200": {"description": "Success", "content": _json(schema)}}
    return {"operationId": name, "summary": summary, "responses": success | failures}


def _request(servable: str) -> Schema:
    """A body in row form (`instances`) or columnar (`inputs`) for each signature."""
    forms = []
    for signature, name in INPUTS.items():
        if not outputs(servable, signature):
            continue
        item: Schema = {"$ref": f"#/components/schemas/{_ITEMS[name]}"} if name in _ITEMS else _NUMBER
        batch = {"minItems": 1, "maxItems": MAX_FACES}
        rows = [_array(item, **batch), _array(_object({name: item}, additionalProperties=False), **batch)]
        columns = [_array(item, maxItems=MAX_FACES), _object({name: _array(item, maxItems=MAX_FACES)})]
        chosen = {} if signature == IMAGES_SIGNATURE else {"signature_name": {"const": signature}}
        optional = {"signature_name": {"const": signature}} | chosen
        for form, values in (("instances", rows), ("inputs", columns)):
            forms.append(_object(optional | {form: {"anyOf": values}}, [*chosen, form], additionalProperties=False))
    return {"anyOf": forms}


def _response(servable: str) -> Schema:
    """The bare output if a signature has one, an object by name if it has several; `predictions` for `instances`."""
    bodies = []
    for names in dict.fromkeys(names for signature in INPUTS if (names := outputs(servable, signature))):
        faces = {name: _ONE_FACE[name] for name in names}
        only = next(iter(faces.values())) if len(faces) == 1 else None
        row = only or _object(faces, additionalProperties=False)
        arrays = {name: _array(face) for name, face in faces.items()}
        column = _array(only) if only else _object(arrays, additionalProperties=False)
        bodies += [_object({"predictions": _array(row, minItems=1)}), _object({"outputs": column})]
    return {"anyOf": [body | {"additionalProperties": False} for body in bodies]}


def _status() -> Schema:
    status = _object({"error_code": {"type": "string"}, "error_message": {"type": "string"}})
    number = {"type": "string", "pattern": "^[0-9]+$"}
    version = _object({"version": number, "state": {"enum": list(_STATES)}, "status": status})
    return _object({"model_version_status": _array(version, minItems=1)})


def _metadata() -> Schema:
    text = {"type": "string"}
    dimension = _object({"size": text, "name": text})
    shape = _object({"dim": _array(dimension), "unknown_rank": {"type": "boolean"}})
    tensors = {"type": "object", "additionalProperties": _object({"dtype": text, "tensor_shape": shape, "name": text})}
    signature = _object({"inputs": tensors, "outputs": tensors, "method_name": text})
    signatures = _object({"signature_def": {"type": "object", "additionalProperties": signature}})
    spec = _object({"name": {"enum": list(SERVABLES)}, "version": text, "signature_name": text})
    return _object({"model_spec": spec, "metadata": _object({"signature_def": signatures})})
