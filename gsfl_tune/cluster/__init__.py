"""Ray as a machine room: start it or join it, see what fits, and run searches on it as jobs."""

from gsfl_tune.cluster.connection import Connection, connect
from gsfl_tune.cluster.jobs import Job, Jobs, table
from gsfl_tune.cluster.package import Package, missing_files, size, survey
from gsfl_tune.cluster.resources import Slots, fit, ray_session, slots, start_ray
from gsfl_tune.cluster.submit import Submission, load_for_cluster, parse_environment, prepare
from gsfl_tune.cluster.token import Token, find_token

__all__ = [
    "Connection",
    "Job",
    "Jobs",
    "Package",
    "Slots",
    "Submission",
    "Token",
    "connect",
    "find_token",
    "fit",
    "load_for_cluster",
    "missing_files",
    "parse_environment",
    "prepare",
    "ray_session",
    "size",
    "slots",
    "start_ray",
    "survey",
    "table",
]
