"""``python -m gsfl_tune.cluster.session.loopback start ...``: ``ray``, on loopback only.

Ray turns ``--node-ip-address 127.0.0.1`` back into the address of the network card, and then most
of its servers listen on every interface. Where it thinks that there are no clusters (as on a Mac)
it stays on loopback, but refuses to add a node. Here it does both, for several raylets on one
machine; see ``clusters/local.sh``. A node also gets longer than Ray's 30 s to start: several of
them on a busy machine need it.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

# Inherited by agents, workers and jobs, so that they find their node under its address.
ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_START_SECONDS = 150.0


def main() -> None:
    """Runs ``ray`` with the arguments of this process."""
    os.environ.update(ENVIRONMENT)
    from ray._private import node, ray_constants, services

    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    services.get_node = _patient(services.get_node, RuntimeError)
    # A node that joins looks for the head's: it may have begun a moment before.
    found = node.get_all_node_info_until_retrieved
    node.get_all_node_info_until_retrieved = _patient(found, Exception)
    ray_constants.ENABLE_RAY_CLUSTER = True
    from ray.scripts import scripts

    sys.argv[0] = "ray"
    scripts.main()


def _patient(get_node: Any, not_yet: type[Exception]) -> Any:
    def get(*arguments: Any, **options: Any) -> Any:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return get_node(*arguments, **options)
            except not_yet:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return get


if __name__ == "__main__":
    main()
