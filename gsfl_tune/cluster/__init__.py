"""Ray as a machine room: start it or join it, and see what fits."""

from gsfl_tune.cluster.resources import Slots, fit, ray_session, slots, start_ray

__all__ = ["Slots", "fit", "ray_session", "slots", "start_ray"]
