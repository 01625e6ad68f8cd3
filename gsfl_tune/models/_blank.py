"""Models without weights, to look at their modules."""

from __future__ import annotations

import warnings
from typing import Any

import timm
import torch
from torch import nn

from gsfl_tune.models._facts import BackboneError, cut
from gsfl_tune.models._probe import probe
from gsfl_tune.models._reads import Reads
from gsfl_tune.models.streams import TwoStreams, second_layer_of, stream_names
from gsfl_tune.models.two_layers import TwoLayers


def blank_model(name: str, reads: Reads = "map", **options: Any) -> nn.Module:
    """Builds a timm model that is looked at and never run, on the meta device where that works.

    Args:
        name: Its timm name, those of two streams, or that of two layers.
        reads: What a pooling reads of it.
        options: Further ones of `timm.create_model`.

    Raises:
        BackboneError: If there is no such backbone, or it cannot be built.
        TypeError: If the model does not know an option.
    """
    names = stream_names(name)
    whole, following = second_layer_of(name)
    if following:
        model = blank_model(whole, reads, **options)
        return TwoLayers(model, probe(whole), probe(name, reads).second_stop)
    if len(names) > 1:
        first, second = (blank_model(each, reads, **options) for each in names)
        own, other = (probe(each, reads) for each in names)
        statistics = ((own.mean, own.std), (other.mean, other.std))
        return TwoStreams(first, second, (own, other), statistics)
    options = {**dict(probe(name, reads).options), **options}
    for device in ("meta", "cpu"):  # a few models need real numbers while they are built
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                with torch.device(device):
                    model = timm.create_model(name, pretrained=False, num_classes=0, **options)
            return cut(model, reads)
        except TypeError:
            raise
        except Exception:  # models raise any error
            continue
    raise BackboneError(f"{name!r} cannot be built by timm")
