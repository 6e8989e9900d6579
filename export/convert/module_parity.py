"""The proof of a converted module: PyTorch in float64 = ONNX Runtime = SavedModel, for all inputs and batches."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from emotion_ai_export.convert.float64 import in_float64
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.interface import Interface
from emotion_ai_export.convert.litert import LiteRTKind, run_litert
from emotion_ai_export.convert.module_model import normalised
from emotion_ai_export.convert.parity import FLOAT64_MULTIPLE, ROUNDING_MULTIPLE, Comparison, ParityReport

BATCHES = (1, 2, 7)

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

Arrays = dict[str, NDArray[Any]]
Predict = Callable[[Arrays], Mapping[str, Any]]


@dataclass(frozen=True)
class ModuleCase:
    """One batch.

    Attributes:
        kind: of images.
        images: float32 (N, C, H, W) by input.
        expected: the module's outputs in float64.
    """

    kind: str
    images: Arrays
    expected: Arrays


class ModuleProof:
    """The cases of a module, with its own rounding.

    Raises:
        ExportError: the module does not run in float64, or returns other than its outputs, no finite numbers, or the
            same numbers for all images.
    """

    def __init__(self, module: nn.Module, interface: Interface, examples: Sequence[Tensor], seed: int = 0) -> None:
        self.interface = interface
        self.rounding = dict.fromkeys(interface.outputs, 0.0)
        self.scale = dict.fromkeys(interface.outputs, 0.0)
        exact = copy.deepcopy(module).double()
        self.cases = []
        for kind, images in self._kinds(examples, seed).items():
            answers = run_module(exact, interface, [torch.from_numpy(each).double() for each in images.values()])
            rounded = run_module(module, interface, [torch.from_numpy(each) for each in images.values()])
            for name, values in answers.items():
                if not np.isfinite(values).all():
                    raise ExportError(f"the output {name} is not finite for {kind} images; give other example inputs")
                self.scale[name] = max(self.scale[name], float(np.abs(values).max()))
                self.rounding[name] = max(self.rounding[name], float(np.abs(values - rounded[name]).max()))
            for batch in BATCHES:
                rows = np.arange(batch) % len(next(iter(images.values())))
                case = ({name: values[rows] for name, values in part.items()} for part in (images, answers))
                self.cases.append(ModuleCase(kind, *case))
        for name, scale in self.scale.items():
            first = self.cases[0].expected[name][0]
            if all((case.expected[name] == first).all() for case in self.cases):
                raise ExportError(
                    f"the output {name} is the same for all images, which proves nothing; load the module's weights, "
                    "or give other example inputs"
                )
            self.rounding[name] = max(self.rounding[name], LEAST_ROUNDING * scale, float(np.finfo(np.float32).tiny))

    def _kinds(self, examples: Sequence[Tensor], seed: int) -> dict[str, Arrays]:
        """Noise, black, white and the examples."""
        highest, noise = 255 if self.interface.dtype == "uint8" else 1, np.random.default_rng(seed)
        kinds: dict[str, Arrays] = {kind: {} for kind in ("noise", "black", "white", "example")}
        for given, example in zip(self.interface.inputs, examples, strict=True):
            shape = given.channels, given.height, given.width
            pixels = noise.integers(0, 256, (max(BATCHES), *shape)).astype(np.float32)
            kinds["noise"][given.name] = pixels if highest == 255 else pixels / np.float32(255)
            kinds["black"][given.name] = np.zeros((1, *shape), np.float32)
            kinds["white"][given.name] = np.full((1, *shape), highest, np.float32)
            kinds["example"][given.name] = example.numpy().astype(np.float32)
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
        batches = [
            {name: self.at_border(values).astype(np.float32) for name, values in case.images.items()}
            for case in self.cases
        ]
        found = iter(run_litert(content, batches, f"{kind} of {self.interface.model}"))
        rows = self._compare(f"LiteRT {kind}", lambda _: self._inside(next(found)))
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
            difference = float(np.abs(got - expected).max()) if same else float("inf")
            least = 0.0 if multiple == FLOAT64_MULTIPLE else LEAST_TOLERANCE
            tolerance = max(multiple * self.rounding[name], least * self.scale[name])
            tolerance = min(tolerance, LARGEST_DIFFERENCE * self.scale[name])
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
                    max(tolerance, float(np.finfo(np.float32).tiny)),
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
    return (
        f"{worst.path} differs from the module by {worst.difference:.3g} (tolerance {worst.tolerance:.3g}): "
        f"{worst.signature}, {worst.output}, {worst.kind} images, batch {worst.batch}"
    )


def proof_record(report: ParityReport) -> dict[str, Any]:
    """For the version's parity.json."""
    rule = {
        "reference": "the module in float64",
        "multiple of its float32 rounding that an export may add": ROUNDING_MULTIPLE,
        "multiple of it in float64": FLOAT64_MULTIPLE,
        "least rounding, as a share of an output's largest value": LEAST_ROUNDING,
        "least tolerance in float32, as a share of an output's largest value": LEAST_TOLERANCE,
        "bound, as a share of an output's largest value": LARGEST_DIFFERENCE,
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
            found = module(*images)
    except Exception as error:  # a module may raise any kind
        kind = str(images[0].dtype).removeprefix("torch.")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"the module does not run in {kind}, batch {len(images[0])}: {reason}") from error
    values = [found] if isinstance(found, Tensor) else list(found) if isinstance(found, tuple | list) else []
    if len(values) != len(interface.outputs) or not all(isinstance(value, Tensor) for value in values):
        raise ExportError(
            f"the module returns {type(found).__name__} of {len(values)}, not the {len(interface.outputs)} tensors "
            f"{', '.join(interface.outputs)}; name each output, and return a tensor or a tuple of tensors"
        )
    return {name: value.numpy() for name, value in zip(interface.outputs, values, strict=True)}


def _agreement(got: NDArray[Any], expected: NDArray[Any]) -> float | None:
    """The share of equal decisions: which of the second axis is largest."""
    if got.ndim < 2 or got.shape[1] < 2:
        return None
    return float((got.argmax(1) == expected.argmax(1)).mean())
