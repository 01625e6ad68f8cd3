"""Weights & Biases: one run a trial, in a group, and one for the answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.results import Results
from gsfl_tune.search.tracking._base import RunInfo, Tracker, TrialRecord, memory, remember
from gsfl_tune.search.tracking.mlflow import answer

_SECTION = "wandb"


class WandbTracker(Tracker):
    """Logs to Weights & Biases, or to files for ``wandb sync`` with ``WANDB_MODE=offline``.

    Ids of its runs are made of the search's id and the trial, so that a resumed search goes on in
    the same runs. What was logged is kept in the run directory too, since files cannot be asked.

    Args:
        project: PROJECT or ENTITY/PROJECT.

    Raises:
        UserError: When it would ask for a key.
    """

    name = "W&B"

    def __init__(self, project: str) -> None:
        entity, _, self._project = project.rpartition("/")
        self._entity = entity or None
        if not self._project or "/" in entity:
            raise UserError(f"--wandb {project}: allowed are PROJECT and ENTITY/PROJECT")
        self._offline = os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun")
        if not self._offline and not _has_key():
            raise UserError(
                "--wandb: there is no key; run `wandb login`, set WANDB_API_KEY, or set "
                "WANDB_MODE=offline to write files for `wandb sync`"
            )
        self._info: RunInfo | None = None
        self._open: dict[str, Any] = {}
        self._logged: dict[str, list[Any]] = {}

    @property
    def secrets(self) -> Sequence[str]:
        """The key, which a message of the client might repeat."""
        key = os.environ.get("WANDB_API_KEY")
        return [key] if key else []

    def open(self, info: RunInfo) -> None:
        """Reads what an earlier driver has logged."""
        self._info = info
        self._logged = dict(memory(info.run).get(_SECTION, {}))

    def trial(self, record: TrialRecord, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Logs what is new of a trial."""
        if self._offline and not record.done:
            return  # the files of one run cannot be continued: a trial is written in one piece
        state, logged = self._logged.get(record.key, ["", 0])
        if (state, logged) == (record.state, len(epochs)):
            return
        if self._offline and state:
            return
        run = self._open.get(record.key) or self._begin(record)
        for epoch in epochs[logged:]:
            numbers = {
                name: value
                for name, value in epoch.items()
                if isinstance(value, int | float) and name != "epoch"
            }
            run.log(numbers, step=int(epoch["epoch"]))
        if record.done:
            self._end(record)
        self._logged[record.key] = [record.state if record.done else "", len(epochs)]
        if record.done:
            self._remember()

    def conclude(self, results: Results) -> None:
        """A run of its own has the experiment and the answer."""
        assert self._info is not None
        if self._logged.get("answer") == ["COMPLETE", 0]:
            return
        run = self._init("answer", f"{self._info.name}: answer", "answer", results.winner.config)
        run.summary.update({**answer(results), "winner": results.winner.trial})
        run.finish()
        self._logged["answer"] = ["COMPLETE", 0]
        self._remember()

    def close(self) -> None:
        """Leaves runs of unfinished trials; they are resumed under the same ids."""
        for run in self._open.values():
            run.finish()
        self._open.clear()
        if self._info is not None:
            self._remember()

    def _begin(self, record: TrialRecord) -> Any:
        name = record.key.replace("-", " ")
        config = {"trial": record.number, **record.params}
        run = self._open[record.key] = self._init(record.key, name, record.study, config)
        return run

    def _end(self, record: TrialRecord) -> None:
        assert self._info is not None
        run = self._open.pop(record.key)
        final = record.final(self._info.metric)
        run.summary.update({"state": record.state, **record.attributes, **final})
        run.finish(exit_code=1 if record.state == "FAIL" else 0)

    def _init(self, key: str, name: str, kind: str, config: Mapping[str, Any]) -> Any:
        import wandb

        assert self._info is not None
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            init_timeout=30,
            finish_timeout=60,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        return wandb.init(
            entity=self._entity,
            project=self._project,
            id=f"{self._info.id}-{key}",
            name=name,
            group=f"{self._info.name}-{self._info.id[:6]}",
            job_type=kind,
            config=dict(config),
            resume=None if self._offline else "allow",
            reinit="create_new",
            settings=settings,
        )

    def _remember(self) -> None:
        assert self._info is not None
        remember(self._info.run, _SECTION, self._logged)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    # Looks into files, and asks neither the user nor the server.
    return wandb.login(prompt=False, verify=False)
