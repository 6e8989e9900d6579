"""The proof of a converted module: PyTorch in float64 = ONNX Runtime = SavedModel, for all inputs and batches."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion_ai.contract import BYTES_INPUT, BYTES_SIGNATURE, IMAGES_SIGNATURE
from emotion_ai.errors import ExportError
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.convert.control_flow import other_batches
from emotion_ai_export.convert.float64 import in_float64
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.interface import Interface
from emotion_ai_export.convert.litert import LiteRTKind, run_litert
from emotion_ai_export.convert.module_model import normalised
from emotion_ai_export.convert.parity import FLOAT64_MULTIPLE, ROUNDING_MULTIPLE, Comparison, ParityReport

BATCHES = (1, 2, 7)

LARGE_BATCH = 33
"""In which the module must answer each image as in the others."""

MAX_EXAMPLES = 64
"""That are compared."""

LEAST_ROUNDING = 1e-6
"""That any network may have, as a share of an output's largest value."""

LEAST_TOLERANCE = 1e-4
"""Of what is computed in float32, as a share of an output's largest value.

The same sum over the pixels of a flat image differs by as much between libraries. Float64 has no such allowance.
"""

LITERT_TOLERANCES: dict[LiteRTKind, float] = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}
"""Of LiteRT files, as a share of an output's largest value."""

LITERT_EXTREMES = 3.0
"""Times as much for noise, black and white images, whose ranges int8 does not take."""

LARGEST_DIFFERENCE = 1e-3
"""That no export may have, however much the network rounds, as a share of an output's largest value."""

CHANNEL_SHARE, CHANNEL_MULTIPLE, CHANNEL_LEAST = 1e-2, 10.0, 1e-9
"""The most of a channel's own largest value, or times its own rounding, or of the output's largest value.

So that large values of other channels, or of other images, hide no difference.
"""

SIGNED = "standardised"
"""Images of normal noise with a deviation of 2: many networks take standardised images."""

_OUTPUT_TYPES = (torch.float32, torch.float64, torch.int64, torch.int32)

Arrays = dict[str, NDArray[Any]]
Predict = Callable[[Arrays], Mapping[str, Any]]


@dataclass(frozen=True)
class ModuleCase:
    """One batch.

    Attributes:
        kind: of images.
        images: float32 (N, C, H, W) by input.
        expected: the module's outputs in float64.
        limits: the most that each channel of an output may differ, by output; broadcast over it.
    """

    kind: str
    images: Arrays
    expected: Arrays
    limits: Arrays = field(default_factory=dict)


