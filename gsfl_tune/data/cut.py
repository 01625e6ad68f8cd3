"""Finds copies of photographs that were mirrored, or cut at their edges, or both.

A cut of a few per cent moves every edge of a 16 x 16 thumbnail by half a pixel, which `near` does
not tolerate. So each photograph is fitted to the most similar other ones: four numbers say which
part of one the other shows, and are found by Gauss-Newton steps (Lucas and Kanade, "An Iterative
Image Registration Technique", IJCAI 1981). Then their details are compared. Photographs of one
moment are found too.

Positions are multiples of 1/16 pixel and grey levels integers, so that every machine finds the
same copies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gsfl_tune.data.looks import SIDE, Looks

# Smallest cosine of the details of a cut copy and of the fitted original, in 16 x 16 pixels.
# Measured: copies cut by up to 8 % 0.96 and more (19 of 20), other garments up to 0.91.
_COSINE = 0.95
# Largest difference of fitted grey levels in the mean, and of mean colours. Measured: of copies cut
# by up to 8 %, 99 of 100 are below; drawings of one shape in other colours are above.
_LEVELS, _TINT = 12.0, 20.0
# The same cosine of mirrored ones as they are. Measured: copies 0.98 and more, drawings to 0.967.
_MIRRORED = 0.97
# Smallest similarity (cosine of descriptors) of photographs that are fitted, and how many of the
# most similar ones of a photograph. Measured: of copies cut by 8 %, 99 of 100 are above, and are
# the most similar one.
_SIMILAR, _MOST = 0.92, 2
# More images are compared within their classes, as the time grows with the square; a class with
# more is not.
_LARGEST = 30_000
# Fewest pixels of 196 that the details are spread over (square of their energy by the energy of its
# squares) of photographs that are fitted. Drawings of one stroke, up to 23, fit each other.
_SPREAD = 24
# Largest cut at both edges of a direction together, in pixels of 32: a fifth.
_CUT = 6.4
# Pairs whose details agree less after two steps are given up.
_HOPELESS = 0.5
_STEPS = 6
_GRID = 16
_ROWS = 500


def cut_copies(looks: Looks, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Finds pairs of photographs of which one shows a part of the other, or its mirror image.

    Args:
        looks: Looks of N images.
        labels: (N,) their classes, if known. Mirrored ones are then of one class: in another one
            they may be what it is about (an arrow to the left).

    Returns:
        First and second images of the pairs, (P,) int64 each.
    """
    found = [np.empty((0, 2), np.int64)]
    rich = _spread(looks.greys) >= _SPREAD
    for other in (looks, looks.mirrored()):
        pairs = _candidates(looks, other, labels)
        if labels is not None and other is not looks:
            pairs = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]]
        for start in range(0, len(pairs), _ROWS):
            some = pairs[start : start + _ROWS]
            a, b = looks.greys[some[:, 0]], other.greys[some[:, 1]]
            same = _agreement(a, b) >= (2 if other is looks else _MIRRORED)
            fit = np.flatnonzero(rich[some].all(1) & ~same)
            a, b = (each[fit].astype(np.float32) for each in (a, b))
            same[fit] = np.maximum(_fitted(a, b), _fitted(b, a)) >= _COSINE
            tints = _tint(looks.colours[some[:, 0]]) - _tint(other.colours[some[:, 1]])
            same &= np.abs(tints).max(1) <= _TINT
            found.append(some[same])
    every = np.concatenate(found)
    return every[:, 0], every[:, 1]


def _tint(colours: np.ndarray) -> np.ndarray:
    """Returns red and blue minus green in the mean, (P, 2)."""
    means = colours.astype(np.float64).mean((1, 2))
    return np.asarray(means[:, ::2] - means[:, 1:2])


def _candidates(looks: Looks, other: Looks, labels: np.ndarray | None) -> np.ndarray:
    """Returns (P, 2) images, and the most similar ones of each in `other`; a pair once."""
    pairs = [
        np.stack([rows[mine], rows[theirs]], 1)
        for rows in _compared(looks, labels)
        for mine, theirs in _nearest(looks.of(rows), other.of(rows))
    ]
    found = np.concatenate([np.empty((0, 2), np.int64), *pairs])
    return np.unique(np.sort(found, axis=1), axis=0)


def _compared(looks: Looks, labels: np.ndarray | None) -> Iterator[np.ndarray]:
    """Yields images that are compared with each other."""
    telling = np.flatnonzero(looks.telling())
    groups = [telling]
    if len(telling) > _LARGEST:
        groups = []
        if labels is not None:
            own = labels[telling]
            groups = [telling[own == label] for label in np.unique(own)]
    yield from (rows for rows in groups if 1 < len(rows) <= _LARGEST)


