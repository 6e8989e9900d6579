"""The commands that manage published versions: versions, promote, rollback and prune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emotion_ai.cli.signals import terminable
from emotion_ai.terminal import Console

if TYPE_CHECKING:
    from emotion_ai_export.registry.watched_server import WatchedServer

Base = Annotated[Path, typer.Argument(help="Folder that `emotion-ai export` published to.")]
Label = Annotated[str, typer.Option(help="stable or canary.")]
Timeout = Annotated[float, typer.Option(help="Seconds that the server may take to load a version.")]
Server = Annotated[str, typer.Option(help="Address of the server, http:// or grpc://, that must load the change.")]
Offline = Annotated[bool, typer.Option("--offline", help="Only rewrite models.config; no server may be running.")]

SERVER = "http://127.0.0.1:8501"


def versions(
    base: Base,
    server: Annotated[str, typer.Option(help="Server whose version states are shown, if it is running.")] = SERVER,
    json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List published versions with labels, state, metrics, parity and checkpoint; labels are a running server's."""
    from emotion_ai_export.registry.listing import versions_command

    versions_command(base, server, json)


@terminable()
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

    number = promote(base, version, label, _watched(base, server, offline, timeout))
    Console().print(f"{label} is version {number}", highlight=False)


@terminable()
def rollback(
    base: Base, label: Label = "stable", server: Server = SERVER, offline: Offline = False, timeout: Timeout = 120
) -> None:
    """Move a label back to its previous version."""
    from emotion_ai_export.registry.versions import rollback

    number = rollback(base, label, _watched(base, server, offline, timeout))
    Console().print(f"{label} is version {number}" if number else f"{label} is removed", highlight=False)


@terminable()
def prune(
    base: Base,
    keep: Annotated[int, typer.Option(help="Number of newest versions to keep; labelled ones are always kept.")] = 3,
    server: Server = SERVER,
    offline: Offline = False,
    timeout: Timeout = 120,
) -> None:
    """Delete old versions, except those with a label."""
    from emotion_ai_export.registry.versions import prune

    deleted = prune(base, keep, _watched(base, server, offline, timeout))
    Console().print(f"deleted {', '.join(map(str, deleted))}" if deleted else "nothing to delete", highlight=False)


def _watched(base: Path, address: str, offline: bool, timeout: float) -> "WatchedServer | None":
    """The server to wait for; None, with a warning if it is running, when offline."""
    from emotion_ai_export.registry.rollout import warn_if_running
    from emotion_ai_export.registry.watched_server import WatchedServer

    if not offline:
        return WatchedServer(address, timeout)
    warn_if_running(base, address)
    return None