class ModuleProof:
    """The cases of a module, with its own rounding.

    Raises:
        ExportError: the module does not run in float64, returns other than its outputs, no finite numbers, or the same
            numbers for all images, or answers an image in another way if it is alone in its batch.
    """

    def __init__(self, module: nn.Module, interface: Interface, examples: Sequence[Tensor], seed: int = 0) -> None:
        self.interface = interface
        self.rounding = dict.fromkeys(interface.outputs, 0.0)
        self.scale = dict.fromkeys(interface.outputs, 0.0)
        exact = copy.deepcopy(module).double()
        self.cases = []
        limits: dict[str, Arrays] = {SIGNED: {}, "example": {}, "plain": {}}
        found = []
        for kind, images in self._kinds(examples, seed).items():
            answers = run_module(exact, interface, [torch.from_numpy(each).double() for each in images.values()])
            rounded = run_module(module, interface, [torch.from_numpy(each) for each in images.values()])
            infinite = [name for name, values in answers.items() if not np.isfinite(values).all()]
            if infinite and kind == SIGNED:  # of a root or a logarithm
                continue
            if infinite:
                raise ExportError(
                    f"the output {infinite[0]} is not finite for {kind} images; give other example inputs"
                )
            group = limits.get(kind, limits["plain"])
            for name, values in answers.items():
                difference = np.abs(values - rounded[name])
                self.scale[name] = max(self.scale[name], float(np.abs(values).max()))
                self.rounding[name] = max(self.rounding[name], float(difference.max()))
                limit = CHANNEL_SHARE * _by_channel(values), CHANNEL_MULTIPLE * _by_channel(difference)
                group[name] = np.maximum.reduce([*limit, group.get(name, limit[0])])
            if kind == "noise":
                self._require_independence(exact, images, answers)
            found.append((kind, images, answers, group))
        for kind, images, answers, group in found:
            count, most = len(next(iter(images.values()))), max(BATCHES)
            batches = [np.arange(batch) % count for batch in BATCHES]
            batches += [np.arange(start, min(start + most, count)) for start in range(most, count, most)]
            for rows in batches:
                given, expected = ({name: a[rows] for name, a in part.items()} for part in (images, answers))
                self.cases.append(ModuleCase(kind, given, expected, group))
        for name, scale in self.scale.items():
            first = self.cases[0].expected[name][0]
            if all((case.expected[name] == first).all() for case in self.cases):
                raise ExportError(
                    f"the output {name} is the same for all images, which proves nothing; load the module's weights, "
                    "or give other example inputs"
                )
            self.rounding[name] = max(self.rounding[name], LEAST_ROUNDING * scale, float(np.finfo(np.float32).tiny))

    def _require_independence(self, exact: nn.Module, images: Arrays, answers: Arrays) -> None:
        inputs = [torch.from_numpy(each).double() for each in images.values()]
        reasons = {1: "depends on the others in its batch, or on earlier calls"}
        for batch, place in other_batches(exact, inputs).items():
            reasons[batch] = f"differs in a batch of {batch} ({place})"
        reasons.setdefault(LARGE_BATCH, f"differs in a batch of {LARGE_BATCH}")
        for batch, reason in reasons.items():
            rows = np.arange(batch) % len(inputs[0])
            for name, values in run_module(exact, self.interface, [each[rows] for each in inputs]).items():
                if not np.abs(values - answers[name][rows]).max() <= LEAST_ROUNDING * self.scale[name]:
                    raise ExportError(
                        f"the output {name} for an image {reason}; a server joins the images of different requests"
                    )

    def _kinds(self, examples: Sequence[Tensor], seed: int) -> dict[str, Arrays]:
        """Noise, black, white and the examples; for float32 also standardised images, which go below 0."""
        highest, noise = 255 if self.interface.dtype == "uint8" else 1, np.random.default_rng(seed)
        kinds: dict[str, Arrays] = {kind: {} for kind in ("noise", "black", "white", SIGNED, "example")}
        if highest == 255:
            del kinds[SIGNED]
        for given, example in zip(self.interface.inputs, examples, strict=True):
            shape = given.channels, given.height, given.width
            pixels = noise.integers(0, 256, (max(BATCHES), *shape)).astype(np.float32)
            kinds["noise"][given.name] = pixels if highest == 255 else pixels / np.float32(255)
            kinds["black"][given.name] = np.zeros((1, *shape), np.float32)
            kinds["white"][given.name] = np.full((1, *shape), highest, np.float32)
            if SIGNED in kinds:
                kinds[SIGNED][given.name] = 2 * noise.standard_normal((max(BATCHES), *shape)).astype(np.float32)
            kinds["example"][given.name] = example[:MAX_EXAMPLES].numpy().astype(np.float32)
        return kinds

    def compare_onnx(self, model: onnx.ModelProto) -> list[Comparison]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        names = list(self.interface.outputs)
        return self._compare("ONNX Runtime", lambda images: dict(zip(names, session.run(names, images), strict=True)))

    def compare_saved_model(self, model: Any) -> list[Comparison]:
        """A loaded SavedModel, also computed in float64, and given files."""
        signature = model.signatures[IMAGES_SIGNATURE]
        exact = in_float64(signature)

        def served(images: Arrays) -> Arrays:
            found = signature(**{name: tf.constant(self.at_border(values)) for name, values in images.items()})
            return self._inside(found)

        rows = self._compare("SavedModel", served)
        few = [case for case in self.cases if len(next(iter(case.images.values()))) == 2]
        rows += self._compare(
            "SavedModel in float64",
            lambda images: self._inside(exact(**{name: self.at_border(values) for name, values in images.items()})),
            few,
            FLOAT64_MULTIPLE,
        )
        return rows + (self._compare_files(model) if self.interface.files is not None else [])

    def compare_litert(self, kind: LiteRTKind, content: bytes) -> list[Comparison]:
        """A LiteRT file, in a process of its own.

        Raises:
            ExportError: LiteRT rejects the file, or crashes.
        """
        cases = [replace(case, limits={}) for case in self.cases if case.kind != SIGNED]  # beyond the ranges of int8
        batches = [
            {name: self.at_border(values).astype(np.float32) for name, values in case.images.items()} for case in cases
        ]
        found = iter(run_litert(content, batches, f"{kind} of {self.interface.model}"))
        rows = self._compare(f"LiteRT {kind}", lambda _: self._inside(next(found)), cases)
        return [replace(row, size=len(content), tolerance=self._litert_tolerance(kind, row)) for row in rows]

    def _litert_tolerance(self, kind: LiteRTKind, row: Comparison) -> float:
        share = LITERT_TOLERANCES[kind] * (LITERT_EXTREMES if kind == "int8" and row.kind != "example" else 1.0)
        return max(share * self.scale[row.output], row.tolerance)

    def _compare_files(self, model: Any) -> list[Comparison]:
        """Files of the input's own size against the same pixels as images: decoding and normalisation."""
        (given,), files = self.interface.inputs, self.interface.files
        assert files is not None
        rows = []
        for case in self.cases[: len(BATCHES)]:
            pixels = np.rint(case.images[given.name] * 255).astype(np.uint8).transpose(0, 2, 3, 1)
            pictures = [encode_png(picture.squeeze(-1) if given.channels == 1 else picture) for picture in pixels]
            found = model.signatures[BYTES_SIGNATURE](**{BYTES_INPUT: tf.constant(pictures)})
            images = normalised(pixels.astype(np.float32), files)
            images = images if self.interface.layout == "NHWC" else images.transpose(0, 3, 1, 2)
            same = model.signatures[IMAGES_SIGNATURE](**{given.name: tf.constant(np.ascontiguousarray(images))})
            expected = {name: values.astype(np.float64) for name, values in self._inside(same).items()}
            rows += self._rows(
                ("SavedModel given files", BYTES_SIGNATURE, 1 + ROUNDING_MULTIPLE),
                ModuleCase(case.kind, case.images, expected),
                self._inside(found),
            )
        return rows

    def _compare(
        self,
        path: str,
        predict: Predict,
        cases: list[ModuleCase] | None = None,
        multiple: float = 1 + ROUNDING_MULTIPLE,
    ) -> list[Comparison]:
        place = path, IMAGES_SIGNATURE, multiple
        return [row for case in cases or self.cases for row in self._rows(place, case, predict(case.images))]

    def _rows(self, place: tuple[str, str, float], case: ModuleCase, found: Mapping[str, Any]) -> list[Comparison]:
        path, signature, multiple = place
        rows = []
        for name, expected in case.expected.items():
            got = np.asarray(found[name])
            same = got.shape == expected.shape
            least = 0.0 if multiple == FLOAT64_MULTIPLE else LEAST_TOLERANCE
            tolerance = max(multiple * self.rounding[name], least * self.scale[name])
            tolerance = min(tolerance, LARGEST_DIFFERENCE * self.scale[name])
            tolerance = max(tolerance, float(np.finfo(np.float32).tiny))
            difference = float("inf")
            if same:  # the difference that is largest for its channel
                differences = _by_channel(np.abs(got - expected))
                least = max(CHANNEL_LEAST * self.scale[name], float(np.finfo(np.float32).tiny))
                allowed = np.clip(case.limits.get(name, np.full(differences.shape, np.inf)), least, tolerance)
                worst = np.argmax(differences / allowed)
                difference, tolerance = float(differences.flat[worst]), float(allowed.flat[worst])
            agreement = _agreement(got, expected) if same else 0.0
            batch = len(expected)
            rows.append(
                Comparison(
                    path,
                    self.interface.model,
                    signature,
                    name,
                    case.kind,
                    batch,
                    difference,
                    tolerance,
                    self.rounding[name],
                    agreement,
                )
            )
        return rows

    def at_border(self, values: NDArray[Any]) -> NDArray[Any]:
        values = values.transpose(0, 2, 3, 1) if self.interface.layout == "NHWC" else values
        return np.ascontiguousarray(values.astype(self.interface.dtype))

    def _inside(self, found: Mapping[str, Any]) -> Arrays:
        """Outputs with images in NCHW, as the module returns them."""
        arrays = {name: np.asarray(values) for name, values in found.items()}
        if self.interface.layout == "NHWC":
            return {name: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for name, a in arrays.items()}
        return arrays


