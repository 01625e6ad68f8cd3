from __future__ import annotations

import pytest

from gsfl_tune.search.ray_tune.worker_losses import Kind, failure

# As Ray 2.60 writes them.
PROCESS = """Failure # 1 (occurred at 2026-11-22_04-00-00)
The actor died unexpectedly before finishing this task.
	class_name: GsflTrainable
	actor_id: c2d3
	pid: 4711
	namespace: 3d0e
	ip: 127.0.0.1
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit \
detail: Worker unexpectedly exits with a connection error code 2. End of file.
"""
NODE = """Failure # 1 (occurred at 2026-11-22_04-00-00)
The actor died unexpectedly before finishing this task.
	class_name: GsflTrainable
	actor_id: c2d3
The actor died because its node has died. Node Id: 8a2f
	the actor's node was terminated unexpectedly: health check failed due to missing too many \
heartbeats
"""
RAISED = """Failure # 1 (occurred at 2026-11-22_04-00-00)
ray::Breaking.train() (pid=4711, ip=127.0.0.1, actor_id=c2d3)
  File "trainables.py", line 30, in step
    raise RuntimeError("the GPU is on fire")
RuntimeError: the GPU is on fire
"""
SPENT = """Failure # 1 (occurred at 2026-11-22_04-00-00)
ray::Spent.reset() (pid=4711, ip=127.0.0.1, actor_id=c2d3)
  File "trainable.py", line 50, in reset_config
    raise spent(left)
gsfl_tune.training.gpu_memory.WorkerSpent: 300 MiB of its GPU's memory were not given back
"""


RANK = """Failure # 1 (occurred at 2026-11-22_04-00-00)
ray::GsflTrainable.train() (pid=4711, ip=127.0.0.1, actor_id=c2d3)
  File "team.py", line 163, in run
    raise cause from error
gsfl_tune.search.workers.rank_pool.RankLost: rank 1, a process of the trial, died (signal 9)
"""


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        (RANK, "process", "rank 1, a process of the trial, died (signal 9)"),
        (RANK.replace("signal 9", "exit code 1"), "error", "died (exit code 1)"),
        (RANK.replace("signal 9", "its worker was ended"), "process", "its worker was ended"),
        (
            RANK.replace("died (signal 9)", "was lost with its node"),
            "node",
            "rank 1, a process of the trial, was lost with its node",
        ),
        (PROCESS, "process", "the worker process died"),
        (NODE, "node", "its node was lost"),
        (RAISED, "error", "RuntimeError: the GPU is on fire"),
        (SPENT, "spent", "300 MiB"),
        (PROCESS + RAISED, "error", "RuntimeError: the GPU is on fire"),
        (RAISED + NODE, "node", "its node was lost"),
        ("", "process", "the worker process died"),
    ],
)
def test_reads_what_happened_to_a_worker(text: str, kind: Kind, reason: str) -> None:
    found = failure(text)
    assert found.kind == kind
    assert reason in found.reason
    assert "\n" not in found.reason
