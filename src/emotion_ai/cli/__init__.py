"""The command line. Each stage is imported only when it is called."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from emotion_ai.cli.console import fail
from emotion_ai.cli.hydra import HYDRA_SETTINGS, cross_validate, evaluate, export, train
from emotion_ai.contract import BYTES_SIGNATURE, TASKS
from emotion_ai.errors import EmotionAIError
from emotion_ai.extras import load as stage

app = typer.Typer(
    name="emotion-ai",
    help="A face goes in; its 15 keypoints and its emotion come out. Trained in PyTorch, served by TensorFlow Serving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of `emotion-ai`: errors that a user can mend are one line on stderr and exit code 2."""
    try:
        app()
    except EmotionAIError as error:
        fail(error)


app.command(context_settings=HYDRA_SETTINGS)(train)
app.command("cross-validate", context_settings=HYDRA_SETTINGS)(cross_validate)
app.command(context_settings=HYDRA_SETTINGS)(evaluate)
app.command(context_settings=HYDRA_SETTINGS)(export)


@app.command()
def ablations(
    overrides: Annotated[list[str] | None, typer.Argument(help="Of train, for every run: trainer=gpu.")] = None,
    budget: Annotated[str, typer.Option(help="full; cpu: small networks; quick: minutes, never quoted.")] = "full",
    data: Annotated[Path | None, typer.Option(help="Folder of fer2013.csv*, training.csv*, fer2013new.csv.")] = None,
    out: Annotated[Path, typer.Option(help="Where all runs go, in a folder of the budget's name.")] = Path(
        "runs/ablations"
    ),
) -> None:
    """Train with one change at a time, several seeds each; takes up what is there; leaves a table and pictures."""
    stage("emotion_ai.studies.ablations").ablations(budget, data, out / budget, overrides or ())


@app.command()
def data(
    source: Annotated[str, typer.Argument(help="A CSV (.zip, .gz, .xz), an image folder, or 'synthetic'.")],
    task: Annotated[str | None, typer.Option(help=f"{' or '.join(TASKS)}; told from the columns if not given.")] = None,
    labels: Annotated[str, typer.Option(help="What the class ids mean: auto, five or fer7.")] = "auto",
    out: Annotated[Path, typer.Option(help="Where the pictures and description.json go.")] = Path("runs/data"),
    json: Annotated[bool, typer.Option("--json", help="Print the description as JSON.")] = False,
) -> None:
    """Describe a dataset: counts, balance, twins, contradictions, blanks, missing points, pictures."""
    stage("emotion_ai.cli.data").describe_command(source, task, labels, out, json)