def require(report: ParityReport) -> str:
    """Why a report fails; empty if it passes."""
    worst = report.worst
    if report.passes:
        return ""
    problem = (
        f"{worst.path} differs from the module by {worst.difference:.3g} (tolerance {worst.tolerance:.3g}): "
        f"{worst.signature}, {worst.output}, {worst.kind} images, batch {worst.batch}"
    )
    if worst.rounding >= worst.difference:
        problem += "; so does the module in float32 from float64: it may have a threshold at values of its images"
    return problem


def proof_record(report: ParityReport) -> dict[str, Any]:
    """For the version's parity.json."""
    rule = {
        "reference": "the module in float64",
        "multiple of its float32 rounding that an export may add": ROUNDING_MULTIPLE,
        "multiple of it in float64": FLOAT64_MULTIPLE,
        "least rounding, as a share of an output's largest value": LEAST_ROUNDING,
        "least tolerance in float32, as a share of an output's largest value": LEAST_TOLERANCE,
        "bound, as a share of an output's largest value": LARGEST_DIFFERENCE,
        "bound of a channel, as a share of its own largest value": CHANNEL_SHARE,
        "or as a multiple of its own float32 rounding": CHANNEL_MULTIPLE,
        "LiteRT, as a share of an output's largest value": LITERT_TOLERANCES,
        "multiple of it for LiteRT int8 on noise, black and white": LITERT_EXTREMES,
    }
    return report.as_dict() | {"rule": rule, "batches": list(BATCHES)}


