"""What Ray reserves for a trial, which may depend on its backbone."""

from __future__ import annotations

from typing import Any

from ray.tune import PlacementGroupFactory

from gsfl_tune.search.ray_tune.resources import Resources

# Key of a trial's configuration under which Ray finds the trial's resources.
RESOURCES = "resources"


def reserved(resources: Resources, backbone: str) -> dict[str, float]:
    """Returns what a trial reserves, as it stands in Ray's configuration of the trial.

    Args:
        resources: The slots of the search.
        backbone: The trial's value of ``model.backbone``.
    """
    own = resources.of(backbone)
    return {"cpu": own.cpu, "gpu": own.gpu}


def placement_group_of(config: dict[str, Any]) -> PlacementGroupFactory:
    """Returns the placement group of a trial; Ray calls it with the trial's configuration."""
    own = config[RESOURCES]
    return PlacementGroupFactory([{"CPU": own["cpu"], "GPU": own["gpu"]}])