@app.command()
def serve(
    base: Annotated[Path, typer.Argument(help="The folder that `emotion-ai export` published into.")],
    rest_port: Annotated[int, typer.Option(help="Port of the REST API.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC API.")] = 8500,
    engine: Annotated[str, typer.Option(help="auto, tensorflow-serving, docker or embedded.")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve published models: TensorFlow Serving, its container, or the embedded stand-in; says which."""
    stage("emotion_ai_export.serving.launch").serve(base, rest_port, grpc_port, engine, host)


Base = Annotated[Path, typer.Argument(help="The folder that `emotion-ai export` published into.")]
Label = Annotated[str, typer.Option(help="stable or canary.")]
Timeout = Annotated[float, typer.Option(help="Seconds that the server may take for each step.")]
Served = Annotated[str, typer.Option(help="The server, http:// or grpc://, that must say AVAILABLE.")]
Offline = Annotated[bool, typer.Option("--offline", help="Only rewrite models.config; no server is asked.")]
SERVER = "http://127.0.0.1:8501"


@app.command()
def versions(
    base: Base,
    server: Annotated[str, typer.Option(help="Whose states are shown, where it answers.")] = SERVER,
    json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the published versions: labels, state, metrics, parity, checkpoint."""
    stage("emotion_ai_export.registry.versions").versions_command(base, server, json)


@app.command()
def promote(
    base: Base,
    version: Annotated[int | None, typer.Argument(help="A version's number; the newest if not given.")] = None,
    label: Label = "stable",
    server: Served = SERVER,
    offline: Offline = False,
    timeout: Timeout = 120,
) -> None:
    """Move a label to a version, once the server has loaded it."""
    command = stage("emotion_ai_export.registry.versions").promote
    number = command(base, version, label, None if offline else server, timeout)
    Console().print(f"{label} is version {number}", highlight=False)


@app.command()
def rollback(
    base: Base, label: Label = "stable", server: Served = SERVER, offline: Offline = False, timeout: Timeout = 120
) -> None:
    """Move a label back to the version that it named before."""
    number = stage("emotion_ai_export.registry.versions").rollback(base, label, None if offline else server, timeout)
    Console().print(f"{label} is version {number}" if number else f"{label} is taken away", highlight=False)


@app.command()
def prune(
    base: Base,
    keep: Annotated[int, typer.Option(help="How many of the newest versions stay; labelled ones always do.")] = 3,
    server: Served = SERVER,
    offline: Offline = False,
    timeout: Timeout = 120,
) -> None:
    """Delete old versions, never one that a label names."""
    gone = stage("emotion_ai_export.registry.versions").prune(base, keep, None if offline else server, timeout)
    Console().print(f"deleted {', '.join(map(str, gone))}" if gone else "nothing to delete", highlight=False)


@app.command()
def verify(
    base: Base,
    server: Annotated[
        str | None, typer.Option(help="REST address of what serves them; one is started if not given.")
    ] = None,
    grpc: Annotated[str | None, typer.Option(help="Its gRPC address; else one port below REST's is tried.")] = None,
    version: Annotated[int | None, typer.Option(help="One version; all if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prove again that what is published and served is what its checkpoints say; exits with 1 where it is not."""
    sys.exit(stage("emotion_ai_export.convert.verify").verify_command(base, server, grpc, version, out, json))


@app.command()
def predict(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photographs, of any size; with --kaggle its test.csv and IdLookupTable.csv."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="http:// (REST) or grpc:// address; without it PyTorch answers.")
    ] = None,
    model: Annotated[str, typer.Option(help="The served model: face, keypoints or emotion.")] = "face",
    signature: Annotated[
        str, typer.Option(help="serving_bytes sends PNG, serving_default pixels, serving_uncertainty: deviations too.")
    ] = BYTES_SIGNATURE,
    version: Annotated[int | None, typer.Option(help="A version of the served model.")] = None,
    label: Annotated[str | None, typer.Option(help="A label of the served model, e.g. stable.")] = None,
    watch: Annotated[Path | None, typer.Option(help="Read the photographs that come into a folder.")] = None,
    kaggle: Annotated[bool, typer.Option("--kaggle", help="Write Kaggle's submission.csv (or --csv) instead.")] = False,
    fps: Annotated[
        float | None,
        typer.Option(help="The photographs are frames of one video, in this order, so many a second: smooth them."),
    ] = None,
    uncertain_below: Annotated[
        float | None,
        typer.Option(help="Confidence, 0 to 1, below which an emotion is uncertain; the bundled weights know theirs."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the annotated pictures.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table with one row for each face.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the readings as JSON.")] = False,
) -> None:
    """Find the faces in photographs and read their keypoints and emotions."""
    module = stage("emotion_ai.cli.predict")
    output = module.Output(out, csv, json)
    served = (server, model, signature, version, label)
    sys.exit(module.predict_command(photos or (), *served, watch, kaggle, fps, uncertain_below, output))


@app.command()
def web(
    models: Annotated[
        Path | None, typer.Argument(help="A folder that was published into; the bundled weights if not given.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="http:// or grpc:// address; without it a server is started for the while.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 7860,
) -> None:
    """Show a page that reads pictures and the webcam with a served model."""
    stage("emotion_ai.web.command").web(models, server, host, port)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
    fast: Annotated[bool, typer.Option("--fast", help="Train for seconds only, to prove the road.")] = False,
) -> None:
    """The whole road on embedded data: train, export, serve, answer; leaves demo.png."""
    stage("emotion_ai_export.demo").demo(out, fast)
