"""Samplers and schedulers against each other, on recorded learning curves in simulated time.

    python -m benchmarks.replay            # all of it
    python -m benchmarks.replay --quick    # a smoke run: a few searches, nothing is written

The curves in ``tables/`` were recorded once (`record.py`). A surrogate (`surrogate.py`) says what
training would give between the recorded configurations; 1, 4, 16 or 64 simulated workers
take up to 100 trials (`simulate.py`) that a sampler of the product proposes and a scheduler
stops. All settings get five seeds, the best six twenty. Regret is the difference between the
highest accuracy there is to find and that of the best finished trial, both without chance; it
is given in % of the difference between the best and the median configuration of a data set,
against the training that was spent, in full trainings of an average configuration (the
simulated time is that divided by the workers).

What is fair: all settings of one seed share the chance in their trials and the first ten random
ones of every TPE; the sampler is the product's own (`create_sampler`), and so is ASHA.

All of it takes some three hours of one core, two of them the GP sampler's; on slower machines it
was four times that. A run that was stopped goes on where it was, and the results are kept in
``results.parquet``: with ``--go-on`` only what these lack is simulated.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

# Before numpy is loaded: a process each, and small matrices.
os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks._report import publish, table
from benchmarks.replay import report
from benchmarks.replay.fit import cross_validate, early_ranks
from benchmarks.replay.runs import (
    ANYWHERE,
    BASELINE,
    DEFAULT,
    WORKERS,
    finals,
    finished,
    go_on,
    gp_runs,
    runs,
    screening,
    simulate_all,
    write,
)
from benchmarks.replay.schedulers import SCHEDULERS, SchedulerName
from benchmarks.replay.simulate import Setting
from benchmarks.replay.spaces import DATASETS
from benchmarks.replay.surrogate import Processes, Surrogate
from benchmarks.replay.tables import Curves

HERE = Path(__file__).parent
RESULTS = HERE / "results.parquet"
PLOT = HERE.parents[1] / "docs" / "images" / "replay.png"
BEST = 6


def open_surrogates(work: Path) -> dict[str, Surrogate]:
    """Surrogates of all data sets; fits are kept in `work`."""
    found = {}
    for name in DATASETS:
        curves = Curves.load(name)
        path = work / f"{name}-{len(curves.index)}.npz"
        processes = Processes.load(path) if path.exists() else None
        found[name] = Surrogate(name, curves, processes=processes)
        if processes is None:
            work.mkdir(parents=True, exist_ok=True)
            found[name].processes.save(path)
    return found


def fit_tables(surrogates: dict[str, Surrogate]) -> str:
    """How well the surrogate fits."""
    lines, ranks = [], []
    for name, surrogate in surrogates.items():
        for model, epoch, *values in cross_validate(surrogate):
            r2, error, rank, top = (f"{value:.3f}" for value in values)
            lines.append([name, model, epoch, r2, error, rank, top])
        for epoch, recorded, simulated in early_ranks(surrogate):
            ranks.append([name, epoch, f"{recorded:.2f}", f"{simulated:.2f}"])
    header = [
        "data",
        "model",
        "epoch",
        "R2",
        "mean error",
        "rank correlation",
        "in the better half",
    ]
    early = table(["data", "epoch", "recorded", "simulated"], ranks)
    return f"{table(header, lines)}\n\n{early}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "gsfl-replay")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seeds", type=int, default=5, help="of every setting")
    parser.add_argument("--final-seeds", type=int, default=20, help="of the best six")
    parser.add_argument("--no-fit", action="store_true", help="leave out the cross-validation")
    parser.add_argument("--no-gp", action="store_true", help="leave out the GP sampler")
    parser.add_argument(
        "--go-on", action="store_true", help="keep the published results, simulate what they lack"
    )
    parser.add_argument(
        "--so-far", action="store_true", help="report the runs that there are, simulate nothing"
    )
    args = parser.parse_args()
    # What the report says was run.
    sys.argv = ["-m", "benchmarks.replay"]
    surrogates = open_surrogates(args.work)
    log = args.work / "runs.jsonl"
    if args.quick:
        chosen = [Setting(s, BASELINE, trials=20) for s in ("random", "mtpe")]
        jobs = list(runs(chosen, range(1)))
        rows = simulate_all(jobs, surrogates, args.work / "quick.jsonl", args.processes)
        publish("replay", "Replay (smoke run)", report.main_table(rows, 4), save=False)
        return
    if args.go_on:
        go_on(log, RESULTS)
    if not args.so_far:
        _simulate(surrogates, log, args)
    # Whatever is there: earlier runs may have given twenty seeds to others too.
    rows = finished(log)
    _publish(rows, _best(rows, args), surrogates, args)


def _simulate(surrogates: dict[str, Surrogate], log: Path, args: argparse.Namespace) -> None:
    rows = simulate_all(list(runs(screening(), range(args.seeds))), surrogates, log, args.processes)
    if not args.no_gp:
        rows += simulate_all(gp_runs(range(args.seeds)), surrogates, log, args.processes)
    names = {one.text: one for one in SCHEDULERS}
    again = [(sampler, names[text]) for sampler, text in _best(rows, args)]
    wanted = (("mtpe", BASELINE), DEFAULT, ANYWHERE, ("mtpe", DEFAULT[1]))
    again += [one for one in wanted if one not in again]
    extra = list(runs(finals(again), range(args.seeds, args.final_seeds)))
    simulate_all(extra, surrogates, log, args.processes)


def _best(rows: list[report.Row], args: argparse.Namespace) -> list[report.Combination]:
    """The six that are best with the seeds that all have."""
    return report.ranking([row for row in rows if row["seed"] < args.seeds])[:BEST]


def _publish(
    rows: list[report.Row],
    best: list[report.Combination],
    surrogates: dict[str, Surrogate],
    args: argparse.Namespace,
) -> None:
    write(rows, RESULTS)
    report.plot(rows, [*best, *(c for c in _landmarks() if c not in best)], PLOT)
    publish("replay", "Replay: samplers and schedulers", _page(rows, best, surrogates, args))


def _landmarks() -> list[report.Combination]:
    base, default = BASELINE.text, DEFAULT[1].text
    return [
        (DEFAULT[0], default),
        ("mtpe", base),
        ("random", base),
        ("tpe", "none"),
        ("random", "none"),
    ]


def _page(
    rows: list[report.Row],
    best: list[report.Combination],
    surrogates: dict[str, Surrogate],
    args: argparse.Namespace,
) -> str:
    few = [row for row in rows if row["seed"] < args.seeds]
    more = {report.combination(row) for row in rows if row["seed"] >= args.seeds}
    # In the order of all their seeds.
    shown = [name for name in report.ranking(rows) if name in {*best, *more, *_landmarks()}]
    parts = [
        f"{len(rows):,} simulated searches. "
        "Regret in % of (best - median), means ± standard errors: the mean from 5 (or the first "
        "finished trials) to 100 full trainings spent, at some of these, and at the end of 100 "
        "trials; `spent` is the training that these took, `finished` how many trials came to "
        "their end, `time` how long it took, in full trainings.",
        "## The best, by workers and by data set",
        "The best six of five seeds, and what they are compared with, best first. "
        "The last three columns are regret at the end in points of accuracy.",
        report.workers_table(rows, shown),
        "## One thing changed at a time",
        report.pairs_table(rows, _pairs()),
    ]
    for workers in WORKERS:
        parts += [f"## {workers} workers: all combinations", report.main_table(few, workers)]
    if any(row["sampler"] == "gp" for row in rows):
        parts += [
            "## The GP sampler, not TPE alone",
            "The same data, seeds, workers and schedulers; "
            "schedulers with twenty seeds weigh most in the first rows.",
            report.pairs_table(rows, _gp_pairs()),
        ]
    if not args.no_fit:
        parts += [
            "## The surrogate",
            "Five-fold cross-validation; then the rank correlation of early epochs with the last, "
            "in the better half of the configurations.",
            fit_tables(surrogates),
        ]
    return "\n\n".join(parts)


def _gp_pairs() -> list[tuple[str, report.Row, report.Row]]:
    def pair(text: str, **fixed: object) -> tuple[str, report.Row, report.Row]:
        return text, {"sampler": "gp", **fixed}, {"sampler": "tpe", **fixed}

    return [
        pair("all schedulers"),
        *(pair(f"{workers} workers", workers=workers) for workers in WORKERS),
        *(pair(one.text, scheduler=one.text) for one in SCHEDULERS),
    ]


def _pairs() -> list[tuple[str, report.Row, report.Row]]:
    base = {"sampler": "mtpe", "scheduler": BASELINE.text}
    early = {"sampler": "mtpe", "scheduler": SchedulerName("asha", 1, 3).text}
    none = {"sampler": "mtpe", "scheduler": "none"}

    def asha(*settings: int) -> str:
        return SchedulerName("asha", *settings).text

    chance = {"sampler": "random", "scheduler": BASELINE.text}
    default = {"sampler": DEFAULT[0], "scheduler": DEFAULT[1].text}
    anywhere = {"sampler": ANYWHERE[0], "scheduler": ANYWHERE[1].text}
    poor = {"defaults": "random"}

    def joint(setting: report.Row) -> report.Row:
        return setting | {"sampler": "mtpe"}

    alone = [
        (f"TPE alone, not multivariate ({text})", setting, joint(setting))
        for text, setting in (
            ("grace 5 and reduction 2", anywhere),
            ("median rule", anywhere | {"scheduler": "median"}),
            ("no scheduler", anywhere | {"scheduler": "none"}),
        )
    ]
    near = [
        (
            f"half of the start near the defaults, not anywhere ({text})",
            default | more,
            anywhere | more,
        )
        for text, more in (
            ("grace 5 and reduction 2", {}),
            ("the same, random defaults", poor),
            ("no scheduler", {"scheduler": "none"}),
        )
    ]
    return [
        *near,
        *alone,
        (
            "the default, not random search with its scheduler",
            default,
            default | {"sampler": "random"},
        ),
        ("the default, not GP with its scheduler", default, default | {"sampler": "gp"}),
        ("the default, not GP with grace 3 and reduction 3", default, base | {"sampler": "gp"}),
        ("the default, not multivariate TPE with grace 3 and reduction 3", default, base),
        (
            "the default, not with three brackets of grace 3 and reduction 3",
            default,
            default | {"scheduler": asha(3, 3, 3)},
        ),
        ("the default asked one trial ahead", default | {"ahead": True}, default),
        ("the default with a history of 30 trials", default | {"history": 30}, default),
        ("the default with a history of 60 trials", default | {"history": 60}, default),
        ("stopped trials told COMPLETE, not PRUNED", base | {"told": "complete"}, base),
        ("stopped trials not told, not PRUNED", base | {"told": "nothing"}, base),
        ("COMPLETE, not PRUNED (grace 1)", early | {"told": "complete"}, early),
        ("not told, not PRUNED (grace 1)", early | {"told": "nothing"}, early),
        ("multivariate TPE, not TPE alone", base, base | {"sampler": "tpe"}),
        ("multivariate TPE, not random", base, chance),
        ("ASHA, not none", base, none),
        ("grace 1, not 3", early, base),
        ("reduction 2, not 3", base | {"scheduler": asha(3, 2)}, base),
        ("grace 5 and reduction 2", base | {"scheduler": asha(5, 2)}, base),
        ("grace 5, not 3", base | {"scheduler": asha(5, 3)}, base),
        ("2 brackets, not 1", base | {"scheduler": asha(3, 3, 2)}, base),
        ("median rule, not ASHA", base | {"scheduler": "median"}, base),
        ("random and grace 1, not random", chance | {"scheduler": asha(1, 3)}, chance),
        ("ASHA, not none (random)", chance, chance | {"scheduler": "none"}),
        ("no protected defaults", base | {"protected": False}, base),
        ("no protected defaults (random)", chance | {"protected": False}, chance),
        ("no protected defaults (no scheduler)", none | {"protected": False}, none),
        ("asked one trial ahead", base | {"ahead": True}, base),
        ("240 trials, not 100", base | {"trials": 240}, base),
        ("240 trials, not 100 without ASHA", base | {"trials": 240}, none | {"workers": 4}),
        ("240 trials, not 100 (random)", chance | {"trials": 240}, chance),
        ("history of 30 trials", base | {"history": 30}, base),
    ]


if __name__ == "__main__":
    main()
