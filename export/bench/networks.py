"""Converts 40 networks of timm and torchvision, untrained and with perturbed statistics: each a proof or a refusal.

    python -m emotion_ai_export.bench.networks networks.jsonl

Each runs in a process of its own; those that the file has already are skipped.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emotion_ai.evaluation.tables import Cell, Column, ReportTable
from emotion_ai.terminal import Console

PLAIN = [
    "torchvision/resnet18@96",
    "torchvision/resnet50@96",
    "torchvision/wide_resnet50_2@96",
    "torchvision/resnext50_32x4d@96",
    "torchvision/mobilenet_v2@96",
    "torchvision/mobilenet_v3_small@96",
    "torchvision/vgg11_bn@224",
    "torchvision/squeezenet1_1@96",
    "torchvision/densenet121@96",
    "torchvision/mnasnet0_5@96",
    "torchvision/googlenet@96",
    "torchvision/shufflenet_v2_x1_0@96",
    "timm/resnet26d@96",
    "timm/seresnet18@96",
    "timm/resnetv2_50@96",
    "timm/regnetx_002@96",
    "timm/regnety_002@96",
    "timm/efficientnet_b0@96",
    "timm/tf_efficientnet_lite0@96",
    "timm/mobilenetv3_small_100@96",
    "timm/mobilenetv4_conv_small@96",
    "timm/inception_v3@299",
    "timm/repvgg_a0@96",
    "timm/ghostnet_100@96",
    "timm/dla34@96",
    "timm/hrnet_w18_small@96",
    "timm/res2net50_26w_4s@96",
    "timm/convnext_atto@96",
    "timm/skresnet18@96",
    "timm/cspresnet50@96",
    "timm/darknet53@96",
]
"""Convolutional networks that need no transpose."""

OTHERS = [
    "timm/ecaresnet26t@96",
    "timm/vit_tiny_patch16_224@224",
    "timm/deit_tiny_patch16_224@224",
    "timm/swin_tiny_patch4_window7_224@224",
    "timm/mobilevit_xxs@256",
    "timm/poolformer_s12@224",
    "timm/levit_128s@224",
    "timm/mixer_s16_224@224",
    "timm/edgenext_xx_small@256",
]

SECONDS = 1200
"""That one network may take."""


@dataclass(frozen=True)
class NetworkResult:
    """Of one network.

    Attributes:
        refusal: why it was not converted, starting with the layer's name; empty if it was.
        difference, tolerance: of the worst comparison of the proof.
        transposes: in the whole graph.
        seconds: for the conversion and its proof.
    """

    network: str
    refusal: str = ""
    path: str = ""
    difference: float = 0.0
    tolerance: float = 0.0
    agreement: float = 1.0
    transposes: int = 0
    operations: int = 0
    seconds: float = 0.0


def convert_network(network: str, folder: Path) -> NetworkResult:
    """Publishes one network into the folder as `emotion-ai convert` does, or not."""
    import torch

    from emotion_ai.errors import ExportError
    from emotion_ai_export.convert import ConvertOptions, convert
    from emotion_ai_export.convert.frameworks import tf

    torch.manual_seed(0)
    module, size = build_network(network)
    started = time.perf_counter()
    try:
        made = convert(module, torch.rand(2, 3, size, size), ["images"], folder, ConvertOptions("network"))
    except ExportError as error:
        return NetworkResult(network, str(error), seconds=time.perf_counter() - started)
    graph = tf.saved_model.load(str(made.path)).signatures["serving_default"].graph.as_graph_def()
    nodes = [node.op for part in (graph.node, *(f.node_def for f in graph.library.function)) for node in part]
    worst = made.report.worst
    return NetworkResult(
        network,
        "",
        worst.path,
        worst.difference,
        worst.tolerance,
        min(row.agreement for row in made.report.rows if row.agreement is not None),
        nodes.count("Transpose"),
        len([op for op in nodes if op not in ("Const", "Identity", "NoOp", "Placeholder")]),
        time.perf_counter() - started,
    )


def build_network(network: str) -> tuple[Any, int]:
    """An untrained network with perturbed statistics, and the side of its images.

    Raises:
        MissingExtraError: timm is not installed.
    """
    import importlib

    import torch
    import torchvision

    from emotion_ai.errors import MissingExtraError

    library, _, rest = network.partition("/")
    name, _, side = rest.partition("@")
    if library == "torchvision":
        more = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
        module = torchvision.models.get_model(name, weights=None, **more)
    else:
        try:
            module = importlib.import_module("timm").create_model(name, pretrained=False)
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{network} needs {error.name}: pip install timm") from error
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                part.running_mean.normal_(0, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
                part.weight.uniform_(0.5, 1.0, generator=generator)
                part.bias.normal_(0, 0.2, generator=generator)
        for weights in module.parameters():
            if weights.ndim > 1 and not weights.any():  # with a head of zeros nothing would be compared
                weights.normal_(0, 0.02, generator=generator)
    return module.eval(), int(side)


def run(file: Path, networks: list[str]) -> list[NetworkResult]:
    """Converts those that the file lacks, one process each, and adds a line for each."""
    found = read(file)
    for network in networks:
        if network in found:
            continue
        command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--one", network]
        try:  # the process may be killed, so its folder is made and removed here
            with tempfile.TemporaryDirectory(prefix="emotion-ai-networks-") as folder:
                whole = [*command, "--folder", folder]
                done = subprocess.run(whole, capture_output=True, text=True, timeout=SECONDS)
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            result = NetworkResult(**json.loads(lines[-1])) if lines else NetworkResult(network, failure(done))
        except subprocess.TimeoutExpired:
            result = NetworkResult(network, f"failed: took more than {SECONDS} s")
        with file.open("a") as lines_:
            lines_.write(json.dumps(asdict(result)) + "\n")
        found[network] = result
    return [found[network] for network in networks if network in found]


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process gave no result."""
    if done.returncode < 0:
        killed = " (out of memory?)" if done.returncode == -signal.SIGKILL else ""
        return f"failed: ended by {signal.Signals(-done.returncode).name}{killed}"
    return f"failed: {(done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]}"


def read(file: Path) -> dict[str, NetworkResult]:
    """The results of earlier runs, by network."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return {result.network: result for result in (NetworkResult(**json.loads(line)) for line in lines)}


def table(results: list[NetworkResult]) -> ReportTable:
    """A row for each network: the worst difference as a share of its tolerance, or the refusal."""
    columns = (
        *(Column("network"), Column("of the tolerance", ".0%"), Column("same decisions", ".2%")),
        *(Column("transposes"), Column("operations"), Column("refused")),
    )
    rows: list[tuple[Cell, ...]] = []
    for result in results:
        share = result.difference / (result.tolerance or 1)
        figures = (share, result.agreement, result.transposes, result.operations)
        rows.append((result.network, *((None,) * 4 if result.refusal else figures), result.refusal))
    converted = sum(not result.refusal for result in results)
    return ReportTable(f"{converted} of {len(results)} networks converted", columns, tuple(rows))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path("networks.jsonl"), help="results, added to")
    parser.add_argument("--only", nargs="+", default=[*PLAIN, *OTHERS], help="some of the networks")
    parser.add_argument("--page", type=Path, help="Markdown file for the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        print(json.dumps(asdict(convert_network(given.one, given.folder))))
    else:
        results = run(given.file, given.only)
        found = table(results)
        Console().print(found.as_rich())
        if given.page:
            given.page.write_text(f"{found.title}:\n\n{found.as_markdown()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
