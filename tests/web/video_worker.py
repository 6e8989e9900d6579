"""Stands in for the process that reads a video: what the video's text says is what it does."""

import json
import signal
import sys
import time
from pathlib import Path

RESULT = {
    "seconds": 10.0,
    "frames": 100,
    "version": 2,
    "classes": ["Happy", "Sad"],
    "tracks": {"1": [[0.0, 4.0, "Happy"], [4.0, 10.0, "uncertain"]], "2": [[2.0, 3.0, "Sad"]]},
    "events": [{"track": 1, "start": 1.25, "end": 4.0, "expression": "Happy", "confidence": 0.9, "peak": 2.0}],
    "notes": [],
}


def write(message: object) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    file, out = map(Path, sys.argv[1:])
    task = json.loads(sys.stdin.readline())
    words = file.read_text().split()
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    write({"progress": {"frames": 10, "total": 100, "seconds": 1.0, "fps": 25.0}})
    match words[0]:
        case "crash":
            sys.exit(139)
        case "silent":
            time.sleep(60)
        case "garbage":
            print("no JSON", flush=True)
        case "endless":
            while True:
                sys.stdout.write("x" * 2**20)
        case "wait":
            while not stopped and not Path(words[1]).exists():
                time.sleep(0.02)
    out.mkdir()
    (out / "rows.csv").write_text(json.dumps(task))
    (out / "annotated.mp4").write_bytes(bytes(range(256)) * 40)
    (out / "secret.txt").write_text("the secret")
    (out / "timeline.png").symlink_to("/etc/passwd")
    write({"result": RESULT})


if __name__ == "__main__":
    main()
