"""What a time budget is spent on: the plans of `search_spaces/image_folder.yaml` for some budgets.

The machine is measured once, as a search does it before its first trial; then every budget is
planned. Nothing else may run meanwhile.

    python benchmarks/plans.py --data grocery --minutes 10 40 240     # two minutes
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from _photos import parquet_files
from _report import publish

from gsfl_tune.cluster import ray_session, slots
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search import TrialCosts, plan_time
from gsfl_tune.training import Workspace
from gsfl_tune.training.fit_groups import fit_groups

TEMPLATE = Path(__file__).parents[1] / "search_spaces" / "image_folder.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["grocery", "clothing"], default="grocery")
    parser.add_argument("--minutes", nargs="+", type=float, default=[10, 40, 240])
    args = parser.parse_args()
    paths = json.dumps([str(path) for path in parquet_files(args.data).values()])
    data = ["data.source=parquet", f"data.path={paths}"]
    parts = []
    with ray_session(None):
        for minutes in args.minutes:
            started = time.monotonic()
            budget = f"search.time_budget={60 * minutes:.0f}s"
            experiment = Experiment.load(TEMPLATE, overrides=[*data, budget])
            workspace = Workspace.open(experiment.defaults().data)
            experiment = fit_groups(experiment, workspace)
            search = experiment.defaults().search
            resources = slots(search.resources, search.max_concurrent)
            costs = TrialCosts.of(workspace.dataset)
            try:
                plan = plan_time(
                    experiment, workspace, resources, costs, spent=time.monotonic() - started
                )
                assert plan is not None
                text = "\n".join(plan.lines())
            except UserError as error:
                text = str(error)
            parts.append(f"```\n{text}\n```")
    publish("plans", f"Plans for {args.data}", "\n\n".join(parts))


if __name__ == "__main__":
    main()
