"""Publication of a bundle on the Hugging Face hub, with a card that the hub understands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsfl_tune.bundles import files
from gsfl_tune.bundles.reading import read_description
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.hub import USER_ERRORS, bundle_place
from gsfl_tune.export.hub_metadata import card_metadata
from gsfl_tune.hub_names import HubPlace
from gsfl_tune.models.hub_client import address, client_errors, endpoint
from gsfl_tune.run.layout import RunDirectory

# What a bundle consists of: nothing else of its directory is published.
_MODELS = [name for format in files.MODELS for name in files.model_files(format)]
_FILES = (*files.REQUIRED, files.CARD, *_MODELS, files.SHARED, files.NEIGHBOURS)
# What the hub itself puts into a repository.
_OF_THE_HUB = {".gitattributes", files.CARD}
_MAIN = "main"
_WRITE = (
    "the name belongs to somebody else, or the token may not do this; allowed: OWNER is you or an "
    "organization of yours, and the token has write access"
)
# Paths that name a folder of this machine in another way.
_PLACE = re.compile(r"~[\w.-]*/|\$(\w+|\{\w+\})/|file:", re.IGNORECASE)
# User and password of a URL, and its query.
_USER = re.compile(r"://[^/\s]*@")
_QUERY = re.compile(r"(://[^\s?]*)\?\S*")


@dataclass(frozen=True)
class Pushed:
    """Says where a bundle is now.

    Attributes:
        place: Its place, with the full commit.
        url: Its page.
        files: Names of its files.
    """

    place: HubPlace
    url: str
    files: list[str]


def push(
    source: str | Path,
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Pushed:
    """Publishes a bundle as a model on the hub, in one commit.

    Paths of this machine in its configuration and results become their last part, and URLs lose
    user, password and query. The token is read by
    the hub's client: from ``HF_TOKEN``, or what ``hf auth login`` left.

    Args:
        source: A run, whose winner is published, or the directory of a bundle.
        name: ``OWNER/NAME``, or ``NAME`` for the owner of the token.
        private: Whether a new model can be seen by its owner alone.
        revision: Branch that gets the commit; made if needed. Default: ``main``.
        message: Message of the commit.
        licence: Identifier of a licence for the card; default: that of the backbone's weights.
        say: Receives progress messages.

    Raises:
        BundleError: If there is no bundle, or it is damaged.
        UserError: If there is no token, the hub refuses it or cannot be reached, the model exists
            and holds something else, or is public although `private` is wanted.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    folder = _bundle_of(Path(source))
    description = _checked(folder)
    place = bundle_place(name.removeprefix("hf://"), revision)
    if get_token() is None:
        raise UserError(
            f"{place}: found no token of the hub, allowed: HF_TOKEN, or `hf auth login` (a token "
            "with write access, from https://huggingface.co/settings/tokens)"
        )
    contents = _contents(folder, description, licence)
    if files.NEIGHBOURS in contents:
        say(f"{files.NEIGHBOURS} holds thumbnails of training images: they are published too")
    with client_errors(place, USER_ERRORS, access=_WRITE):
        api = HfApi(endpoint=endpoint(), library_name="gsfl-tune")
        repository = str(api.create_repo(place.repository, private=private, exist_ok=True).repo_id)
        place = bundle_place(repository, revision)
        if private and not api.model_info(repository).private:
            raise UserError(
                f"{place}: is public already, found --private; allowed: make it private on its "
                "page first, or another name"
            )
        if revision not in (None, _MAIN):
            api.create_branch(repository, branch=revision, exist_ok=True)
        there = api.list_repo_files(repository, revision=revision)
        others = set(there) - _OF_THE_HUB
        if others and files.CLASSES not in others:
            raise UserError(
                f"{place}: holds something else than a bundle ({', '.join(sorted(others)[:3])}); "
                "allowed: a new name, or that of an earlier push"
            )
        operations: list[Any] = [CommitOperationAdd(key, data) for key, data in contents.items()]
        stale = [key for key in there if key in _FILES and key not in contents]
        operations += [CommitOperationDelete(key) for key in stale]
        say(f"sending {len(contents)} files")
        commit = api.create_commit(
            repository,
            operations,
            commit_message=message or f"Bundle of {description['experiment'].get('name', 'a run')}",
            revision=revision,
        )
    done = bundle_place(repository, str(commit.oid))
    url = f"{address()}/{repository}"
    return Pushed(done, url, list(contents))


def _bundle_of(source: Path) -> Path:
    if (source / files.CLASSES).is_file() or not source.is_dir():
        return source
    best = RunDirectory(source).best
    if not best.is_dir():
        raise UserError(
            f"{source}: found no bundle in it, allowed: a run that has a winner (RUN/best), or "
            "the directory of an export"
        )
    return best


def _checked(folder: Path) -> dict[str, Any]:
    """Reads the description and checks the digests, without building the network."""
    description = read_description(folder)
    for name, digest in description["sha256"].items():
        files.read_checked(folder / name, digest)
    return description


def _contents(
    folder: Path, description: dict[str, Any], licence: str | None
) -> dict[str, bytes | str]:
    """Returns what is published, by name: bytes, or the path of a file."""
    contents: dict[str, bytes | str] = {}
    for name in _FILES:
        path = folder / name
        if not path.is_file():
            continue
        if name in (files.CONFIG, files.METRICS):
            content = json.loads(path.read_bytes())
            contents[name] = files.json_bytes(without_places(content))
        elif name == files.CARD:
            contents[name] = _card(path.read_text(encoding="utf-8"), folder, description, licence)
        else:
            contents[name] = str(path)
    return contents


def _card(text: str, folder: Path, description: dict[str, Any], licence: str | None) -> bytes:
    if text.startswith("---\n"):  # somebody has written metadata: they know better
        return text.encode()
    metrics = files.read_json_file(folder / files.METRICS)
    head = card_metadata(description, metrics, licence)
    return f"---\n{head.strip()}\n---\n\n{text}".encode()


def without_places(content: Any) -> Any:
    """Replaces paths of this machine by their last part, and drops secrets of URLs.

    Nobody else has these folders; user, password and query of an address are for its owner alone.
    """
    if isinstance(content, dict):
        return {key: without_places(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_places(value) for value in content]
    return _public(content) if isinstance(content, str) else content


def _public(text: str) -> str:
    if Path(text).is_absolute() or _PLACE.match(text):
        return Path(text).name
    return _QUERY.sub(r"\1", _USER.sub("://", text))
