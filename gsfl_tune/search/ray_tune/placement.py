"""What Ray reserves for a trial, which may depend on its backbone."""

from __future__ import annotations

from typing import Any

from ray.tune import PlacementGroupFactory
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

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
    found = {"cpu": own.cpu, "gpu": own.gpu}
    return {**found, "ranks": own.workers} if own.shard else found


def placement_group_of(config: dict[str, Any]) -> PlacementGroupFactory:
    """Returns the placement group of a trial; Ray calls it with the trial's configuration."""
    own = config[RESOURCES]
    return PlacementGroupFactory(_bundles(own["cpu"], own["gpu"], own.get("ranks", 1)), "PACK")


def _bundles(cpu: float, gpu: float, ranks: float) -> list[dict[str, float]]:
    """Returns what each part of a trial reserves: all on one node, or each rank by itself."""
    return [{"CPU": cpu / ranks, "GPU": gpu / ranks}] * int(ranks)


class TaskPlaces:
    """Reserves the places of tasks that are trainings, as `placement_group_of` does for trials."""

    def __init__(self) -> None:
        self._groups: dict[Any, Any] = {}

    def begin(self, remote: Any, own: Resources, *arguments: Any) -> Any:
        """Starts a task in its place.

        Args:
            remote: The remote function.
            own: What it occupies.
            arguments: Of the function.

        Returns:
            Reference of its result.
        """
        if not own.shard:
            task = remote.options(num_cpus=own.cpu, num_gpus=own.gpu, max_retries=0)
            return task.remote(*arguments)
        every = _bundles(own.cpu, own.gpu, own.workers)
        group = placement_group(
            [{name: amount for name, amount in each.items() if amount} for each in every],
            strategy="PACK",
        )
        task = remote.options(
            num_cpus=every[0]["CPU"],
            num_gpus=every[0]["GPU"],
            max_retries=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=group,
                placement_group_bundle_index=0,
                placement_group_capture_child_tasks=True,
            ),
        )
        reference = task.remote(*arguments)
        self._groups[reference] = group
        return reference

    def end(self, reference: Any) -> None:
        """Gives the place of a task back; the other ranks of its training end with it."""
        group = self._groups.pop(reference, None)
        if group is not None:
            remove_placement_group(group)

    def end_all(self) -> None:
        """Gives all places back."""
        for reference in list(self._groups):
            self.end(reference)
