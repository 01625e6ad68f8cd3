"""The directory of a pretraining: what began there, and what may go on there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.metrics import VALIDATION
from gsfl_tune.run import EpochLog, RunDirectory, read_json, write_json, write_text
from gsfl_tune.run.layout import CHECKPOINT_FILE, EPOCHS_FILE
from gsfl_tune.training.pretrain import pretraining_settings

WEIGHTS_FILE = "backbone.safetensors"
PAGE_FILE = "pretraining.html"
_MAPS_FILE = "maps-before.npy"
_FACTS_FILE = "pretrain.json"


class PretrainingDirectory:
    """Holds the files of a pretraining, and refuses to mix them with those of another one.

    Args:
        path: The directory.

    Attributes:
        log: Records of the epochs.
        weights: The result.
        page: The page about it.
        maps: Pictures of the backbone before its training.
        checkpoint: State of an unfinished training.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = EpochLog(path / EPOCHS_FILE)
        self.weights = path / WEIGHTS_FILE
        self.page = path / PAGE_FILE
        self.maps = path / _MAPS_FILE
        self.checkpoint = path / CHECKPOINT_FILE
        self._run = RunDirectory(path)
        self._file = path / _FACTS_FILE
        self._known: dict[str, Any] = {}

    def open(self, config: Config, *, resume: bool) -> None:
        """Reads what began there; writes nothing.

        Args:
            config: The configuration.
            resume: Whether to continue it.

        Raises:
            UserError: If there is something else, nothing to continue, or a pretraining that is not
                to be continued or has other settings.
        """
        self._known = {}
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: found a file, allowed a directory")
        if not self._file.exists():
            if resume:
                raise UserError(f"{self.path}: found no pretraining, allowed without --resume")
            self._refuse_others()
            return
        if not self._trained():
            return
        if not resume:
            raise UserError(
                f"{self.path}: found a pretraining, allowed with --resume, or another --run-dir"
            )
        self._known = read_json(self._file)
        self._refuse_changes(self._known["settings"], _settings(config))

    @property
    def precision(self) -> str | None:
        """Returns what ``training.precision: auto`` was when it began, or None."""
        return self._known.get("key", {}).get("training.precision")

    def refuse_change(self, images: str, key: str, parts: dict[str, Any]) -> None:
        """Refuses to continue what would give other weights.

        Args:
            images: Digest of the images.
            key: Name of the pretraining.
            parts: What the key holds beside images and settings; files of older versions lack it.

        Raises:
            UserError: With a line for each difference.
        """
        if self._known.get("images", images) != images:
            raise UserError(
                f"{self.path}: holds a pretraining on other images, allowed with --resume are the "
                "same ones; another --run-dir begins anew"
            )
        self._refuse_changes(self._known.get("key", parts), parts)
        if self._known and self._weights_key() not in (None, key):
            raise UserError(
                f"{self.weights}: found weights of another pretraining, allowed another --run-dir"
            )

    def begin(
        self, experiment: Experiment, config: Config, images: str, parts: dict[str, Any]
    ) -> None:
        """Writes what a resume must not change."""
        facts = {"settings": _settings(config), "images": images, "key": parts}
        # First: without it, the other files would be those of something else.
        write_json(self._file, facts)
        write_text(self._run.experiment_file, experiment.to_yaml())

    def complete(self, config: Config) -> bool:
        """Returns whether the log has all that is known at the end."""
        records = self.log.read()
        last = records[-1] if records else {"epoch": -1}
        judged = any(name.startswith(VALIDATION) for name in last)
        return bool(last["epoch"] == config.pretrain.epochs and judged)

    def has_result(self, config: Config, key: str) -> bool:
        """Returns whether a pretraining is finished here."""
        return self.complete(config) and self._weights_key() == key

    def _trained(self) -> bool:
        """Returns whether there is anything to lose; a start without an epoch binds nobody."""
        epochs = any(record["epoch"] > 0 for record in self.log.read())
        return epochs or self.checkpoint.exists() or self.weights.exists()

    def _refuse_others(self) -> None:
        """Refuses a directory in which other work would be overwritten."""
        run = self._run
        own = [self.log.path, self.weights, self.page, self.maps, self.checkpoint]
        others = [run.experiment_file, run.manifest_file, run.journal, *own]
        found = [each.name for each in others if each.exists() and each.stat().st_size]
        if found:
            raise UserError(
                f"{self.path}: found {', '.join(found)} of something else than a pretraining, "
                "allowed another --run-dir"
            )

    def _refuse_changes(self, known: dict[str, Any], now: dict[str, Any]) -> None:
        lines = [
            f"  {name}: was {known.get(name, 'nothing')}, found {now.get(name, 'nothing')}"
            for name in sorted({*known, *now})
            if known.get(name) != now.get(name)
        ]
        if lines:
            raise UserError(
                "\n".join([f"{self.path}: the settings are not those that began this run", *lines])
            )

    def _weights_key(self) -> str | None:
        """Returns the name of the pretraining that gave the weights; None if it is not known."""
        try:
            with safe_open(self.weights, "pt") as file:
                return (file.metadata() or {}).get("pretraining")
        except (OSError, SafetensorError):
            return None


def _settings(config: Config) -> dict[str, Any]:
    """Returns what must not change in a resume, as JSON gives it back."""
    model = {"backbone": config.model.backbone, "weights": config.model.weights}
    return {**pretraining_settings(config), **model}
