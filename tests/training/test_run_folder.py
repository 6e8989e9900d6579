"""A run's folder: killed, copied, moved, resumed, extended, damaged, or in use."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.files import locked_folder
from emotion_ai.models import load_network
from emotion_ai.training import trainer as module
from emotion_ai.training.modules import KeypointModule
from emotion_ai.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

TINY = [
    "task=keypoints",
    "data.count=100",
    "batch_size=40",
    "ema_decay=0.5",
    "callbacks=none",
    "logger=none",
    "test=false",
]
TINY += ["model.encoder.widths=[8,16]", "model.encoder.depths=[1,1]", "model.encoder.stem_stride=4"]
TINY += ["task.augment.blur=0", "task.augment.noise=0", "patience=null"]
Weights = dict[str, torch.Tensor]


def run(out: Path | str, *overrides: str) -> Weights:
    """Trains and returns the weights that are published."""
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        cfg: DictConfig = compose("train", [*TINY, *overrides, f"out={out}"])
    train(cfg)
    return load_network(Path(out) / "network.safetensors", "keypoints").network.state_dict()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """More only wait for each other with networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Killed(BaseException):
    pass


@contextmanager
def killed_after(writes: int) -> Iterator[None]:
    """Ends training after so many checkpoints: best, last, best, last, … where each epoch is better."""
    real, written = module.AtomicCheckpointIO.save_checkpoint, 0

    def counting(*arguments: Any, **named: Any) -> None:
        nonlocal written
        real(*arguments, **named)
        written += 1
        if written == writes:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(module.AtomicCheckpointIO, "save_checkpoint", counting)
        yield
    assert written == writes


