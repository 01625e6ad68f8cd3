"""The retrained seeds of a run, for export as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.bundles.reading import read_description
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.bundle import load_bundle
from gsfl_tune.export.thresholds import scaled
from gsfl_tune.models import Ensemble, Network
from gsfl_tune.run.layout import CHECKPOINT_FILE, RunDirectory
from gsfl_tune.run.results import Calibration, Outcome, Results
from gsfl_tune.training import CheckpointError, Training, Workspace


def require_seeds(run: RunDirectory, results: Results) -> None:
    """Checks that there are models to average.

    Raises:
        UserError: If only one seed was trained, or models are gone.
    """
    outcome = results.winner
    if len(outcome.seeds) < 2:
        raise UserError(
            "--ensemble: found a run that retrained one seed, allowed after a search with "
            "search.final_seeds of at least 2"
        )
    gone = [
        seed
        for place, seed in enumerate(outcome.seeds)
        # The first seed's model is the bundle.
        if place > 0 and not (_folder(run, outcome, seed) / CHECKPOINT_FILE).is_file()
    ]
    if gone:
        raise UserError(
            f"--ensemble: the retrained models of seeds {', '.join(map(str, gone))} are gone: "
            f"found no {CHECKPOINT_FILE} in {_folder(run, outcome, gone[0])}; allowed if all exist "
            "(RUN/best is the first seed's model)"
        )


def seed_networks(
    run: RunDirectory,
    results: Results,
    *,
    data: str | None = None,
    cache_dir: Path | None = None,
) -> list[Network]:
    """Loads the winner's networks, one per retrained seed, with the ensemble's temperature.

    Args:
        run: A finished run.
        results: Its results.
        data: Where the run's images are now; default: where they were.
        cache_dir: Root of the node's caches.

    Raises:
        UserError: If a model is gone or from another training, or the images are gone.
    """
    require_seeds(run, results)
    outcome = results.winner
    description = read_description(run.best)
    architecture = Architecture.from_json(description["architecture"])
    config = Config.model_validate(outcome.config)
    if data is not None:
        section = config.data.model_copy(update={"path": data})
        config = config.model_copy(update={"data": section})
    side = description["preprocessing"]["side"]
    workspace = Workspace.open(config.data, side=side, cache_dir=cache_dir)
    states: list[dict[str, Tensor]] = []
    for place, seed in enumerate(outcome.seeds):
        if place == 0:
            own = description.get("calibration", {}).get("temperature", 1.0)
            state = load_bundle(run.best, "cpu").network.inference_state()
            states.append(scaled(state, own))
        else:
            states.append(_state(run, outcome, config, workspace, seed))
    used = calibration_of(results)
    temperature = used.temperature if used is not None else 1.0
    return [architecture.build(scaled(state, 1 / temperature)) for state in states]


def calibration_of(results: Results) -> Calibration | None:
    """Returns the ensemble's own temperature and thresholds, else those of its members."""
    if results.ensemble is not None and results.ensemble.calibration is not None:
        return results.ensemble.calibration
    return results.winner.calibration


def about(seeds: Sequence[int], network: Ensemble) -> dict[str, Any]:
    """Returns the key ``ensemble`` of an export, which a reader of its tensors needs.

    Args:
        seeds: Seeds of the members; empty for the bundle's own network alone.
        network: The members, and which views of an image they see.
    """
    return {
        "members": max(1, len(seeds)),
        "seeds": list(seeds),
        "one_backbone": network.one_backbone,
        "flip": network.flip,
        # Exports of earlier versions have no such key.
        **({"crops": True} if network.crops else {}),
    }


def _state(
    run: RunDirectory, outcome: Outcome, config: Config, workspace: Workspace, seed: int
) -> dict[str, Tensor]:
    directory = _folder(run, outcome, seed)
    training = Training(config, workspace, directory, seed=seed, fit="train+validation")
    try:
        whole = training.look() and training.finished
    except CheckpointError as error:
        raise UserError(f"--ensemble: {error}") from error
    if not whole:
        raise UserError(
            f"--ensemble: {directory / CHECKPOINT_FILE}: from another training or other images; "
            "allowed: the retrained models of this run"
        )
    state = training.trained_network().cpu().inference_state()
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _folder(run: RunDirectory, outcome: Outcome, seed: int) -> Path:
    return run.finals / f"search-{outcome.trial}" / "retrain" / f"seed-{seed}"
