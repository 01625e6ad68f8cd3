"""Backbones of other packages, registered with timm."""

from __future__ import annotations

import timm

from gsfl_tune.plugins import Plugin, PluginError, plugins

_registered: dict[str, Plugin] = {}


def register(architecture: str) -> Plugin | None:
    """Lets a package register its model with timm.

    Args:
        architecture: Name of a model, without a tag.

    Returns:
        The plugin, or None for a model of timm itself and for an unknown one.

    Raises:
        PluginError: If the model cannot be registered.
    """
    if architecture in _registered:
        return _registered[architecture]
    added = plugins("backbone").get(architecture)
    if added is None:
        return None
    own = timm.is_model(architecture) and timm.model_entrypoint(architecture)
    if own and own.__module__.partition(".")[0] == "timm":
        raise PluginError(f"{added}: timm has a model of this name; allowed is another name")
    function = added.load()
    if not timm.is_model(architecture) or timm.model_entrypoint(architecture) is not function:
        raise PluginError(
            f"{added} is {added.entry.value}; allowed is a function {architecture} that "
            "timm.models.register_model decorates"
        )
    if timm.get_pretrained_cfg(architecture) is None:
        raise PluginError(f"{added}: its module has no default_cfgs with {architecture!r}")
    _registered[architecture] = added
    return added
