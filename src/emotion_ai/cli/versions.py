"""The commands that manage published versions: versions, promote, rollback and prune."""

from pathlib import Path
from typing import Annotated

import typer

from emotion_ai.terminal import Console

Base = Annotated[Path, typer.Argument(help="Folder that `emotion-ai export` published to.")]
Label = Annotated[str, typer.Option(help="stable or canary.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the server at each step.")]
Server = Annotated[str, typer.Option(help="Address of the server, http:// or grpc://, that must load the change.")]
Offline = Annotated[bool, typer.Option("--offline", help="Only rewrite models.config, without a server.")]

SERVER = "http://127.0.0.1:8501"


def versions(
    base: Base,
    server: Annotated[str, typer.Option(help="Server whose version states are shown, if it is running.")] = SERVER,
    json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List published versions with labels, state, metrics, parity and checkpoint."""
    from emotion_ai_export.registry.listing import versions_command

    versions_command(base, server, json)


def promote(
    base: Base,
    version: Annotated[int | None, typer.Argument(help="Version number; by default the newest.")] = None,
    label: Label = "stable",
    server: Server = SERVER,
    offline: Offline = False,
    timeout: Timeout = 120,
) -> None:
    """Move a label to a version, once the server has loaded it."""
    from emotion_ai_export.registry.versions import promote
    from emotion_ai_export.registry.watched_server import WatchedServer

    number = promote(base, version, label, None if offline else WatchedServer(server, timeout))
    Console().print(f"{label} is version {number}", highlight=False)


def rollback(
    base: Base, label: Label = "stable", server: Server = SERVER, offline: Offline = False, timeout: Timeout = 120
) -> None:
    """Move a label back to its previous version."""
    from emotion_ai_export.registry.versions import rollback
    from emotion_ai_export.registry.watched_server import WatchedServer

    number = rollback(base, label, None if offline else WatchedServer(server, timeout))
    Console().print(f"{label} is version {number}" if number else f"{label} is removed", highlight=False)


def prune(
    base: Base,
    keep: Annotated[int, typer.Option(help="Number of newest versions to keep; labelled ones are always kept.")] = 3,
    server: Server = SERVER,
    offline: Offline = False,
    timeout: Timeout = 120,
) -> None:
    """Delete old versions, except those with a label."""
    from emotion_ai_export.registry.versions import prune
    from emotion_ai_export.registry.watched_server import WatchedServer

    deleted = prune(base, keep, None if offline else WatchedServer(server, timeout))
    Console().print(f"deleted {', '.join(map(str, deleted))}" if deleted else "nothing to delete", highlight=False)
