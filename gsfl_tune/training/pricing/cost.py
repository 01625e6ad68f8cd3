"""The largest cost of a search, estimated before anything is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from gsfl_tune.data.sources import count_classes
from gsfl_tune.data.transforms.restorer import restorer_parameters
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.heads import HEADS
from gsfl_tune.experiment.methods import ATTRIBUTE_METHODS
from gsfl_tune.losses import Sizes
from gsfl_tune.losses.attributes import ATTRIBUTES, attribute_count
from gsfl_tune.models import (
    Reads,
    Weights,
    attention_size,
    granularities_size,
    head_class,
    head_parameters,
    layers_of,
    map_shape,
    part_detector_size,
    part_size,
    pooled_channels,
    pooling_class,
    pooling_dim,
    probe,
    recurrence_size,
    restitution_channels,
    restitution_size,
    stream_names,
)
from gsfl_tune.training.caches.teacher import teacher_bytes
from gsfl_tune.training.head_terms import head_term_parameters
from gsfl_tune.training.parts import expected_parts
from gsfl_tune.training.pricing.cases import backbone_of, cases, reads_of
from gsfl_tune.training.pricing.generators import numbers_of_generators
from gsfl_tune.training.pricing.methods import (
    attentions,
    detectors,
    granularities,
    numbers_of_methods,
    recurrences,
)
from gsfl_tune.training.timeline import STAGES

# fp32 weight and gradient, and the two moments of AdamW.
_TRAINED_BYTES = 16
_FROZEN_BYTES = 4
# Used if the classes are unknown until the data is read: more than most data sets have.
_UNKNOWN_CLASSES = 1000


@dataclass(frozen=True)
class LargestModel:
    """Describes the configuration whose weights and optimiser state take most memory.

    Attributes:
        bytes: Weights, gradients and optimiser state; activations come on top.
        parameters: Number of parameters, backbone and head.
        trained: How many of them are trained.
        backbone: Its backbone; both names if there are two streams.
        pooling: Its pooling.
        channels: Channels of the maps that are pooled, of the larger one of two streams.
        feature_dim: D, size of its features.
        latent_dim: H, size of its latent parts.
        class_count: C, of the data or an upper estimate.
    """

    bytes: int
    parameters: int
    trained: int
    backbone: str
    pooling: str
    channels: int
    feature_dim: int
    latent_dim: int
    class_count: int


@dataclass(frozen=True)
class Cost:
    """Holds upper bounds for one search.

    Attributes:
        trials: Trials, with those of a tuned control.
        search_epochs: Epochs of all trials if none is stopped early.
        retrainings: Trainings after the search: finalists, winner, control.
        final_epochs: Their epochs.
    """

    trials: int
    search_epochs: int
    retrainings: int
    final_epochs: int

    @property
    def epochs(self) -> int:
        """Returns the epochs in total."""
        return self.search_epochs + self.final_epochs


def search_cost(experiment: Experiment) -> Cost:
    """Returns the trials and epochs that a search takes at most."""
    search = experiment.defaults().search
    longest = sum(max(experiment.values(f"training.{stage.name}.epochs")) for stage in STAGES)
    finals = search.finalists * search.final_seeds + search.final_seeds
    searches = 2 if search.control == "tuned" else 1
    retrainings = finals * searches
    if search.control == "matched":  # trained on the training part, then retrained, as the winner
        retrainings += 2 * search.final_seeds
    trials = search.trials * searches
    epochs = trials * search.replicates * longest
    return Cost(trials, epochs, retrainings, retrainings * longest)


def largest_model(experiment: Experiment) -> LargestModel:
    """Returns the largest model that a trial of this experiment can have.

    Raises:
        BackboneError: A backbone cannot be built.
    """
    return largest_case(experiment)[1]


def largest_case(experiment: Experiment) -> tuple[Experiment, LargestModel]:
    """Returns the part of the space with the largest model (one backbone, pooling, head), and it.

    Raises:
        BackboneError: A backbone cannot be built.
    """
    classes = class_count(experiment)
    priced = [(case, _price(case, classes)) for case in cases(experiment)]
    return max(priced, key=lambda each: each[1].bytes)


def checkpoint_bytes(experiment: Experiment) -> int:
    """Estimates the bytes of the largest checkpoint that a trial of this experiment writes.

    Raises:
        BackboneError: A backbone cannot be built.
    """
    case, model = largest_case(experiment)
    [head] = case.values("model.head")
    weights = head_parameters(head, model.feature_dim, model.latent_dim, model.class_count)
    trained = weights
    if max(case.values("training.finetune.epochs")) > 0:
        # The whole network, and what the optimiser keeps of it.
        weights, trained = model.parameters, model.trained
    # Weights and the two moments of AdamW, and the average where there is one.
    copies = 1 + (max(case.values("training.ema")) > 0)
    state = model.class_count * model.latent_dim
    return 4 * (copies * weights + 2 * trained + state) + term_bytes(
        case, model.latent_dim, model.class_count, model.feature_dim
    )


def term_bytes(case: Experiment, latent_dim: int, class_count: int, feature_dim: int = 0) -> int:
    """Counts the bytes that further loss terms and methods keep, including their sums for a step.

    Args:
        case: A part of a space.
        latent_dim: H of its largest head.
        class_count: C.
        feature_dim: D, for terms with an encoder of features.
    """
    numbers = 0
    heads = case.values("model.head")
    groups = min(class_count, max(case.values("model.groups.count"), default=1))
    numbers += 4 * max(
        head_term_parameters(head, feature_dim, latent_dim, groups) for head in heads
    )
    if max(case.values("loss.center.weight")) > 0:
        numbers += 2 * class_count * latent_dim
    if max(case.values("loss.isda.weight")) > 0:
        whole = "full" in case.values("loss.isda.covariance")
        numbers += 2 * class_count * latent_dim * (1 + (latent_dim if whole else 1))
    # Parameters: weight and gradient, and the two moments of AdamW.
    if max(case.values("loss.metric_learning.weight")) > 0:
        numbers += 4 * class_count * latent_dim * _proxies(case)
    if max(case.values("loss.attributes.weight")) > 0:
        numbers += 4 * (latent_dim + 1) * _attributes(case)
    shared = any(HEADS[head].shared for head in heads)
    if shared and max(case.values("loss.group_reversal.weight")) > 0:
        hidden = max(case.values("loss.group_reversal.hidden"))
        numbers += 4 * (hidden * (latent_dim + 1) + class_count * (hidden + 1))
    if shared and max(case.values("loss.group_unlearning.weight")) > 0:
        hidden = max(case.values("loss.group_unlearning.hidden"))
        numbers += 4 * (hidden * (latent_dim + 1) + groups * (hidden + 1))
    snr = max(case.values("training.finetune.epochs")) and case.values("training.finetune.snr")
    if snr and True in snr and max(case.values("loss.causality.weight")) > 0:
        # Most models have most channels in the last map.
        numbers += 4 * (probe(backbone_of(case)).channels + 1) * class_count
    numbers += numbers_of_generators(case, feature_dim, class_count)
    learnt = set(ATTRIBUTE_METHODS) & set(case.values("training.method"))
    known = {ATTRIBUTES: _attributes(case)} if learnt else {}
    sizes = Sizes(feature_dim, latent_dim, class_count, extras=known)
    return 4 * (numbers + numbers_of_methods(case, sizes))


def _attributes(case: Experiment) -> int:
    return attribute_count(case.defaults().data.attribute_columns)


def _restorer(case: Experiment) -> int:
    """Counts the parameters of the largest network that restores images in the finetune stage."""
    if max(case.values("data.augment.degrade")) == 0:
        return 0
    paths = case.values("data.augment.restorer")
    return max((restorer_parameters(path) for path in paths if path is not None), default=0)


def _proxies(case: Experiment) -> int:
    """Returns the most proxies that a class has in `loss.metric_learning`."""
    usual = {"subcenter_arcface": 3, "soft_triple": 10}
    most = 1
    for kind in usual.keys() & set(case.values("loss.metric_learning.kind")):
        centers = case.values("loss.metric_learning.centers")
        most = max(most, *(each or usual[kind] for each in centers))
    return most


def teachers(case: Experiment) -> list[Path]:
    """Lists the bundles that trainings of a space learn from."""
    if max(case.values("loss.distill.weight")) <= 0:
        return []
    return [Path(each) for each in case.values("training.teacher") if each is not None]


def class_count(experiment: Experiment) -> int:
    """Returns the number of classes if known without reading the data, else an upper estimate."""
    known = count_classes(experiment.defaults().data)
    return _UNKNOWN_CLASSES if known is None else max(2, known)


def memory_of_a_trial(experiment: Experiment, backbone: str = "") -> tuple[int, str]:
    """Returns the bytes that a trial can use on this machine, and whose memory they are.

    Where its processes divide the parameters, that is the memory of all of their GPUs.

    Args:
        experiment: The experiment.
        backbone: Of the trial, for ``search.resources.per_backbone``.
    """
    import psutil
    import torch

    config = experiment.defaults()
    if config.training.device != "cpu" and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        resources = config.search.resources.of(backbone) or config.search.resources
        share = resources.gpu
        if resources.shard:
            count = resources.gpus_per_trial or (1 if share == "auto" else max(1, int(share)))
            return int(total * count), f"memory of {count} such GPUs"
        share = 1.0 if share == "auto" or share <= 0 else min(1.0, share)
        whose = "GPU memory" if share == 1.0 else f"{share:g} of the GPU memory"
        return int(total * share), whose
    return int(psutil.virtual_memory().total), "memory"


def pretrained(experiment: Experiment) -> list[tuple[str, Weights, Reads]]:
    """Returns each backbone of a space, its possible weights and what is read, once each."""
    found: dict[tuple[str, Weights, Reads], None] = {}
    for case in cases(experiment):
        name = backbone_of(case)
        for weights in case.values("model.weights"):
            every: list[Weights] = [weights]
            if len(stream_names(name)) > 1:
                every = [(weights, own or weights) for own in case.values("model.weights_b")]
            found |= {(name, each, reads_of(case)): None for each in every}
    return list(found)


def _price(case: Experiment, classes: int) -> LargestModel:
    def highest(path: str) -> int:
        return max(case.values(path))

    backbone, pooling = backbone_of(case), case.values("model.pooling")[0]
    facts = probe(backbone, reads_of(case))
    channels, second = max(
        pooled_channels(pooling, requested, facts.channels, facts.second_channels)
        for requested in case.values("model.pooling_channels")
    )
    feature_dim = pooling_dim(pooling, channels, dim=highest("model.pooling_dim"), second=second)
    [kind] = case.values("model.head")
    latent_dim = head_class(kind).latent_size(feature_dim, highest("model.latent_dim"))
    head = head_parameters(kind, feature_dim, latent_dim, classes)
    trained = _trained_parameters(case, backbone)
    heads = highest("model.attention_heads") if pooling_class(pooling).takes_heads else 0
    learned = math.gcd(channels, heads) * channels if heads else 0
    learned += _restitution(case, backbone) + _regions(case, backbone)
    learned += _detector(case, backbone, feature_dim) + _attention(case, backbone, feature_dim)
    learned += _granularities(case, backbone, classes)
    return LargestModel(
        bytes=(head + learned) * _TRAINED_BYTES
        + facts.parameters * _FROZEN_BYTES
        + trained * (_TRAINED_BYTES - _FROZEN_BYTES)
        + term_bytes(case, latent_dim, classes, feature_dim)
        + _restorer(case) * _FROZEN_BYTES
        + max((teacher_bytes(path) for path in teachers(case)), default=0),
        parameters=head + facts.parameters + learned,
        trained=head + trained + learned,
        backbone=backbone,
        pooling=pooling,
        channels=max(channels - second, second),
        feature_dim=feature_dim,
        latent_dim=latent_dim,
        class_count=classes,
    )


def _restitution(case: Experiment, backbone: str) -> int:
    """Counts the parameters of the largest module of `training.finetune.snr`."""
    if not max(case.values("training.finetune.epochs")):
        return 0
    if True not in case.values("training.finetune.snr") or len(stream_names(backbone)) > 1:
        return 0
    size, reads = max(case.values("data.image_size")), reads_of(case)
    return max(
        restitution_size(restitution_channels(backbone, blocks, size, reads))
        for blocks in case.values("training.finetune.blocks")
    )


def _regions(case: Experiment, backbone: str) -> int:
    """Counts the parameters that propose regions, of the method that has most."""
    if not max(case.values("training.finetune.epochs")):
        return 0
    every = recurrences(case)
    if not every:
        return 0
    channels, _, _ = map_shape(backbone, max(case.values("data.image_size")), reads_of(case))
    return max(recurrence_size(channels, each.scales, each.width) for each in every)


def _detector(case: Experiment, backbone: str, feature_dim: int) -> int:
    """Counts the parameters that find and join parts, of the method that has most."""
    if not max(case.values("training.finetune.epochs")):
        return 0
    every = detectors(case, expected_parts(case.defaults().data), feature_dim)
    if not every:
        return 0
    channels, _, _ = map_shape(backbone, max(case.values("data.image_size")), reads_of(case))
    return max(part_detector_size(channels, each) for each in every)


def _attention(case: Experiment, backbone: str, feature_dim: int) -> int:
    """Counts the parameters of attention maps, of the method that has most."""
    if not max(case.values("training.finetune.epochs")):
        return 0
    every = attentions(case, feature_dim)
    if not every:
        return 0
    channels, _, _ = map_shape(backbone, max(case.values("data.image_size")), reads_of(case))
    return max(attention_size(channels, each) for each in every)


def _granularities(case: Experiment, backbone: str, classes: int) -> int:
    """Counts the parameters of classifiers behind blocks that predict, of the method with most."""
    if not max(case.values("training.finetune.epochs")):
        return 0
    size, reads = max(case.values("data.image_size")), reads_of(case)
    blocks = case.values("training.finetune.blocks")
    layers = layers_of(backbone, "all" if "all" in blocks else max(blocks), size, reads)
    every = granularities(case, layers, classes)
    return max((granularities_size(each) for each in every), default=0)


def _trained_parameters(case: Experiment, backbone: str) -> int:
    """Counts the parameters of a backbone that a trial trains at most."""
    if max(case.values("training.finetune.epochs")) == 0:
        return 0
    parts = case.values("training.finetune.train")
    reads = reads_of(case)
    if "all" in parts:
        return probe(backbone, reads).parameters
    rank = max(case.values("training.finetune.adapter_rank"))
    blocks = case.values("training.finetune.blocks")
    return max(part_size(backbone, each, part, rank, reads) for part in parts for each in blocks)
