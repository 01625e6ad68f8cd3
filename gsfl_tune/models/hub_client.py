"""The client of the Hugging Face hub: where it asks, what it shows, and its errors in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from gsfl_tune.hub_names import HubPlace
from gsfl_tune.models.weights import first_line

READ = "allowed: a token that may read it, in HF_TOKEN or of `hf auth login`"


class Raised(NamedTuple):
    """Holds the errors that stand for those of the client.

    Attributes:
        wrong: For a name or revision that does not exist.
        refused: For what this person or machine may not have.
        unreachable: For a hub that does not answer, or must not be asked.
    """

    wrong: type[Exception]
    refused: type[Exception]
    unreachable: type[Exception]


def endpoint() -> str | None:
    """Returns the address of the hub, if ``HF_ENDPOINT`` sets another one."""
    return os.environ.get("HF_ENDPOINT") or None


def address() -> str:
    """Returns the address of the hub."""
    return endpoint() or "https://huggingface.co"


@contextmanager
def client_errors(
    place: HubPlace, raised: Raised, *, access: str = READ, offline: str = ""
) -> Iterator[None]:
    """Turns errors of the hub's client into a sentence that says what to do.

    Args:
        place: What the hub is asked for.
        raised: Errors in place of those of the client.
        access: What is said to whom the hub refuses, behind that it does.
        offline: What else works without a network.
    """
    from huggingface_hub import errors

    offline = offline and f"; {offline}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise raised.refused(
            f"{place}: its owner must let you in first: ask at {address()}/{place.repository}, and "
            "give your token in HF_TOKEN or by `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise raised.refused(
            f"{place}: found no such model at {address()}, or it is private and the token does not "
            "open it; allowed: a public one, or a token in HF_TOKEN or of `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise raised.wrong(f"{place}: the model has no revision {place.revision}") from error
    except errors.HFValidationError as error:
        raise raised.wrong(f"{place}: no name of a model ({first_line(error)})") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise raised.refused(f"{place}: {address()} refuses it ({status}); {access}") from error
        said = error.server_message or first_line(error)
        raise raised.unreachable(
            f"{place}: {address()} answered {status} ({said}){offline}"
        ) from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise raised.unreachable(
            f"{place}: {address()} cannot be reached ({first_line(error)}){offline}"
        ) from error
    except OSError as error:  # of the disk, or of what is no hub
        raise raised.refused(f"{place}: {error.strerror or first_line(error)}") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Switches the client's progress bars off: the command shows what it does itself."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
