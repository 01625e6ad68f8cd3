"""A trial of two processes: three ways to start them, and what dividing a batch gives and costs.

The ways, each inside an actor that has torch imported, as that of a search has:

- processes that the trial starts beside itself (this project's way);
- rank actors in a placement group of the trial;
- Ray Train's `TorchTrainer` inside the trial.

All train the same network (ResNet-10-T at 64 px, random images) with two gloo ranks of one thread
each. The first two add up gradients by one all-reduce after the backward pass, the third uses
torch's DistributedDataParallel, as Ray Train's users do. `start` is the time from the trial's
decision to the end of its first step; `again` the same for the next trial of the same actor,
which keeps its processes where it can; `end` the time from the last step to the result in the
trial's hands. A step of one process is timed beside them, of the whole batch and of half of it.

The second table is a step of the head alone, by one process and by two. The third is an epoch of
the finetune stage as a search trains it (augmentation, GSFL terms, centres, shared batch norms,
validation), by one process and by two, in turn.

Ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from benchmarks._report import publish, table
from benchmarks._space import experiment
from gsfl_tune.cluster import ray_session
from gsfl_tune.training.process_group import Ranks

BATCH, SIDE, CLASSES = 32, 64, 50
CPU = torch.device("cpu")


def network() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=CLASSES)


def steps_of(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    count: int,
    add_up: Callable[[list[Tensor]], None] = lambda gradients: None,
) -> dict[str, Any]:
    """Trains; when the first step ended, when the last one did, and seconds of all after the
    first two."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, fused=True)
    ends = []
    for _ in range(count):
        torch.nn.functional.cross_entropy(module(inputs), labels).backward()
        add_up([p.grad for p in module.parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ends.append(time.time())
    seconds = [b - a for a, b in itertools.pairwise(ends[1:])]
    return {"first": ends[0], "last": ends[-1], "steps": seconds}


def images(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, 3, SIDE, SIDE, generator=generator),
        torch.randint(CLASSES, (count,), generator=generator),
    )


def rank_work(rank: int, meeting: str, count: int) -> dict[str, Any]:
    """What a rank of the first two ways does."""
    torch.set_num_threads(1)
    ranks = Ranks(rank, 2, Path(meeting), CPU)
    measured = steps_of(network(), *images(BATCH // 2), count, ranks.add_up)
    ranks.close()
    return measured


def child() -> None:
    """Rank 1 as a process of its own: one training a line of its input."""
    for line in sys.stdin:
        task = json.loads(line)
        rank_work(1, task["meeting"], task["count"])


def train_loop(config: dict[str, Any]) -> None:
    """A rank of Ray Train."""
    import ray.train
    import ray.train.torch

    torch.set_num_threads(1)
    module = ray.train.torch.prepare_model(network())
    measured = steps_of(module, *images(BATCH // 2), config["count"])
    if ray.train.get_context().get_world_rank() == 0:
        Path(config["file"]).write_text(json.dumps(measured))
    ray.train.report({"loss": 0.0})


class Trial:
    """The actor of a trial."""

    def __init__(self) -> None:
        network()
        self._child: subprocess.Popen[str] | None = None
        self._actor: Any = None

    def alone(self, batch: int, count: int) -> dict[str, Any]:
        torch.set_num_threads(1)
        return steps_of(network(), *images(batch), count)

    def processes(self, count: int) -> dict[str, Any]:
        started = time.time()
        if self._child is None:
            command = [sys.executable, __file__, "--child"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, env=environment, text=True
            )
        with tempfile.TemporaryDirectory() as folder:
            meeting = f"{folder}/meeting"
            assert self._child.stdin is not None
            self._child.stdin.write(json.dumps({"meeting": meeting, "count": count}) + "\n")
            self._child.stdin.flush()
            measured = rank_work(0, meeting, count)
        return {**measured, "began": started, "ended": time.time()}

    def actors(self, count: int) -> dict[str, Any]:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        started = time.time()
        if self._actor is None:
            group = placement_group([{"CPU": 1}], strategy="STRICT_PACK")
            ray.get(group.ready())
            strategy = PlacementGroupSchedulingStrategy(group)
            self._actor = (
                ray.remote(Rank).options(num_cpus=1, scheduling_strategy=strategy).remote()
            )
        with tempfile.TemporaryDirectory() as folder:
            meeting = f"{folder}/meeting"
            other = self._actor.work.remote(meeting, count)
            measured = rank_work(0, meeting, count)
            ray.get(other)
        return {**measured, "began": started, "ended": time.time()}

    def trainer(self, count: int) -> dict[str, Any]:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        started = time.time()
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/measured.json"
            TorchTrainer(
                train_loop,
                train_loop_config={"count": count, "file": file},
                scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
                run_config=RunConfig(storage_path=folder, name="run"),
            ).fit()
            ended = time.time()
            measured = json.loads(Path(file).read_text())
        return {**measured, "began": started, "ended": ended}

    def head(self, dim: int, latent: int, count: int, rank: int, meeting: str) -> list[float]:
        """Steps of a head of two encoders on features, by one process (rank -1) or two."""
        torch.set_num_threads(1)
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Linear(dim, 2 * latent), nn.ReLU(), nn.Linear(2 * latent, latent), nn.ReLU(),
            nn.Linear(latent, CLASSES),
        )  # fmt: skip
        ranks = Ranks(rank, 2, Path(meeting), CPU) if rank >= 0 else None
        size = 64 if ranks is None else 32
        labels = torch.zeros(size, dtype=torch.int64)
        options = {} if ranks is None else {"add_up": ranks.add_up}
        measured = steps_of(module, torch.randn(size, dim), labels, count, **options)
        if ranks is not None:
            ranks.close()
        return measured["steps"]


class Rank:
    """The actor of rank 1."""

    def __init__(self) -> None:
        network()

    def work(self, meeting: str, count: int) -> None:
        rank_work(1, meeting, count)


def ways(rounds: int, count: int) -> str:
    import ray

    found: dict[str, dict[str, list[float]]] = {}
    alone: dict[int, list[float]] = {BATCH: [], BATCH // 2: []}
    for _ in range(rounds):
        for name in ("processes", "actors", "trainer"):
            trial = ray.remote(Trial).options(num_cpus=1).remote()
            for size in alone if name == "processes" else ():
                alone[size] += ray.get(trial.alone.remote(size, count))["steps"]
            kept = found.setdefault(name, {"start": [], "again": [], "steps": [], "end": []})
            for when in ("start", "again"):
                measured = ray.get(getattr(trial, name).remote(count))
                kept[when].append(measured["first"] - measured["began"])
                kept["end"].append(measured["ended"] - measured["last"])
                kept["steps"] += measured["steps"]
            ray.kill(trial)
    titles = {
        "processes": "processes of the trial",
        "actors": "rank actors in a placement group",
        "trainer": "`TorchTrainer` in the trial",
    }
    whole, half = (1000 * statistics.median(values) for values in alone.values())
    first = {key: statistics.median(value) for key, value in found["processes"].items()}
    rows = []
    for name, title in titles.items():
        median = {key: statistics.median(value) for key, value in found[name].items()}
        rows.append(
            [
                title,
                f"{median['start']:.1f}",
                f"{median['start'] / first['start']:.1f}",
                f"{median['again']:.2f}",
                f"{1000 * median['steps']:.0f}",
                f"{1000 * median['steps'] - half:.0f}",
                f"{median['steps'] / first['steps']:.2f}",
                f"{median['end']:.2f}",
            ]
        )
    header = [
        "two ranks", "start, s", "ratio", "again, s", "step, ms", "over half a batch, ms",
        "ratio", "end, s",
    ]  # fmt: skip
    text = f"\n\nOne process: {whole:.0f} ms for the whole batch of {BATCH}, {half:.0f} for half."
    return table(header, rows) + text


def heads(count: int) -> str:
    import ray

    trials = [ray.remote(Trial).options(num_cpus=1).remote() for _ in range(2)]
    rows = []
    for dim, latent in ((1280, 512), (8192, 2048)):
        one = ray.get(trials[0].head.remote(dim, latent, count, -1, ""))
        with tempfile.TemporaryDirectory() as folder:
            both = [
                trial.head.remote(dim, latent, count, rank, f"{folder}/meeting")
                for rank, trial in enumerate(trials)
            ]
            two = ray.get(both)[0]
        alone, together = (1000 * statistics.median(values) for values in (one, two))
        row = [f"{dim}, {latent}", f"{alone:.1f}", f"{together:.1f}", f"{together / alone:.2f}"]
        rows.append(row)
    for trial in trials:
        ray.kill(trial)
    return table(["head, D and H", "one process, ms", "two, ms", "ratio"], rows)


def epochs(rounds: int, count: int) -> str:
    """Finetune epochs of the product, of one process and of two in turn."""
    from gsfl_tune.search.workers.rank_pool import RankProcesses
    from gsfl_tune.training import Training, Workspace

    torch.set_num_threads(1)
    config = experiment(
        "model.backbone=resnet10t",
        "model.weights=none",
        f"data.image_size={SIDE}",
        "data.typefaces.train=20",
        "training.head.epochs=0",
        f"training.finetune.epochs={2 * rounds * count + 2}",
        f"training.finetune.batch_size={BATCH}",
    ).defaults()
    team = RankProcesses(2)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = Workspace.open(config.data, cache_dir=folder / "cache", device=CPU)
        trainings = {
            False: Training(config, workspace, folder / "one"),
            True: Training(config, workspace, folder / "two", team=team),
        }
        for training in trainings.values():
            training.run_epoch()
        for _ in range(rounds):
            for together, training in trainings.items():
                seconds[together] += [training.run_epoch()["seconds"] for _ in range(count)]
        trainings[True].close()
    team.dismiss()
    one, two = (1000 * statistics.median(values) for values in seconds.values())
    row = [len(workspace.dataset.train_index), f"{one:.0f}", f"{two:.0f}", f"{one / two:.2f}"]
    return table(["images an epoch", "one process, ms", "two, ms", "times as fast"], [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, nothing saved")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child()
        return
    rounds, count = (1, 5) if options.quick else (options.rounds, 20)
    # What actors run must be importable for them: Ray would pickle `__main__` by value.
    root = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    from benchmarks.ranks import heads, ways

    # Room to spare: with little of it a trainer once waited without end for a group, probably while
    # that of a killed actor had not been given back.
    with ray_session(cpus=4 * 3 * rounds):
        text = f"{ways(rounds, count)}\n\n{heads(count)}"
    text += f"\n\n{epochs(rounds, 1 if options.quick else 5)}"
    publish("ranks", "A trial of two processes", text, save=not options.quick)


if __name__ == "__main__":
    main()
