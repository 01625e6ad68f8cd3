"""The contract of a term of the loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gsfl_tune.losses import ClassCenters, LossInput, LossTerm, Shared, Sizes
from gsfl_tune.testing._expect import Expect

_expect = Expect("the term")
_EXTRAS = {"teacher": 5, "attributes": 3, "restituted": 7}
_SIZES = Sizes(6, 4, 5, torch.tensor([0, 1, 0, 1, 2]), extras=_EXTRAS)
_STEPS = 3


def check_loss_term(create: Callable[[], LossTerm], *, own_gradients: Collection[str] = ()) -> None:
    """Checks a term of the loss, in float64 on the CPU.

    - It gives a finite scalar, changes nothing of the batch, and its gradient is the numerical one
      for everything that is trained: features, all parts of the head, and parts of a map.
    - The same term on the same batches gives the same values; what is restored from its
      ``state_dict`` goes on as the original does.
    - A batch in two pieces, and a batch that is divided over two ranks whose `LossTerm.sums` are
      added up, leave the same state as the whole batch.
    - In eval mode it notes nothing, and a step without a batch before it changes no state.

    Args:
        create: Makes a term, as the registry does; its `build` is called here.
        own_gradients: Inputs whose gradient is another one by intent, such as ``shared`` of a term
            that reverses it.

    Raises:
        AssertionError: With what is wrong.
    """
    for gsfl in (True, False):
        if gsfl or create().any_head:
            _check(create, own_gradients, gsfl=gsfl)


def _check(create: Callable[[], LossTerm], own_gradients: Collection[str], *, gsfl: bool) -> None:
    batches = [_batch(seed, gsfl=gsfl) for seed in range(_STEPS)]
    whole, again = _built(create), _built(create)
    values, others = _run(whole, batches), _run(again, batches)
    for value in values:
        _expect(isinstance(value, Tensor) and value.ndim == 0, f"gave {value}, not a scalar")
        _expect(bool(torch.isfinite(value)), "is not finite")
    _expect(_equal(values, others), "gives other values for the same batches")
    _check_gradient(copy.deepcopy(whole), batches[0], own_gradients)
    _check_restored(create, whole, batches[-1])
    _check_still(whole, batches[0])
    pieces = _built(create)
    for batch in batches:
        for part in (slice(None, 3), slice(3, None)):
            pieces(_rows(batch, part))
        pieces.after_step()
    _expect.same_state(whole, pieces, "a batch in pieces")
    _check_ranks(create, whole, batches)


def _built(create: Callable[[], LossTerm]) -> LossTerm:
    torch.manual_seed(0)
    term = create()
    term.build(_SIZES)
    return term.double().train()


def _run(term: LossTerm, batches: list[LossInput]) -> list[Tensor]:
    values = []
    for batch in batches:
        before = [t.clone() for t in _tensors(batch)]
        values.append(term(batch))
        _expect(_equal(before, _tensors(batch)), "changes the batch")
        term.after_step()
    return values


def _check_gradient(term: LossTerm, batch: LossInput, own_gradients: Collection[str]) -> None:
    term.eval()
    trained = {"discriminative": batch.discriminative, "features": batch.features}
    if batch.gsfl is not None:
        trained |= {"shared": batch.shared, "reconstruction": batch.reconstruction}
    for number, part in enumerate(batch.extras["restituted"]):
        trained[f"restituted.{number}"] = part
    names = [each for each in trained if each.partition(".")[0] not in own_gradients]
    leaves = tuple(trained[name].clone().requires_grad_() for name in names)

    def value(*given: Tensor) -> Tensor:
        result: Tensor = term(_with(batch, {**trained, **dict(zip(names, given, strict=True))}))
        return result

    if value(*leaves).requires_grad:
        torch.autograd.gradcheck(value, leaves)


def _check_restored(create: Callable[[], LossTerm], term: LossTerm, batch: LossInput) -> None:
    restored = _built(create)
    restored.load_state_dict(term.state_dict())
    original = copy.deepcopy(term)
    _expect(_equal([original(batch)], [restored(batch)]), "is another one after it was restored")
    original.after_step()
    restored.after_step()
    _expect.same_state(original, restored, "what was restored")


def _check_still(term: LossTerm, batch: LossInput) -> None:
    quiet = copy.deepcopy(term).eval()
    quiet(batch)
    quiet.after_step()
    _expect.same_state(term, quiet, "a batch in eval mode and a step without a batch")


def _check_ranks(create: Callable[[], LossTerm], whole: LossTerm, batches: list[LossInput]) -> None:
    ranks = [_built(create), _built(create)]
    for batch in batches:
        for rank, part in zip(ranks, (slice(None, 4), slice(4, None)), strict=True):
            rank(_rows(batch, part))
        for mine, theirs in zip(ranks[0].sums(), ranks[1].sums(), strict=True):
            total = mine + theirs
            mine.copy_(total)
            theirs.copy_(total)
        for rank in ranks:
            rank.after_step()
    for rank in ranks:
        _expect.same_state(whole, rank, "a batch divided over two ranks")


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _batch(seed: int, *, gsfl: bool, count: int = 8) -> LossInput:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(_SIZES.class_count, (count,), generator=generator)
    groups = _SIZES.groups
    assert groups is not None
    added = None
    if gsfl:
        centers = ClassCenters(groups, _SIZES.latent_dim).double()
        centers.centers.copy_(draw(_SIZES.class_count, _SIZES.latent_dim))
        added = Shared(
            shared=draw(count, _SIZES.latent_dim),
            reconstruction=draw(count, _SIZES.feature_dim),
            groups=groups[labels],
            class_centers=centers.centers,
            group_means=centers.group_means(),
        )
    d, classifier = draw(count, _SIZES.latent_dim), draw(_SIZES.class_count, _SIZES.latent_dim)
    features = F.normalize(draw(count, _SIZES.feature_dim), dim=1)
    extras = {
        "teacher": draw(count, _EXTRAS["teacher"]),
        "attributes": torch.rand(count, _EXTRAS["attributes"], generator=generator),
        "restituted": tuple(draw(count, _EXTRAS["restituted"]) for _ in range(3)),
    }
    return _made(features, d, labels, classifier, added, extras)


def _made(
    features: Tensor,
    d: Tensor,
    labels: Tensor,
    classifier: Tensor,
    gsfl: Shared | None,
    extras: Mapping[str, Any],
) -> LossInput:
    return LossInput(
        features=features,
        discriminative=d,
        logits=d @ classifier.T,
        labels=labels,
        classifier=classifier,
        cross_entropy=lambda logits: F.cross_entropy(logits, labels, label_smoothing=0.1),
        progress=0.5,
        gsfl=gsfl,
        extras=extras,
    )


def _with(batch: LossInput, trained: Mapping[str, Tensor]) -> LossInput:
    """Puts other values in the place of those that are trained; logits follow."""
    gsfl = batch.gsfl
    if gsfl is not None:
        gsfl = replace(gsfl, shared=trained["shared"], reconstruction=trained["reconstruction"])
    parts = tuple(trained[f"restituted.{number}"] for number in range(3))
    extras = {**batch.extras, "restituted": parts}
    d, f = trained["discriminative"], trained["features"]
    return _made(f, d, batch.labels, batch.classifier, gsfl, extras)


def _rows(batch: LossInput, part: slice) -> LossInput:
    gsfl = batch.gsfl
    if gsfl is not None:
        gsfl = replace(
            gsfl,
            shared=gsfl.shared[part],
            reconstruction=gsfl.reconstruction[part],
            groups=gsfl.groups[part],
        )
    extras = {
        name: tuple(each[part] for each in value) if isinstance(value, tuple) else value[part]
        for name, value in batch.extras.items()
    }
    return _made(
        batch.features[part],
        batch.discriminative[part],
        batch.labels[part],
        batch.classifier,
        gsfl,
        extras,
    )


def _tensors(batch: LossInput) -> list[Tensor]:
    values = [*vars(batch).values(), *(vars(batch.gsfl).values() if batch.gsfl else ())]
    for value in batch.extras.values():
        values += value if isinstance(value, tuple) else [value]
    return [value for value in values if isinstance(value, Tensor)]
