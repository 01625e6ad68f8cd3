"""Reconstruction of a bundle's network with its shared branch."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gsfl_tune.export.predictor import Bundle
from gsfl_tune.models import GsflHead, Network


def network_with_shared(bundle: Bundle, state: Mapping[str, Tensor]) -> Network:
    """Adds the shared branch, which a prediction does not need.

    Args:
        bundle: A bundle with one PyTorch network.
        state: Its `Bundle.shared_state`.

    Returns:
        The network with a `GsflHead`, in eval mode, without gradients.

    Raises:
        BundleError: If the bundle has no such network.
        RuntimeError: If the branch does not match the network.
    """
    network = bundle.network
    plain = network.head
    head = GsflHead(
        plain.feature_dim,
        plain.class_count,
        latent_dim=plain.latent_dim,
        dropout=0.0,
        feature_scale=plain.feature_scale,
        decoder=bundle.config.get("model", {}).get("decoder", "linear"),
    )
    shared = {
        name.removeprefix("head."): tensor
        for name, tensor in state.items()
        if name.startswith("head.")
    }
    head.load_state_dict({**plain.state_dict(), **shared})
    whole = network.having(head)
    return whole.to(bundle.device).eval().requires_grad_(False)
