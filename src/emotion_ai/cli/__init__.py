"""The command line: one module per command, each importing what it runs only when it is called."""

from typing import Annotated

import typer

from emotion_ai import __version__
from emotion_ai.cli import (
    ablations,
    canary,
    convert,
    data,
    demo,
    drift,
    hydra,
    predict,
    score,
    serve,
    verify,
    versions,
    video,
    web,
)
from emotion_ai.cli.console import fail, safe_output
from emotion_ai.cli.server_access import with_server_access
from emotion_ai.errors import EmotionAIError
from emotion_ai.extras import optional_imports

app = typer.Typer(
    name="emotion-ai",
    help="Find 15 keypoints and the emotion of every face. Trained in PyTorch, served by TensorFlow Serving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(context_settings=hydra.HYDRA_SETTINGS)(hydra.train)
app.command("cross-validate", context_settings=hydra.HYDRA_SETTINGS)(hydra.cross_validate)
app.command(context_settings=hydra.HYDRA_SETTINGS)(hydra.sweep)
app.command()(ablations.ablations)
app.command(context_settings=hydra.HYDRA_SETTINGS)(hydra.evaluate)
app.command(context_settings=hydra.HYDRA_SETTINGS)(hydra.export)
app.command()(convert.convert)
app.command()(data.data)
app.command()(serve.serve)
app.command()(with_server_access(versions.versions))
app.command()(with_server_access(versions.promote))
app.command()(with_server_access(versions.rollback))
app.command()(with_server_access(versions.prune))
app.command()(with_server_access(canary.canary))
app.command()(with_server_access(verify.verify))
app.command()(with_server_access(predict.predict))
app.command()(with_server_access(video.video))
app.command()(with_server_access(score.score))
app.command()(drift.drift)
app.command()(with_server_access(web.web))
app.command()(demo.demo)


def _print_version(requested: bool) -> None:
    if requested:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of `emotion-ai`: errors of the user or the operating system print one line and exit with 2."""
    with safe_output():
        try:
            with optional_imports():
                app()
        except (EmotionAIError, OSError) as error:
            fail(error)
