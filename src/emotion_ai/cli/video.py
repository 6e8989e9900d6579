"""The command `emotion-ai video`."""

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from emotion_ai.cli.server_access import Device, Label, Precision, Server, Signature, Timeout, UncertainBelow, Version
from emotion_ai.contract import Servable
from emotion_ai.extras import optional_imports


def video(
    source: Annotated[
        str,
        typer.Argument(help="Video file, folder of frames, number of a camera, or URL of a stream.", metavar="SOURCE"),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; by default the source's name with -video.")
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(help="Read a frame every so many seconds (0.5s) or frames (10); by default each."),
    ] = None,
    start: Annotated[float, typer.Option(help="Seconds at which to start.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Seconds at which to end.")] = None,
    limit: Annotated[int | None, typer.Option(help="Frames to read at most.")] = None,
    fps: Annotated[float, typer.Option(help="Frames per second of a folder of frames.")] = 25.0,
    server: Server = None,
    model: Annotated[str, typer.Option(help="Served model: face or keypoints.")] = "face",
    signature: Signature = None,
    version: Version = None,
    label: Label = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    uncertain_below: UncertainBelow = None,
    detect_every: Annotated[
        float, typer.Option(help="Seconds between two searches for faces in the whole frame; 0 searches every frame.")
    ] = 1.0,
    smooth: Annotated[bool, typer.Option("--smooth/--no-smooth", help="Smooth points and emotions over time.")] = True,
    hold: Annotated[float, typer.Option(help="Seconds for which an expression must be shown to be an event.")] = 0.5,
    gap: Annotated[float, typer.Option(help="Longest interruption of an event, in seconds.")] = 1.0,
    cooldown: Annotated[
        float, typer.Option(help="Seconds after an event in which the same expression of a face begins no other.")
    ] = 2.0,
    table: Annotated[str, typer.Option(help="Format of the table: csv or parquet.")] = "csv",
    clip: Annotated[bool, typer.Option("--clip", help="Write annotated.mp4: the video with its faces drawn.")] = False,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Show a face of each track in timeline.png.")
    ] = False,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print the beginning and end of each event as a line of JSON.")
    ] = False,
    webhook: Annotated[
        str | None, typer.Option(help="URL to which the beginning and end of each event are posted as JSON.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that ended early.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")] = False,
    timeout: Timeout = None,
) -> None:
    """Read a video: who shows which expression, when."""
    with optional_imports("video"):
        from emotion_ai.cli.video_run import VideoCommand, video_command
        from emotion_ai.video.analysis import VideoOptions

    options = VideoOptions(
        every=every,
        start=start,
        end=end,
        limit=limit,
        fps=fps,
        detect_every=detect_every,
        smooth=smooth,
        hold=hold,
        gap=gap,
        cooldown=cooldown,
        uncertain_below=uncertain_below,
    )
    command = VideoCommand(
        source=source,
        out=out,
        server=server,
        model=cast(Servable, model),  # `video_command` checks it
        signature=signature,
        version=version,
        label=label,
        device=device,
        precision=precision,
        table=table,
        clip=clip,
        thumbnails=thumbnails,
        json_lines=json_lines,
        webhook=webhook,
        resume=resume,
        overwrite=overwrite,
        timeout=timeout,
    )
    sys.exit(video_command(command, options))
