"""The Weights & Biases tracker: one run per trial, in a group, and one for the answer."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.results import Results
from gsfl_tune.search.observers.tracking._base import (
    RunInfo,
    Tracker,
    TrialRecord,
    memory,
    remember,
)
from gsfl_tune.search.observers.tracking.mlflow import answer

_SECTION = "wandb"
_ANSWER = "answer"
# In the summary of the answer; a resumed search may have another one.
_DIGEST = "digest"


class WandbTracker(Tracker):
    """Logs to Weights & Biases, or to files for ``wandb sync`` with ``WANDB_MODE=offline``.

    Run ids are made of the search's id and the trial, so that a resumed search continues the same
    runs. Fully logged trials are recorded in the run directory, since offline files cannot be
    queried. An online server is queried, and missing data is logged again. Offline, a partly logged
    trial is written again, so that ``wandb sync`` finds one folder for it.

    Args:
        project: PROJECT or ENTITY/PROJECT.

    Raises:
        UserError: When it would have to ask for a key.
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
        # The last logged epoch of each open run.
        self._steps: dict[str, int] = {}

    @property
    def secrets(self) -> Sequence[str]:
        """Returns the key, which a message of the client might repeat."""
        key = os.environ.get("WANDB_API_KEY")
        return [key] if key else []

    def open(self, info: RunInfo) -> None:
        """Reads what an earlier driver has logged, and asks an online server to confirm it."""
        self._info = info
        self._logged = dict(memory(info.run).get(_SECTION, {}))
        if self._logged and not self._offline:
            there = self._on_the_server()
            self._logged = {
                key: noted
                for key, noted in self._logged.items()
                if is_there(noted, there.get(f"{info.id}-{key}"))
            }

    def trial(self, record: TrialRecord, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Logs new data of a trial."""
        if self._offline and not record.done:
            return  # offline files cannot be continued: a trial is written in one piece
        state, logged = self._logged.get(record.key, ["", 0])
        if (state, logged) == (record.state, len(epochs)):
            return
        if self._offline and state and logged >= len(epochs):
            return
        with self._whole(record.key):
            run = self._open.get(record.key) or self._begin(record)
            for epoch in epochs:
                if int(epoch["epoch"]) <= self._steps[record.key]:
                    continue
                numbers = {
                    name: value
                    for name, value in epoch.items()
                    if isinstance(value, int | float) and name != "epoch"
                }
                run.log(numbers, step=int(epoch["epoch"]))
                self._steps[record.key] = int(epoch["epoch"])
            if record.done:
                self._end(record, run, len(epochs))
        self._logged[record.key] = [record.state if record.done else "", len(epochs)]
        if record.done:
            self._remember()

    def conclude(self, results: Results) -> None:
        """Logs the experiment and the answer in a run of its own."""
        assert self._info is not None
        found = {**answer(results), "winner": results.winner.trial}
        digest = _digest(found, results.winner.config)
        if self._logged.get(_ANSWER) == ["COMPLETE", digest]:
            return
        name = f"{self._info.name}: answer"
        with self._whole(_ANSWER):
            run = self._init(_ANSWER, name, "answer", results.winner.config)
            # A run that is resumed for a new answer would keep the old configuration.
            run.config.update(results.winner.config, allow_val_change=True)
            run.summary.update({**found, _DIGEST: digest})
            run.finish()
            del self._open[_ANSWER]
        self._logged[_ANSWER] = ["COMPLETE", digest]
        self._remember()

    def close(self) -> None:
        """Leaves runs of unfinished trials; they are resumed under the same ids."""
        for run in self._open.values():
            run.finish()
        self._open.clear()
        if self._info is not None:
            self._remember()

    @contextmanager
    def _whole(self, key: str) -> Iterator[None]:
        """Closes a run after an error, so that the next try begins it again."""
        try:
            yield
        except BaseException:
            run = self._open.pop(key, None)
            if run is not None:
                with suppress(Exception):
                    run.finish(exit_code=1)
            raise

    def _begin(self, record: TrialRecord) -> Any:
        name = record.key.replace("-", " ")
        config = {"trial": record.number, **record.params}
        run = self._init(record.key, name, record.study, config)
        # The server's own step counts for a resumed run, not the record of an earlier driver.
        self._steps[record.key] = max(0, int(run.starting_step) - 1)
        return run

    def _end(self, record: TrialRecord, run: Any, epochs: int) -> None:
        assert self._info is not None
        final = record.final(self._info.metric)
        # A run that is resumed and gets no further epoch loses the step in its summary.
        known = {"state": record.state, "epochs": epochs}
        run.summary.update({**known, **record.attributes, **final})
        run.finish(exit_code=1 if record.state == "FAIL" else 0)
        del self._open[record.key]

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
        if self._offline:
            for folder in _folders(f"{self._info.id}-{key}"):
                shutil.rmtree(folder)
        run = self._open[key] = wandb.init(
            entity=self._entity,
            project=self._project,
            id=f"{self._info.id}-{key}",
            name=name,
            group=self._group,
            job_type=kind,
            config=dict(config),
            resume=None if self._offline else "allow",
            reinit="create_new",
            settings=settings,
        )
        return run

    @property
    def _group(self) -> str:
        assert self._info is not None
        return f"{self._info.name}-{self._info.id[:6]}"

    def _on_the_server(self) -> dict[str, Mapping[str, Any]]:
        """Returns the summary of every run of this search, by id."""
        import wandb

        api = wandb.Api(timeout=20)
        path = f"{self._entity or api.default_entity}/{self._project}"
        try:
            found = api.runs(path, filters={"group": self._group}, lazy=False)
            return {run.id: dict(run.summary) for run in found}
        except ValueError:
            return {}  # the project does not exist yet

    def _remember(self) -> None:
        assert self._info is not None
        remember(self._info.run, _SECTION, self._logged)


def is_there(noted: Sequence[Any], summary: Mapping[str, Any] | None) -> bool:
    """Returns whether a server has what a driver has recorded as logged.

    Args:
        noted: State (empty for a running trial) and number of epochs; of the answer, its digest.
        summary: Summary of the run there, with its last step as ``_step`` or, once it has ended,
            its number of epochs; None without a run.
    """
    if summary is None:
        return False
    state, epochs = noted
    if isinstance(epochs, str):
        return bool(summary.get(_DIGEST) == epochs)
    named = summary.get("state", "COMPLETE" if "winner" in summary else "")
    there = max(int(summary.get("_step", 0)), int(summary.get("epochs", 0)))
    return there >= epochs and (not state or named == state)


def _digest(*content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _folders(run_id: str) -> list[Path]:
    """Returns the folders that were written offline for a run."""
    import wandb

    return list(Path(wandb.setup().settings.wandb_dir).glob(f"offline-run-*-{run_id}"))


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    # Reads files only; asks neither the user nor the server.
    return wandb.login(prompt=False, verify=False)
