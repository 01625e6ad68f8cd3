"""Weights of the Hugging Face hub, in repositories as timm's ``push_to_hf_hub`` writes them.

``config.json`` names the architecture and how inputs are normalised, ``model.safetensors`` holds
the tensors. A commit is resolved first and everything is read of it. The client's own cache keeps
the files: what is there and named by its full commit needs no network.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from gsfl_tune.activity import activity
from gsfl_tune.hub_names import HubPlace, hub_place
from gsfl_tune.models.hub_client import Raised, client_errors, endpoint, without_bars
from gsfl_tune.models.weights import (
    WeightsError,
    WeightsUnavailable,
    architecture,
    load_tensors,
)

CONFIG = "config.json"
CARD = "README.md"
# Tensors alone first. What `torch.save` wrote is read without the code that may be in it.
_FILES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
# Arguments of a model that change neither what it computes nor its tensors, or that are seen in
# the shapes and names of these.
_HARMLESS = frozenset(
    {
        *("num_classes", "in_chans", "img_size", "global_pool", "class_token", "drop_rate"),
        *("drop_path_rate", "proj_drop_rate", "pos_drop_rate", "attn_drop_rate"),
        *("patch_drop_rate", "dynamic_img_size", "dynamic_img_pad", "strict_img_size"),
    }
)
_HEAD = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
# The client itself asks a hub that does not answer for half a minute.
_SECONDS = 10.0

_log = logging.getLogger("gsfl_tune.models")


class HubUnreachable(WeightsUnavailable):
    """Raised where the hub does not answer, or must not be asked, and the cache lacks a file."""


_RAISED = Raised(WeightsError, WeightsUnavailable, HubUnreachable)


@dataclass(frozen=True)
class HubWeights:
    """Describes weights on the hub, without their tensors.

    Attributes:
        place: Their place with the full commit.
        architecture: Name of the timm model.
        arguments: Names of the arguments with which the authors change what the model computes.
        mean: Mean of the inputs, per channel; None where it is not stated.
        std: Standard deviation of these inputs.
        stated: Licences in small letters, each with who states it: the model card, then
            ``config.json``. All of them bind.
        unread: Why the model card could not be read, so that it may state another licence; empty
            if it was, or there is none.
        files: Names of files that may hold the tensors, the best first.
    """

    place: HubPlace
    architecture: str
    arguments: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    stated: tuple[tuple[str, str], ...]
    unread: str
    files: tuple[str, ...]

    def problem(self, backbone: str) -> str | None:
        """Says why they cannot be those of a backbone, or returns None.

        Args:
            backbone: Name of a timm model.
        """
        if self.architecture != architecture(backbone):
            return (
                f"{self.place}: holds weights of {self.architecture}, found model.backbone "
                f"{backbone}; allowed: model.backbone: {self.architecture}"
            )
        if self.arguments:
            return (
                f"{self.place}: its {CONFIG} changes what {self.architecture} computes by "
                f"{', '.join(self.arguments)}, allowed is the model as timm builds it"
            )
        return None


def look_up(place: HubPlace) -> HubWeights:
    """Returns what is known of weights on the hub; their tensors are not downloaded.

    Where the hub cannot be reached, the copy that the client has kept is taken, with a warning.

    Args:
        place: A model of the hub.

    Raises:
        HubUnreachable: If nobody answers and there is no copy.
        WeightsUnavailable: If there is no such repository, or it may not be read.
        WeightsError: If there is no such revision, or it holds no timm model.
    """
    try:
        file = _fetch(place, CONFIG)
    except HubUnreachable as error:
        kept = _kept(place, CONFIG)
        if not isinstance(kept, Path):
            raise
        _log.warning("%s: its copy of %s in the cache is used", error, kept.parent.name)
        file = kept
    if file is None:
        raise WeightsError(f"{place}: holds no {CONFIG}; {_WANTED}")
    return _described(HubPlace(place.repository, file.parent.name), file)


def load_hub(
    model: nn.Module, name: str, place: HubPlace, unused: Collection[str] = frozenset()
) -> HubWeights:
    """Loads weights of the hub into a timm model without classifier.

    Args:
        model: The model.
        name: Its timm name.
        place: Where the weights are.
        unused: Names of parameters that nothing depends on; they may be missing.

    Returns:
        What is known of them.

    Raises:
        WeightsUnavailable: If they cannot be had now.
        WeightsError: If they are no weights of this model.
    """
    found = look_up(place)
    if problem := found.problem(name):
        raise WeightsError(problem)
    for file in found.files:
        path = _fetch(found.place, file)
        if path is not None:
            load_tensors(model, name, path, f"{found.place}: {file}", unused)
            return found
    raise WeightsError(f"{found.place}: holds no {' or '.join(found.files)}; {_WANTED}")


def hub_problem(backbone: str, weights: str) -> str | None:
    """Says why weights on the hub cannot be those of a backbone, or returns None.

    Where the hub cannot be reached, nothing is known and nothing is said.

    Args:
        backbone: Name of a timm model.
        weights: A value of ``model.weights``; others than those of the hub are no problem here.
    """
    place = hub_place(weights)
    if place is None:
        return None
    try:
        return look_up(place).problem(backbone)
    except HubUnreachable:
        return None
    except WeightsError as error:
        return str(error)


_WANTED = (
    f"allowed: a model of timm with {CONFIG} and {_FILES[0]}, as timm's push_to_hf_hub writes it"
)


def _described(place: HubPlace, file: Path) -> HubWeights:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{place}: {CONFIG} cannot be read ({error})") from error
    content = content if isinstance(content, dict) else {}
    name = content.get("architecture")
    if not isinstance(name, str) or not name:
        kinds = content.get("architectures")
        other = f", but is of {kinds[0]}" if isinstance(kinds, list) and kinds else ""
        raise WeightsError(f"{place}: {CONFIG} names no architecture of timm{other}; {_WANTED}")
    # Before timm 0.9 both were one.
    nested = content.get("pretrained_cfg")
    config = nested if isinstance(nested, dict) else content
    arguments = content.get("model_args")
    arguments = arguments if isinstance(arguments, dict) else {}
    named = config.get("hf_hub_filename")
    own = [named] if isinstance(named, str) and re.fullmatch(r"[\w-][\w.-]*", named) else []
    files = [each for each in own if each.endswith(_SUFFIXES)] + list(_FILES)
    in_card, unread = _licences_of_card(place)
    return HubWeights(
        place,
        architecture(name),
        tuple(sorted(each for each in map(str, arguments) if each not in _HARMLESS)),
        _statistics(place, "mean", config.get("mean")),
        _statistics(place, "std", config.get("std")),
        _stated(in_card, config.get("license")),
        unread,
        tuple(sorted(dict.fromkeys(files), key=lambda each: not each.endswith(".safetensors"))),
    )


def _statistics(place: HubPlace, name: str, found: Any) -> tuple[float, ...] | None:
    """Returns mean or std of the channels, or None where the file names none."""
    if found is None:
        return None
    try:
        values = tuple(float(each) for each in found)
    except (TypeError, ValueError):
        values = ()
    least = 0.0 if name == "std" else -math.inf
    if len(values) == 3 and all(least < each < math.inf for each in values):
        return values
    wanted = "three numbers above 0" if name == "std" else "three numbers"
    raise WeightsError(f"{place}: {name} in {CONFIG} is {found}; allowed: {wanted}")


def _stated(in_card: Any, in_config: Any) -> tuple[tuple[str, str], ...]:
    """Returns the licences that a repository states, each with who states it."""
    found = {"its model card": in_card, f"its {CONFIG}": in_config}
    return tuple(
        (name.strip().lower(), who)
        for who, names in found.items()
        for name in (names if isinstance(names, list) else [names])
        if isinstance(name, str) and name.strip().lower() not in ("", "unknown")
    )


def _licences_of_card(place: HubPlace) -> tuple[Any, str]:
    """Returns what a model card states as licence, and why it could not be read, if so."""
    try:
        file = _fetch(place, CARD)
    except WeightsError as error:
        return None, str(error)
    try:
        text = "" if file is None else file.read_text(encoding="utf-8")
        head = _HEAD.match(text)
        about = yaml.safe_load(head[1]) if head else None
    except (OSError, ValueError, yaml.YAMLError):
        return None, ""
    if not isinstance(about, dict):
        return None, ""
    name = about.get("license")
    return (about.get("license_name", name) if name in ("other", ["other"]) else name), ""


def _kept(place: HubPlace, name: str) -> Path | bool | None:
    """Returns a file in the client's cache, False if the repository lacks it, None if unknown."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(place.repository, name, revision=place.revision)
    except ValueError:  # no name of a repository: said where the hub is asked
        return None
    if found is None:
        return None
    return Path(found) if isinstance(found, str) else False


def _fetch(place: HubPlace, name: str) -> Path | None:
    """Returns a file in the client's cache, downloaded if it is not there.

    Args:
        place: The repository; of a full commit, what is kept is not asked for again.
        name: Of the file.

    Returns:
        Its path, or None if the repository has no such file.
    """
    from huggingface_hub import HfApi, errors, hf_hub_download

    if place.pinned and (kept := _kept(place, name)) is not None:
        return kept if isinstance(kept, Path) else None
    offline = (
        "without a network: what was loaded before and is named with its full commit, "
        f"{place.repository}@COMMIT, or a file"
    )
    said = client_errors(place, _RAISED, offline=offline)
    with said, activity(f"downloading {name} of {place}"), without_bars():
        HfApi(endpoint=endpoint()).model_info(
            place.repository, revision=place.revision, timeout=_SECONDS
        )
        try:
            found: str = hf_hub_download(
                place.repository, name, revision=place.revision, endpoint=endpoint()
            )
        except errors.RemoteEntryNotFoundError:
            return None
    return Path(found)