def run_module(module: nn.Module, interface: Interface, images: Sequence[Tensor]) -> Arrays:
    """The outputs by name for a batch of each input (N, C, H, W).

    Raises:
        ExportError: the module fails, or returns other than its outputs.
    """
    try:
        with torch.inference_mode():
            found = module(*(each.clone() for each in images))  # which a module may change in place
    except (Exception, SystemExit) as error:  # a module may raise any kind
        kind = str(images[0].dtype).removeprefix("torch.")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "; make its constants buffers, or convert them with .to(images)" if kind == "float64" else ""
        if len(images[0]) > max(BATCHES):
            hint = "; a server joins the images of different requests, so leave the size of a batch open"
        raise ExportError(f"the module does not run in {kind}, batch {len(images[0])}: {reason}{hint}") from error
    values = [found] if isinstance(found, Tensor) else list(found) if isinstance(found, tuple | list) else []
    if len(values) != len(interface.outputs) or not all(isinstance(value, Tensor) for value in values):
        raise ExportError(
            f"the module returns {type(found).__name__} of {len(values)}, not the {len(interface.outputs)} tensors "
            f"{', '.join(interface.outputs)}; name each output, and return a tensor or a tuple of tensors"
        )
    for name, value in zip(interface.outputs, values, strict=True):
        if not value.ndim or len(value) != len(images[0]) or not value.numel():
            raise ExportError(
                f"the output {name} has the shape {list(value.shape)} for {len(images[0])} images; return tensors with "
                "one part for each image, the batch first"
            )
        if value.dtype not in _OUTPUT_TYPES:
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in _OUTPUT_TYPES)
            raise ExportError(f"the output {name} is {str(value.dtype).removeprefix('torch.')}; return one of {kinds}")
    return {name: value.detach().numpy() for name, value in zip(interface.outputs, values, strict=True)}


def _by_channel(values: NDArray[Any]) -> NDArray[Any]:
    """The largest magnitude in each channel, which is the second axis: (1, C, 1, ...)."""
    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
    return np.abs(values).max(axes, keepdims=True)


def _agreement(got: NDArray[Any], expected: NDArray[Any]) -> float | None:
    """The share of equal decisions: which of the second axis is largest."""
    if got.ndim < 2 or got.shape[1] < 2:
        return None
    return float((got.argmax(1) == expected.argmax(1)).mean())
