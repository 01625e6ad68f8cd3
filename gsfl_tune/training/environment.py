"""Versions and machine, recorded for each run."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from gsfl_tune.plugins import packages as plugin_packages

_PACKAGES = ("gsfl-tune", "torch", "torchvision", "timm", "ray", "optuna", "numpy")


def environment() -> dict[str, Any]:
    """Returns Python, packages, system, cores and GPUs of this process, as JSON.

    Packages that add components are included.
    """
    packages = {}
    for name in (*_PACKAGES, *plugin_packages()):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "packages": packages,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
