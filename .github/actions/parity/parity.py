"""Steps of the action: publishes a network, and writes the proof into the summary of the job. Settings: environment."""

import json
import os
import subprocess
import sys
from pathlib import Path


def publish() -> int:
    """Runs `emotion-ai export` or `convert`; `version` becomes an output of the step. Returns the exit code."""
    given = {name: _lines(os.environ[name.upper()]) for name in ("export", "convert")}
    chosen = [name for name, arguments in given.items() if arguments]
    if len(chosen) != 1:
        print("::error::give the arguments of either export or convert, one per line")
        return 2
    (name,), out = chosen, os.environ["OUT"]
    before = set(_versions(Path(out)))
    more = [f"out={out}"] if name == "export" else [f"--out={out}"]
    done = subprocess.run(["emotion-ai", name, *given[name], *more], stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        print(f"::error::{_escaped(reason)}")
        _write("GITHUB_STEP_SUMMARY", f"## Parity\n\nNothing was published.\n\n```text\n{reason}\n```\n")
        return done.returncode
    _write("GITHUB_OUTPUT", f"version={max(set(_versions(Path(out))) - before)}\n")
    return 0


def summary() -> int:
    """Adds the worst comparison of each path, model and output to the summary."""
    out, version = Path(os.environ["OUT"]), os.environ["VERSION"]
    lines = [
        f"## Parity of version {version}",
        "",
        "| path | model | output | difference | tolerance | same decisions |",
    ]
    lines.append("|---|---|---|---:|---:|---:|")
    for file in sorted(out.glob(f"*/{version}/assets.extra/parity.json")):
        worst: dict[tuple[str, str, str], dict[str, float]] = {}
        model = file.parts[-4]
        for row in json.loads(file.read_text())["rows"]:
            key = row["path"], row["servable"], row["output"]
            if row["servable"] != model:
                continue
            old = worst.setdefault(key, row)
            if row["difference"] * old["tolerance"] > old["difference"] * row["tolerance"]:
                worst[key] = row
        for key, row in worst.items():
            agreement = "" if row["agreement"] is None else f"{row['agreement']:.2%}"
            lines.append(f"| {' | '.join(key)} | {row['difference']:.1e} | {row['tolerance']:.1e} | {agreement} |")
    if (out / "verified.json").is_file():
        lines += ["", "| check | result |", "|---|---|"]
        for check in json.loads((out / "verified.json").read_text())["checks"]:
            lines.append(f"| {check['check']} | {check['problem'] or 'passes'} |")
    _write("GITHUB_STEP_SUMMARY", "\n".join(lines) + "\n")
    return 0


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _versions(out: Path) -> list[int]:
    return [int(path.name) for path in out.glob("*/*") if path.name.isdigit()]


def _escaped(text: str) -> str:
    """As a command of the runner's log takes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _write(variable: str, text: str) -> None:
    with Path(os.environ[variable]).open("a") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit({"publish": publish, "summary": summary}[sys.argv[1]]())