def _spread(greys: np.ndarray) -> np.ndarray:
    """Returns how many pixels the details of each image are spread over, (N,) float64."""
    found = [np.empty(0)]
    for start in range(0, len(greys), _ROWS):
        details = _details(greys[start : start + _ROWS])
        energy = np.square(details).astype(np.float64)
        found.append(np.square(energy.sum(1)) / np.square(energy).sum(1).clip(1))
    return np.concatenate(found)


def _nearest(mine: Looks, other: Looks) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields places of images, and of the most similar other ones."""
    count = len(mine.known)
    every = np.arange(count)
    for start in range(0, count, _ROWS):
        rows = every[start : start + _ROWS]
        cosines = mine.similarity(rows, every, other)
        cosines[np.arange(len(rows)), rows] = -1
        for _ in range(_MOST):
            best = cosines.argmax(1)
            near = cosines[np.arange(len(rows)), best] >= _SIMILAR
            yield rows[near], best[near]
            cosines[np.arange(len(rows)), best] = -1


def _fitted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns how well the best part of each `a` agrees with `b`.

    Args:
        a: (P, 32, 32) float32 grey levels.
        b: The same.

    Returns:
        (P,) float64 cosines of details; 0 where the levels are others.
    """
    cosines = np.zeros(len(a))
    # Sizes and shifts of the part, across and down: pixels that its edge moves by.
    part = np.zeros((len(a), 4))
    part[:, :2] = -1.0
    left = np.arange(len(a))
    for step in range(_STEPS):
        if not len(left):
            break
        part[left] = _better(a[left], b[left], part[left])
        if step in (1, _STEPS - 1):
            cosines[left] = _agreement(_seen(a[left], part[left]), b[left])
            left = left[cosines[left] >= _HOPELESS]
    differ = np.abs(_seen(a[left], part[left]) - b[left]).mean((1, 2), dtype=np.float64)
    cosines[left[differ > _LEVELS]] = 0
    return cosines


def _better(a: np.ndarray, b: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Returns the parts after a Gauss-Newton step, which fits brightness and contrast as well."""
    slopes = [np.zeros_like(a), np.zeros_like(a)]
    slopes[0][:, :, 1:-1] = (a[:, :, 2:] - a[:, :, :-2]) / 2
    slopes[1][:, 1:-1] = (a[:, 2:] - a[:, :-2]) / 2
    seen, across, down = (_seen(each, part) for each in (a, *slopes))
    axis = _axis().astype(np.float32)
    columns = [across * axis, down * axis[:, None], across, down, seen, np.ones_like(seen)]
    matrix = np.stack(columns, -1).reshape(len(a), -1, 6)
    turned = matrix.transpose(0, 2, 1)
    squares = (turned @ matrix).astype(np.float64) + np.eye(6)
    solved = np.linalg.solve(squares, (turned @ b.reshape(len(b), -1, 1)).astype(np.float64))[
        ..., 0
    ]
    contrast = np.maximum(solved[:, 4:5], 0.2)
    changed = part + np.clip(solved[:, :4] / contrast, -1.5, 1.5)
    # A part is not larger than the whole, and lies inside it, but for half a pixel.
    changed[:, :2] = changed[:, :2].clip(-_CUT / 2, 0.5)
    room = np.maximum(0.5, -changed[:, :2])
    changed[:, 2:] = changed[:, 2:].clip(-room, room)
    return np.rint(changed * _GRID) / _GRID


def _seen(pixels: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Returns the parts of images, (P, 32, 32) float32, by linear interpolation."""
    across, down = (_weights(part[:, direction], part[:, direction + 2]) for direction in (0, 1))
    # Weights are multiples of 1/16, so that these sums are exact in float32.
    return np.asarray(down @ pixels @ across.transpose(0, 2, 1))


def _weights(size: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Returns (P, 32, 32) weights of the pixels of a row for each pixel of its part."""
    places = np.arange(SIDE) + np.outer(size, _axis()) + shift[:, None]
    places = np.rint(places.clip(0, SIDE - 1) * _GRID) / _GRID
    return np.maximum(0, 1 - np.abs(places[..., None] - np.arange(SIDE))).astype(np.float32)


def _axis() -> np.ndarray:
    """Returns positions of pixels, from -1 at one edge to 1 at the other."""
    return (2 * np.arange(SIDE) - (SIDE - 1)) / (SIDE - 1)


def _agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns cosines of the Laplacians of images in 16 x 16 pixels."""
    one, other = (_details(each) for each in (a, b))
    squares = (one * one).sum(1).clip(1).astype(np.float64), (other * other).sum(1).clip(1)
    return np.asarray((one * other).sum(1) / np.sqrt(squares[0] * squares[1]))


def _details(pixels: np.ndarray) -> np.ndarray:
    half = SIDE // 2
    small = pixels.reshape(-1, half, 2, half, 2).sum((2, 4), dtype=np.float64)
    grey = np.rint(small * _GRID**2 / 4).astype(np.int64)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return (4 * grey[:, 1:-1, 1:-1] - around).reshape(len(grey), -1)
