"""Ray as a machine room: start it or join it, see what fits, and run searches on it as jobs."""

from gsfl_tune.cluster.doctor.inspection import (
    Inspection,
    Question,
    data_paths,
    inspect_cluster,
    inspect_here,
    refuse_unfit_nodes,
    stored_at,
)
from gsfl_tune.cluster.doctor.node_table import node_table
from gsfl_tune.cluster.jobs.client import Job, Jobs, table
from gsfl_tune.cluster.jobs.connection import Connection, connect
from gsfl_tune.cluster.jobs.submit import Submission, load_for_cluster, parse_environment, prepare
from gsfl_tune.cluster.jobs.upload import Package, missing_files, survey
from gsfl_tune.cluster.session.slots import Slots, fit, slots
from gsfl_tune.cluster.session.start import ray_session, start_ray
from gsfl_tune.cluster.token import Token, find_token
from gsfl_tune.experiment.units import binary_size as size

__all__ = [
    "Connection",
    "Inspection",
    "Job",
    "Jobs",
    "Package",
    "Question",
    "Slots",
    "Submission",
    "Token",
    "connect",
    "data_paths",
    "find_token",
    "fit",
    "inspect_cluster",
    "inspect_here",
    "load_for_cluster",
    "missing_files",
    "node_table",
    "parse_environment",
    "prepare",
    "ray_session",
    "refuse_unfit_nodes",
    "size",
    "slots",
    "start_ray",
    "stored_at",
    "survey",
    "table",
]
