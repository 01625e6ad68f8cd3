"""Bundles of the Hugging Face hub: ``hf://OWNER/NAME`` and ``hf://OWNER/NAME@REVISION``.

Only safetensors and JSON are downloaded. A commit is resolved first and everything is read of it,
so that a push in the meantime cannot mix two bundles.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

from gsfl_tune.activity import activity
from gsfl_tune.bundles import files
from gsfl_tune.bundles.files import BundleError
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.hub_names import HubPlace
from gsfl_tune.models.hub_client import Raised, client_errors, endpoint, without_bars

_PLAIN = (*files.REQUIRED, files.CARD)
_TENSORS = (files.MODEL, files.SHARED, files.NEIGHBOURS)
_SCHEME = "hf://"
# As a `Path`, `hf://` has one slash.
_PLACE = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@(\S+))?")
USER_ERRORS = Raised(UserError, UserError, UserError)
_OFFLINE = (
    "a bundle that was loaded before needs no network if it is named with its full commit, "
    "hf://OWNER/NAME@COMMIT"
)

_log = logging.getLogger(__name__)


def hub_place(path: str | Path) -> HubPlace | None:
    """Returns the place on the hub that a path names; None for a path of this machine.

    Raises:
        UserError: If it begins with ``hf:/`` and goes on otherwise than it must.
    """
    text = os.fspath(path)
    if not text.startswith("hf:/"):
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UserError(
            f"{text}: found no bundle of the hub, allowed: hf://OWNER/NAME or "
            "hf://OWNER/NAME@REVISION"
        )
    return bundle_place(found[1], found[2])


def bundle_place(repository: str, revision: str | None = None) -> HubPlace:
    """Returns the place of a bundle on the hub.

    Args:
        repository: ``OWNER/NAME``.
        revision: A branch, tag or commit; None for the newest commit.
    """
    return HubPlace(repository, revision, _SCHEME)


def fetch(place: HubPlace) -> tuple[Path, HubPlace]:
    """Downloads a bundle, or finds it in the cache of the hub's client.

    A bundle that is named by its full commit and was loaded before needs no network.

    Args:
        place: The bundle.

    Returns:
        Its directory, and its place with the full commit.

    Raises:
        BundleError: If the repository holds no bundle, or one of another format.
        UserError: If there is no such repository or revision, it must not be read, or the hub
            cannot be reached.
    """
    from huggingface_hub import HfApi

    if place.pinned:
        with _problems(place):
            folder = _cached(place)
        if folder is not None:
            return folder, place
    with _problems(place), activity(f"downloading {place}"), without_bars():
        api = HfApi(endpoint=endpoint())
        commit = api.model_info(place.repository, revision=place.revision).sha
        if commit is None:
            raise UserError(f"{place}: {api.endpoint} names no commit of it")
        pinned = bundle_place(place.repository, commit)
        _check(_download(pinned, _PLAIN), pinned)
        folder = _download(pinned, (*_PLAIN, *_TENSORS))
    if pinned != place:
        _log.warning("%s is now %s: the latter always means this bundle", place, pinned)
    return folder, pinned


def _cached(place: HubPlace) -> Path | None:
    """Returns the directory of a bundle that was loaded before; None if it was not."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _download(place, (*_PLAIN, *_TENSORS), local=True)
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / files.MODEL).is_file() else None


def _problems(place: HubPlace) -> AbstractContextManager[None]:
    return client_errors(place, USER_ERRORS, offline=_OFFLINE)


def _download(place: HubPlace, names: tuple[str, ...], *, local: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    found: str = snapshot_download(
        place.repository,
        revision=place.revision,
        allow_patterns=list(names),
        endpoint=endpoint(),
        local_files_only=local,
    )
    return Path(found)


def _check(folder: Path, place: HubPlace) -> None:
    """Checks that it is a bundle of tensors before these are downloaded."""
    missing = [name for name in files.REQUIRED if not (folder / name).is_file()]
    if missing:
        raise BundleError(
            f"{place}: holds no bundle of gsfl-tune, missing {', '.join(missing)}; allowed: what "
            "`gsfl-tune push` wrote"
        )
    description = files.read_json_file(folder / files.CONFIG)
    if not isinstance(description, dict) or "format" not in description:
        raise BundleError(f"{place}: holds no bundle of gsfl-tune ({files.CONFIG} is another)")
    kind = description.get("export", {}).get("format", "safetensors")
    if kind != "safetensors":
        raise BundleError(
            f"{place}: exported as {kind}; hf:// loads safetensors alone. Download the model with "
            "the hub's own tools and load the directory, if you trust its author"
        )
