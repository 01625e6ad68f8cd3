"""What a representation is worth without training it further: nearest neighbours and retrieval."""

from __future__ import annotations

import numpy as np

from gsfl_tune.evidence.linear_probe import tune_probe
from gsfl_tune.training.metrics import classification_metrics
from gsfl_tune.training.neighbours import LabelledFeatures, Labels, knn_accuracy

NEIGHBOURS = (20, 200)
# Rows of similarities at a time.
_ROWS = 1024


def representation_metrics(
    train: LabelledFeatures, validation: LabelledFeatures, class_count: int
) -> dict[str, float]:
    """Judges a representation by the validation images.

    Args:
        train: What classes are learned from.
        validation: What is judged; the regularisation of the linear probe is chosen on it too, so
            that its accuracy is a little too good.
        class_count: Number of classes.

    Returns:
        ``linear_probe``, ``knn_20``, ``knn_200`` (shares of validation images), ``retrieval_top1``,
        ``retrieval_top5``, ``retrieval_map`` (of validation images among each other).
    """
    probe = tune_probe(
        train.features,
        train.labels,
        validation.features,
        validation.labels,
        class_count=class_count,
        refit=False,
    )
    accuracy = classification_metrics(probe.validation_logits, validation.labels)["accuracy"]
    found = {"linear_probe": float(accuracy)}
    for k in NEIGHBOURS:
        found[f"knn_{k}"] = knn_accuracy(train, validation, k, class_count)
    return found | retrieval_metrics(validation)


def neighbour_notices(images: int) -> list[str]:
    """Says which numbers of neighbours are more than there are images."""
    return [
        f"kNN with k {k}: there are {images} training images, so all of them vote"
        for k in NEIGHBOURS
        if k > images
    ]


def retrieval_notices(labels: Labels) -> list[str]:
    """Says how many validation images cannot be searched, as their class has no other image."""
    alone = int((np.bincount(labels)[labels] == 1).sum())
    if not alone:
        return []
    return [
        f"retrieval: {alone} of {len(labels)} validation images are the only one of their class "
        "and are not searched"
    ]


def retrieval_metrics(images: LabelledFeatures) -> dict[str, float]:
    """Searches every image among the others by cosine: leave one out.

    An image whose class has no other image is not a query, but is among what is found.

    Args:
        images: The images.

    Returns:
        ``retrieval_top1``, ``retrieval_top5``: the share of queries with an image of their class
        among the first 1 and 5; ``retrieval_map``: the mean over queries of the average precision.
        Nothing where there is no query.
    """
    features, labels = images.features, images.labels
    counts = np.bincount(labels)
    queries = np.flatnonzero(counts[labels] > 1)
    if not len(queries):
        return {}
    top1 = top5 = precision = 0.0
    ranks = np.arange(1, len(labels))
    for start in range(0, len(queries), _ROWS):
        own = queries[start : start + _ROWS]
        similarities = features[own] @ features.T
        similarities[np.arange(len(own)), own] = -np.inf
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :-1]
        right = labels[order] == labels[own][:, None]
        top1 += float(right[:, 0].sum())
        top5 += float(right[:, :5].any(axis=1).sum())
        at = right.cumsum(axis=1) / ranks
        precision += float(((at * right).sum(axis=1) / right.sum(axis=1)).sum())
    count = len(queries)
    return {
        "retrieval_top1": top1 / count,
        "retrieval_top5": top5 / count,
        "retrieval_map": precision / count,
    }
