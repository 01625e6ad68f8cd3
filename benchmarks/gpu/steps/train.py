"""``gsfl-tune train`` with a finetune stage, end to end; and one that is killed and goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size

ROOT = Path(__file__).parents[3]


def run(record: Record, size: Size) -> None:
    """Asserts exit codes and epochs."""
    head, finetune = size.of(10, 1), size.of(4, 2)
    whole, killed = size.folder / "train-whole", size.folder / "train-killed"
    started = time.perf_counter()
    done = subprocess.run(_command(size, whole, head, finetune), cwd=ROOT, check=False)
    seconds = time.perf_counter() - started
    record.check("exit code", done.returncode == 0, str(done.returncode), "0")
    epochs = _epochs(whole)
    expected = [(e + 1, "head" if e < head else "finetune") for e in range(head + finetune)]
    record.check(
        "epochs", [x[:2] for x in epochs] == expected, str(len(epochs)), str(len(expected))
    )
    record.value("wall clock", f"{seconds:.1f} s")

    process = subprocess.Popen(_command(size, killed, head, finetune), cwd=ROOT)
    try:
        while len(_epochs(killed)) < head + 1 and process.poll() is None:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        code = process.wait()
    before = len(_epochs(killed))
    record.check(
        "killed in the finetune stage",
        code == -signal.SIGKILL and before < head + finetune,
        f"after {before} epochs",
        f"before {head + finetune}",
    )
    done = subprocess.run(_command(size, killed, head, finetune), cwd=ROOT, check=False)
    record.check("exit code of what goes on", done.returncode == 0, str(done.returncode), "0")
    again = _epochs(killed)
    record.check(
        "epochs of both together", [x[:2] for x in again] == expected, str(len(again)), "the same"
    )
    apart = max(abs(a[2] - b[2]) for a, b in zip(again, epochs, strict=True))
    record.at_most("training losses of both, largest difference", apart, 0.05)
    record.value("validation accuracy, both", f"{epochs[-1][3]:.4f}, {again[-1][3]:.4f}")


def _command(size: Size, directory: Path, head: int, finetune: int) -> list[str]:
    settings = {
        "training.head.epochs": head,
        "training.finetune.epochs": finetune,
        "training.device": size.device.type,
        "data.image_size": size.of(96, 32),
    }
    if size.tiny:
        settings |= {
            "data.typefaces.train": 6,
            "data.typefaces.test": 2,
            "model.backbone": "test_efficientnet",
            "model.weights": "none",
        }
    elif size.weights() == "none":
        settings |= {"model.weights": "none"}
    options = [f"--set={key}={value}" for key, value in settings.items()]
    file = ROOT / "search_spaces" / "typefaces.yaml"
    return [
        sys.executable, "-m", "gsfl_tune", "train", str(file), "--dir", str(directory), *options
    ]  # fmt: skip


def _epochs(directory: Path) -> list[tuple[int, str, float, float]]:
    """Epoch, stage, training loss and validation accuracy of every complete line."""
    file = directory / "epochs.jsonl"
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # it is being written
            continue
        rows.append((row["epoch"], row["stage"], row["train/loss"], row["validation/accuracy"]))
    return rows
