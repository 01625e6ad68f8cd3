"""The contract of a method of training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.data import Annotations, Batch, Targets
from gsfl_tune.losses import ClassCenter, ClassCenters, Loss, LossTerms, Sizes, gsfl_terms
from gsfl_tune.losses.parts import PARTS
from gsfl_tune.methods import Method, Passes
from gsfl_tune.models import (
    BilinearAttention,
    Detections,
    Granular,
    Granularities,
    GsflHead,
    HeadOutput,
    Layer,
    PartDetector,
    RecurrentAttention,
)
from gsfl_tune.testing._expect import Expect

_expect = Expect("the method")
_GROUPS = torch.tensor([0, 1, 0, 1, 2])
_POINTS = ("left eye", "right eye")
# The box of the object is a part too.
_EXTRAS = {"attributes": 3, PARTS: 1 + len(_POINTS)}
_SIZES = Sizes(6, 4, class_count=5, groups=_GROUPS, layers=(6, 4), extras=_EXTRAS)
_IMAGES, _INPUT, _SIDE, _STEPS = 8, 7, 16, 3


def check_method(create: Callable[[], Method], *, image_by_image: bool = True) -> None:
    """Checks a method of training, in float64 on the CPU, with a small GSFL head.

    - A step gives finite scalars, changes nothing of the batch, and has a gradient.
    - The same method on the same batches gives the same values; what is restored from its
      ``state_dict`` goes on as the original does.
    - The loss of a batch is the mean of the losses of its images, computed one by one. Batches may
      then be trained in pieces for want of memory, and be divided over ranks.
    - A batch that is divided over two ranks, whose `Method.sums` are added up, leaves the same
      state as the whole batch, and class centres note every image once.
    - What it predicts is what the exported model computes, and predicting changes no state.

    A method that reads maps or needs images is checked twice: on unit features, as in the head
    stage, and on images with maps. Each network that proposes regions, finds parts or attends, if
    it asks for such, has a gradient.

    Args:
        create: Makes the method; its `build` is called here.
        image_by_image: Whether the loss is a mean over images. Leave it out for a method that
            compares the images of a batch with each other.

    Raises:
        AssertionError: With what is wrong.
    """
    _check(create, image_by_image, pictures=False)
    method = create()
    if method.reads_maps or method.needs_images:
        _check(create, image_by_image, pictures=True)


def _check(create: Callable[[], Method], image_by_image: bool, *, pictures: bool) -> None:
    batches = [_batch(seed, create(), pictures=pictures) for seed in range(_STEPS)]
    whole, again = _Model(create, pictures), _Model(create, pictures)
    values, others = whole.run(batches), again.run(batches)
    for terms in values:
        for name, value in terms.detached().items():
            _expect(value.ndim == 0, f"gives {name} of the shape {tuple(value.shape)}")
            _expect(bool(torch.isfinite(value)), f"gives {name} that is not finite")
    _expect(_same(values, others), "gives other values for the same batches")
    _expect(
        any(p.grad is not None and bool(p.grad.any()) for p in whole.weights()), "trains nothing"
    )
    if whole.recurrent is not None:
        # The first layer has none as long as the last one is zero.
        named = whole.recurrent.named_parameters()
        last = [each.grad for name, each in named if name.endswith("last.weight")]
        learns = all(grad is not None and bool(grad.any()) for grad in last)
        _expect(learns, "leaves regions untrained")
    if whole.parts is not None:
        grads = whole.parts.find.weight.grad, whole.parts.join.grad
        learns = all(grad is not None and bool(grad.any()) for grad in grads)
        _expect(learns, "leaves the detector of parts untrained")
    if whole.attention is not None:
        # The others have none as long as what joins them is zero.
        grad = whole.attention.join.grad
        _expect(grad is not None and bool(grad.any()), "leaves its attention untrained")
    if whole.granularities is not None:
        linear = whole.granularities.scores.parameters()
        learns = all(each.grad is not None and bool(each.grad.any()) for each in linear)
        _expect(learns, "leaves classifiers behind blocks untrained")
    _check_restored(whole, create, batches[-1])
    if image_by_image:
        _check_images(create, batches[0], pictures)
    _check_noted(create, batches[0], pictures)
    _check_ranks(create, whole, batches)
    _check_prediction(whole, batches[0])


class _Model:
    """A method with a small extractor, a GSFL head without dropout, and its loss."""

    def __init__(self, create: Callable[[], Method], pictures: bool) -> None:
        torch.manual_seed(0)
        self.pictures = pictures
        self.method = create()
        self.recurrent: RecurrentAttention | None = None
        if pictures and self.method.recurrence is not None:
            self.recurrent = RecurrentAttention(_SIZES.layers[0], self.method.recurrence).double()
        self.parts: PartDetector | None = None
        settings = self.method.detector(_EXTRAS[PARTS], _SIZES.feature_dim)
        if pictures and settings is not None:
            self.parts = PartDetector(_SIZES.layers[0], settings).double()
        self.attention: BilinearAttention | None = None
        attends = self.method.attends(_SIZES.feature_dim)
        if pictures and attends is not None:
            self.attention = BilinearAttention(_SIZES.layers[0], attends).double()
        self.granularities: Granularities | None = None
        layers = [Layer(channels) for channels in _SIZES.layers[: self.method.layers]]
        answers = self.method.granularities(layers, _SIZES.class_count) if layers else None
        if pictures and answers is not None:
            self.granularities = Granularities(replace(answers, stops=())).double()
        self.extractor: nn.Module = nn.Linear(_INPUT, _SIZES.feature_dim).double()
        if pictures:
            last, first = _SIZES.layers
            self.extractor = nn.Sequential(
                nn.Conv2d(3, first, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(first, last, 3, stride=2, padding=1),
                nn.ReLU(),
            ).double()
        self.head = GsflHead(
            _SIZES.feature_dim,
            _SIZES.class_count,
            latent_dim=_SIZES.latent_dim,
            dropout=0.0,
            feature_scale=2.0,
        ).double()
        terms = gsfl_terms(reconstruction=0.2, class_center=0.1, shared_center=0.1, center_rate=0.5)
        self.criterion = Loss(_SIZES, terms, label_smoothing=0.1, feature_scale=2.0).double()
        self.method.build(_SIZES)
        self.method.double().train()
        self.passes = _passes_of(self)

    @property
    def centers(self) -> ClassCenters:
        term = self.criterion.find(ClassCenter)
        assert term is not None
        return term.centers

    def weights(self) -> Iterator[nn.Parameter]:
        yield from self.extractor.parameters()
        yield from self.head.parameters()
        if self.recurrent is not None:
            yield from self.recurrent.parameters()
        if self.parts is not None:
            yield from self.parts.parameters()
        if self.attention is not None:
            yield from self.attention.parameters()
        if self.granularities is not None:
            yield from self.granularities.parameters()

    def features(self, inputs: Tensor) -> Tensor:
        if self.recurrent is not None:
            return self.recurrent.features(inputs, self.maps, self.pool)
        if self.granularities is not None:
            return self.granular(inputs).joined()
        if self.pictures:
            return self.pool(self.maps(inputs))
        return functional.normalize(self.extractor(inputs), dim=1)

    def maps(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs, 0)

    def layer(self, inputs: Tensor, following: int) -> Tensor:
        assert isinstance(self.extractor, nn.Sequential)
        maps: Tensor = self.extractor[: 4 - 2 * following](inputs)
        return maps

    def pool(self, maps: Tensor, *, fixed_length: bool = False) -> Tensor:
        unit = _unit(maps.mean(dim=(2, 3)), fixed_length)
        for module in (self.parts, self.attention):
            if module is not None:
                unit = _unit(module(unit, maps)[0], fixed_length)
        return unit

    def pool_parts(self, maps: Tensor) -> tuple[Tensor, Detections]:
        assert self.parts is not None
        return self.pool(maps), self.parts.detect(maps)

    def pool_attended(self, maps: Tensor, instead: Tensor | None) -> tuple[Tensor, Tensor]:
        assert self.attention is not None
        unit = _unit(maps.mean(dim=(2, 3)), fixed_length=False)
        joint, attention = self.attention(unit, maps, instead)
        return _unit(joint, fixed_length=False), attention

    def granular(self, inputs: Tensor) -> Granular:
        assert self.granularities is not None
        maps = [self.layer(inputs, n) for n in range(len(self.granularities.describe))]
        return Granular(self.pool(maps[0]), *self.granularities(maps))

    def cross_entropy(self, logits: Tensor, targets: Targets) -> Tensor:
        return self.criterion.cross_entropy(
            logits, targets.labels, soft=targets.soft, weights=targets.weights
        )

    def loss(
        self, output: HeadOutput, features: Tensor, targets: Targets, *, note: bool = True
    ) -> LossTerms:
        self.criterion.train(note)
        terms: LossTerms = self.criterion(
            output,
            features,
            targets.labels,
            self.head.classifier.weight,
            progress=0.5,
            soft=targets.soft,
            weights=targets.weights,
        )
        self.criterion.train()
        return terms

    def step(self, batch: Batch) -> LossTerms:
        return self.method.step(batch, self.passes)

    def after_step(self) -> None:
        self.criterion.after_step()
        self.method.after_step()

    def run(self, batches: list[Batch]) -> list[LossTerms]:
        values = []
        for batch in batches:
            before = [view.clone() for view in batch.views]
            labels = batch.labels.clone()
            values.append(self.step(batch))
            _expect(
                all(torch.equal(a, b) for a, b in zip(before, batch.views, strict=True))
                and torch.equal(labels, batch.labels),
                "changes the batch",
            )
            values[-1].total.backward()
            self.after_step()
        return values


def _unit(vectors: Tensor, fixed_length: bool) -> Tensor:
    length = vectors.norm(dim=1, keepdim=True)
    return vectors / (length.detach() if fixed_length else length)


def _check_restored(whole: _Model, create: Callable[[], Method], batch: Batch) -> None:
    restored = copy.deepcopy(whole)
    restored.method = create()
    restored.method.build(_SIZES)
    restored.method.double().train().load_state_dict(whole.method.state_dict())
    original = copy.deepcopy(whole)
    original.passes = _passes_of(original)
    restored.passes = _passes_of(restored)
    same = _same([original.step(batch)], [restored.step(batch)])
    _expect(same, "is another one after it was restored")
    original.after_step()
    restored.after_step()
    _expect.same_state(original.method, restored.method, "what was restored")


def _passes_of(model: _Model) -> Passes:
    weights = tuple(model.weights())
    return Passes(
        model.features,
        model.head,
        model.head.infer,
        model.loss,
        weights,
        maps=model.maps if model.pictures else None,
        pool=model.pool if model.pictures else None,
        layer=model.layer if model.pictures else None,
        recurrent=model.recurrent,
        parts=model.pool_parts if model.parts is not None else None,
        attended=model.pool_attended if model.attention is not None else None,
        granularities=model.granularities,
        granular=model.granular if model.granularities is not None else None,
        classifier=model.head.classifier.weight.detach() if model.pictures else None,
        cross_entropy=model.cross_entropy,
    )


def _check_images(create: Callable[[], Method], batch: Batch, pictures: bool) -> None:
    whole = float(_Model(create, pictures).step(batch).total.detach())
    alone = _Model(create, pictures)
    parts = list(batch.chunk(_IMAGES))
    mean = sum(float(alone.step(part).total.detach()) for part in parts) / len(parts)
    _expect(
        abs(whole - mean) <= 1e-9 * max(1.0, abs(whole)),
        f"has a loss of {whole:.9g} for a batch, and of {mean:.9g} for its images one by one",
    )


def _check_noted(create: Callable[[], Method], batch: Batch, pictures: bool) -> None:
    model = _Model(create, pictures)
    model.step(batch)
    noted = float(model.centers.pending_count.sum())
    _expect(noted in (0.0, _IMAGES), f"lets the centres note {noted:g} of {_IMAGES} images")


def _check_ranks(create: Callable[[], Method], whole: _Model, batches: list[Batch]) -> None:
    ranks = [_Model(create, whole.pictures) for _ in range(2)]
    for batch in batches:
        for rank, part in zip(ranks, batch.chunk(2), strict=True):
            rank.step(part)
        for mine, theirs in zip(*(_sums(rank) for rank in ranks), strict=True):
            total = mine + theirs
            mine.copy_(total)
            theirs.copy_(total)
        for rank in ranks:
            rank.after_step()
    for rank in ranks:
        _expect.same_state(whole.method, rank.method, "a batch divided over two ranks")


def _sums(model: _Model) -> list[Tensor]:
    return [*model.criterion.sums(), *model.method.sums()]


def _check_prediction(model: _Model, batch: Batch) -> None:
    state = {name: value.clone() for name, value in model.method.state_dict().items()}
    inputs = batch.views[0]
    model.method.eval()
    with torch.inference_mode():
        predicted = model.method.predict(inputs, model.passes)
        exported = model.head.infer(model.features(inputs))
    _expect(
        predicted.shape == exported.shape and bool(torch.allclose(predicted, exported, atol=1e-9)),
        "predicts otherwise than the exported model",
    )
    after = model.method.state_dict()
    _expect(all(torch.equal(state[name], after[name]) for name in state), "changes as it predicts")


def _batch(seed: int, method: Method, *, pictures: bool) -> Batch:
    views, more = method.views, method.unlabelled * _IMAGES
    generator = torch.Generator().manual_seed(seed)
    shape = (_IMAGES, 3, _SIDE, _SIDE) if pictures else (_IMAGES, _INPUT)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(views)]
    labels = torch.randint(_SIZES.class_count, (_IMAGES,), generator=generator)
    own = torch.Generator().manual_seed(seed)
    points = torch.rand(_IMAGES, len(_POINTS), 2, generator=own) * 1.2 * _SIDE
    points[::3, 0] = torch.nan
    boxes = [(1.0, 2.0, 20.0, 30.0)] * _IMAGES
    annotations = Annotations.of(boxes, points=points.numpy(), part_names=_POINTS)
    known = (method.prepared(annotations, _SIDE),) * views
    unlabelled = None
    if more:
        pair = torch.randn((2, more, _INPUT), generator=generator, dtype=torch.float64)
        unlabelled = pair[0], pair[1]
    targets = Targets(labels, extras={"attributes": _attributes(seed)})
    return Batch(tuple(inputs), targets, torch.arange(_IMAGES), known, unlabelled, _SIDE)


def _attributes(seed: int) -> Tensor:
    """Draws attributes of images, a fifth of which are unknown."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(_IMAGES, _EXTRAS["attributes"], generator=generator, dtype=torch.float64)
    return torch.where(drawn < 0.2, torch.nan, (drawn < 0.6).double())


def _same(one: list[LossTerms], other: list[LossTerms]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        torch.equal(
            torch.stack(list(a.detached().values())), torch.stack(list(b.detached().values()))
        )
        for a, b in pairs
    )
