"""Any PyTorch module with image inputs to a published version of its own."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from emotion_ai import __version__
from emotion_ai.contract import BYTES_INPUT, BYTES_SIGNATURE, IMAGES_SIGNATURE
from emotion_ai.errors import ConfigError, ExportError, ParityError
from emotion_ai.provenance import environment
from emotion_ai.published import CONTRACT_FILE, EXTRA, PARITY_FILE, litert_file
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.convert.control_flow import require_graph
from emotion_ai_export.convert.frameworks import errors_in_one_line, tf
from emotion_ai_export.convert.interface import ImageFiles, ImageType, Interface, Layout, image_inputs
from emotion_ai_export.convert.litert import LiteRTKind, litert_kinds, to_litert
from emotion_ai_export.convert.module_model import litert_function, save_module
from emotion_ai_export.convert.module_parity import ModuleProof, proof_record, require, run_module
from emotion_ai_export.convert.onnx_export import export_onnx
from emotion_ai_export.convert.onnx_graph.translator import Translator
from emotion_ai_export.convert.parity import ParityReport
from emotion_ai_export.convert.weights import compare_module_weights
from emotion_ai_export.registry.publish import (
    check_target,
    next_version,
    publisher,
    put_in_place,
    withdrawn_on_error,
    write_checksums,
    write_config,
)
from emotion_ai_export.registry.warmup import replay_warmup, write_requests

ONNX_FILE = f"{EXTRA}/model.onnx"
WEIGHTS_FILE = f"{EXTRA}/weights.safetensors"
WARMUP_BATCHES = (1, 8)


@dataclass(frozen=True)
class ConvertOptions:
    """How a module is served.

    Attributes:
        model: the name under which it is served.
        outputs: names, in the order in which the module returns them.
        layout: of images at the border: "NHWC" or "NCHW".
        dtype: of the images: "float32", or "uint8", which the module gets as float32, 0-255.
        files: adds the signature `serving_bytes` with this normalisation.
        litert: LiteRT files to add, "float32", "float16" or "int8", which takes its ranges from the example inputs.
        target: "host" for absolute paths in models.config, "container" for paths below /models.
    """

    model: str = "model"
    outputs: tuple[str, ...] = ("output",)
    layout: Layout = "NHWC"
    dtype: ImageType = "float32"
    files: ImageFiles | None = None
    litert: Sequence[LiteRTKind] = ()
    target: str = "host"


@dataclass(frozen=True)
class Converted:
    """A published version: its number, its folder and its proof."""

    version: int
    path: Path
    report: ParityReport = field(repr=False)


def convert(
    module: nn.Module,
    example_inputs: Tensor | NDArray[Any] | Sequence[Tensor | NDArray[Any]],
    names: Sequence[str],
    out: str | Path,
    options: ConvertOptions | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Converted:
    """Publishes a module as a version `<out>/<model>/<number>` for TensorFlow Serving, or nothing.

    The module is converted in evaluation mode: to ONNX, then to a TensorFlow graph in NHWC with a dynamic batch. ONNX
    Runtime, the SavedModel, and its graph in float64 are compared with the module in float64, on noise, black, white,
    standardised noise and the first 64 example inputs.

    Args:
        module: takes images float32 (N, C, H, W), and returns a tensor or a tuple of tensors with the batch first.
        example_inputs: a batch of each input, float32 (N, C, H, W), with values as in use.
        names: of the inputs.
        out: the folder of all models; the version appears in it with one rename.
        options: names of the model and its outputs, layout, types, image files.
        progress: is called with the name of each step.

    Raises:
        ConfigError: names, shapes or options that do not fit the module.
        ExportError: names the layer that cannot be converted, and the reason; or publishing failed.
        ParityError: the conversion differs from the module; names the first layer that does.
    """
    options, base = options or ConvertOptions(), Path(out)
    check_target(options.target)
    kinds = litert_kinds(options.litert, "litert")
    examples = _examples(example_inputs, options.dtype)
    interface = Interface(
        options.model,
        image_inputs(names, [example.shape for example in examples]),
        options.outputs,
        options.layout,
        options.dtype,
        options.files,
    )
    module = _copied(module)
    run_module(module, interface, examples)  # an error before the long work
    require_graph(module, examples)
    progress("PyTorch to ONNX")
    traced = [example.repeat(2, 1, 1, 1)[:2] for example in examples]  # a trace at batch 1 would bake the batch in
    model = export_onnx(module, traced, names, interface.outputs)
    if unused := sorted(set(names) - {given.name for given in model.graph.input}):
        raise ExportError(f"input {unused[0]}: the module does not use it; leave it out")
    translator = Translator(model)
    translator.require_batches()
    progress("PyTorch in float64")
    proof = ModuleProof(module, interface, examples)
    models = (interface.model,)
    with publisher(base, models) as staging, errors_in_one_line(base):
        folder = staging / interface.model
        progress("ONNX to TensorFlow")
        save_module(translator, interface, folder)
        progress("warm-up")
        write_requests(folder, interface.model, _warmup(interface, proof))
        loaded = tf.saved_model.load(str(folder))
        replay_warmup(folder, loaded)
        progress("comparing with PyTorch")
        report = ParityReport([*proof.compare_onnx(model), *proof.compare_saved_model(loaded)])
        for kind in kinds:
            progress(f"LiteRT {kind}")
            content = to_litert(litert_function(translator, interface), kind, _calibration(interface, proof, examples))
            (folder / litert_file("model", kind)).parent.mkdir(exist_ok=True)
            (folder / litert_file("model", kind)).write_bytes(content)
            report.rows += proof.compare_litert(kind, content)
        if problem := require(report):
            where = translator.first_difference() or "no single layer differs much"
            raise ParityError(f"{problem}; {where}; nothing was published")
        progress("comparing the weights")
        weights = compare_module_weights(module, traced, interface, translator, folder)
        progress("publishing")
        version = next_version(base, models)
        _write_files(folder, module, interface, model.SerializeToString())
        record = {"version": version, "environment": environment(), "weights": weights, **proof_record(report)}
        (folder / PARITY_FILE).write_text(json.dumps(record, indent=1))
        write_checksums(folder)
        (path,) = put_in_place(staging, base, version, models)
        with withdrawn_on_error(base, version, models):
            write_config(base, options.target, models=models)
    return Converted(version, path, report)


def _copied(module: Any) -> nn.Module:
    """On the CPU, in float32 and evaluation mode."""
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{type(module).__name__} is not a torch.nn.Module")
    module = getattr(module, "_orig_mod", module)  # of a compiled one
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise ExportError(f"{name}: {type(value).__name__} in the module's state; remove its get_extra_state")
    try:
        return copy.deepcopy(module).cpu().float().eval()
    except Exception as error:  # a module may hold anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"the module cannot be copied to the CPU: {reason}") from error


def _examples(given: Any, dtype: ImageType) -> list[Tensor]:
    many = given if isinstance(given, list | tuple) else [given]
    try:
        tensors = [torch.as_tensor(each).detach() for each in many]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"the example inputs must be tensors or arrays of images (N, C, H, W): {error}") from error
    if any(each.is_complex() for each in tensors):
        raise ConfigError("the example inputs are complex; give real numbers")
    examples = [each.cpu().float().clone() for each in tensors]
    if len({len(each) if each.ndim else 0 for each in examples}) != 1 or not len(examples[0]):
        raise ConfigError("the example inputs must be batches of the same size, of one image or more")
    if dtype == "uint8" and any((each != each.clamp(0, 255).round()).any() for each in examples):
        raise ConfigError("the example inputs of a network of uint8 images must be whole numbers from 0 to 255")
    return examples


def _calibration(
    interface: Interface, proof: ModuleProof, examples: list[Tensor]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The example inputs, one by one."""
    names = [given.name for given in interface.inputs]
    for images in zip(*(example.split(1) for example in examples), strict=True):
        yield {
            name: proof.at_border(image.numpy()).astype(np.float32) for name, image in zip(names, images, strict=True)
        }


def _warmup(interface: Interface, proof: ModuleProof) -> Iterator[tuple[str, dict[str, Any]]]:
    noise = proof.cases[0].images
    for batch in WARMUP_BATCHES:
        images = {name: np.repeat(proof.at_border(values[:1]), batch, 0) for name, values in noise.items()}
        yield IMAGES_SIGNATURE, images
        if interface.files is not None:
            (given,) = interface.inputs
            grey = np.full((given.height, given.width, 3), 128, np.uint8)
            yield BYTES_SIGNATURE, {BYTES_INPUT: [encode_png(grey)] * batch}


def _write_files(folder: Path, module: nn.Module, interface: Interface, model: bytes) -> None:
    (folder / ONNX_FILE).write_bytes(model)
    weights = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    contract = {"emotion_ai": __version__, **interface.as_dict()}
    (folder / CONTRACT_FILE).write_text(json.dumps(contract, indent=2))
