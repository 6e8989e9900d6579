"""Runs a LiteRT file on arrays, as a process of its own: LiteRT's kernels have crashed on files that it accepts.

    python -m emotion_ai_export.convert.litert_run FOLDER

reads `model.tflite` and `inputs.npz` of the folder, whose arrays are named `<batch>/<input>`, and writes `outputs.npz`.
"""

import sys
from pathlib import Path

import numpy as np


def run(folder: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"), num_threads=1)
    runner = interpreter.get_signature_runner()
    batches: dict[str, dict[str, np.ndarray]] = {}
    with np.load(folder / "inputs.npz") as arrays:
        for key in arrays:
            batch, _, name = key.partition("/")
            batches.setdefault(batch, {})[name] = arrays[key]
    found = {f"{batch}/{name}": values for batch, given in batches.items() for name, values in runner(**given).items()}
    np.savez(folder / "outputs.npz", **found)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