def same(first: Weights, second: Weights) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(params=["min", "max"], ids=["each epoch is better", "the first epoch is best"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(KeypointModule, "mode", request.param)
    return str(request.param)


@pytest.fixture
def straight(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Published weights of an uninterrupted run of three epochs."""
    return run(tmp_path_factory.mktemp("straight") / "run", "epochs=3")


def test_a_run_killed_anywhere_and_moved_ends_with_its_own_best(
    mode: str, straight: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for writes in (1, 2, 3, 4) if mode == "min" else (1, 2):
        first, moved = Path(f"first-{writes}"), Path(f"moved-{writes}")
        with killed_after(writes):
            run(first, "epochs=3")
        first.rename(moved)
        assert same(run(moved if writes % 2 else moved.absolute(), "epochs=3", "resume=true"), straight)
        assert {path.name for path in moved.iterdir()} == {"best.ckpt", "last.ckpt", "network.safetensors", "run.json"}
        assert not first.exists()


def test_a_copied_run_neither_reads_nor_writes_the_original(mode: str, straight: Weights, tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    with killed_after(2):
        run(original, "epochs=3")
    shutil.copytree(original, copy)
    shutil.rmtree(original)
    run(original, "epochs=3", "seed=1")  # another run in its place
    before = contents(original)
    assert same(run(copy, "epochs=3", "resume=true"), straight)
    assert contents(original) == before


def test_a_run_copied_to_the_folder_above_leaves_the_original(straight: Weights, tmp_path: Path) -> None:
    original = tmp_path / "run" / "original"
    with killed_after(2):
        run(original, "epochs=3")
    for path in original.iterdir():
        shutil.copy(path, tmp_path / "run")
    before = contents(original)
    assert same(run(tmp_path / "run", "epochs=3", "resume=true"), straight)
    assert contents(original) == before


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, killed after the second."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    with killed_after(4):
        run(folder, "epochs=3")
    return folder


@pytest.fixture
def copy(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def set_score(score: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for state in content["callbacks"].values():
            if state.get("best_model_score") is not None:
                state["best_model_score"] = score

    return change


def test_a_second_best_file_of_an_older_version_counts_by_its_score(copy: Path) -> None:
    shutil.copy(copy / "best.ckpt", copy / "best-v1.ckpt")
    edit(copy / "best-v1.ckpt", set_score(torch.tensor(0.001)))  # none of the epochs to come is better
    edit(copy / "best-v1.ckpt", lambda content: content["state_dict"]["network.head.conv.bias"].fill_(0.25))
    weights = run(copy, "epochs=3", "resume=true")
    assert (weights["head.conv.bias"] == 0.25).all()
    assert [path.name for path in copy.glob("best*")] == ["best.ckpt"]
    shutil.copy(copy / "best.ckpt", copy / "best-v1.ckpt")
    edit(copy / "best-v1.ckpt", set_score(torch.tensor(9.0)))
    edit(copy / "best-v1.ckpt", lambda content: content["state_dict"]["network.head.conv.bias"].fill_(0.75))
    assert (run(copy, "epochs=3", "resume=true")["head.conv.bias"] == 0.25).all()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no best": (lambda run: (run / "best.ckpt").unlink(), "best.ckpt: is missing beside last.ckpt; copy it too"),
    "another best": (
        lambda run: edit(run / "best.ckpt", set_score(torch.tensor(50.0))),
        "best.ckpt: is of another run",
    ),
    "text for a score": (lambda run: edit(run / "best.ckpt", set_score("low")), "has no readable score"),
    "no scores": (lambda run: edit(run / "last.ckpt", lambda c: c.update(callbacks=[1])), "has no readable score"),
    "truncated last": (
        lambda run: (run / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:-900]),
        "last.ckpt: not a",
    ),
    "empty best": (lambda run: (run / "best.ckpt").write_bytes(b""), "best.ckpt: not a readable checkpoint"),
    "no optimizer": (
        lambda run: edit(run / "last.ckpt", lambda c: c.pop("optimizer_states")),
        "has no optimizer_states",
    ),
    "odd epoch": (lambda run: edit(run / "last.ckpt", lambda c: c.update(epoch="two")), "its epoch is 'two'"),
    "a list": (lambda run: torch.save([1], run / "last.ckpt"), "last.ckpt: holds a list"),
    "NaN": (
        lambda run: edit(run / "best.ckpt", lambda c: c["state_dict"]["network.head.conv.bias"].fill_(torch.nan)),
        "weights that are not finite",
    ),
    "other data": (
        lambda run: edit(run / "last.ckpt", lambda c: c["record"]["data"]["val"].update(fingerprint="f")),
        "last.ckpt: its val split was another one",
    ),
    "other settings": (
        lambda run: edit(run / "best.ckpt", lambda c: c["record"]["config"].update(batch_size=7)),
        "best.ckpt: was trained with batch_size=7",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused_with_the_file_and_stays_as_it_is(damage: str, copy: Path) -> None:
    inflict, message = DAMAGE[damage]
    inflict(copy)
    before = contents(copy)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        run(copy, "epochs=3", "resume=true")
    assert contents(copy) == before


def test_a_folder_that_holds_anything_of_a_run_is_not_overwritten(copy: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        with pytest.raises(ConfigError, match="already holds a run; add resume=true"):
            run(copy, "epochs=3")
        (copy / name).unlink()
    (copy / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="already holds a run"):
        run(copy, "epochs=3")
    with pytest.raises(ConfigError, match="finished run without last.ckpt"):
        run(copy, "epochs=3", "resume=true")


@pytest.mark.parametrize("scheduler", ["one_cycle", "cosine", "plateau"])
def test_a_finished_run_goes_on_with_more_epochs(scheduler: str, tmp_path: Path) -> None:
    rates: list[float] = []
    real = module.AtomicCheckpointIO.save_checkpoint

    def noting(self: Any, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if Path(path).stem == "last":
            rates.append(checkpoint["optimizer_states"][0]["param_groups"][0]["lr"])
        real(self, checkpoint, path, storage_options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.AtomicCheckpointIO, "save_checkpoint", noting)
        run(tmp_path / "straight", "epochs=4", f"scheduler={scheduler}")
        run(tmp_path / "longer", "epochs=2", f"scheduler={scheduler}")
        run(tmp_path / "longer", "epochs=4", f"scheduler={scheduler}", "patience=9", "resume=true")
    assert rates[6:] == pytest.approx(rates[2:4], rel=1e-6), "the schedule is that of the new length"
    record = json.loads((tmp_path / "longer" / "run.json").read_text())
    assert (record["epochs"], record["config"]["epochs"], record["config"]["patience"]) == (4, 4, 9)
    with pytest.raises(ConfigError, match="was trained for 4 epochs; epochs must be at least that, got 3"):
        run(tmp_path / "longer", "epochs=3", f"scheduler={scheduler}", "resume=true")


def test_a_run_that_patience_ended_goes_on_only_with_more_patience(tmp_path: Path) -> None:
    still = ["optimizer.lr=0", "optimizer.weight_decay=0", "scheduler=none", "epochs=9"]

    def trained(*overrides: str) -> int:
        run(tmp_path / "run", *still, *overrides)
        return int(json.loads((tmp_path / "run" / "run.json").read_text())["epochs"])

    assert trained("patience=2") == 3
    assert trained("patience=2", "resume=true") == 3
    assert trained("patience=4", "resume=true") == 5


def test_only_one_process_trains_in_a_folder(copy: Path) -> None:
    code = "import sys, time; from pathlib import Path; from emotion_ai.files import locked_folder\n"
    code += "with locked_folder(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(copy)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        before = contents(copy)
        with pytest.raises(ConfigError, match=r"run: another process writes to this folder; wait for it"):
            run(copy, "epochs=3", "resume=true")
        assert contents(copy) == before
        other.send_signal(signal.SIGKILL)
    (copy / ".best.ckpt.01234567.partial").touch()  # of a killed process
    run(copy, "epochs=3", "resume=true")
    assert {path.name for path in copy.iterdir()} == {"best.ckpt", "last.ckpt", "network.safetensors", "run.json"}


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with locked_folder(tmp_path / "new" / "folder"):
            assert (tmp_path / "new" / "folder").is_dir()
    assert not list((tmp_path / "new" / "folder").iterdir())
