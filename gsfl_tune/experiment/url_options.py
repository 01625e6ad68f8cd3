"""Options for a file system behind a URL, such as ``?region=eu-central-1``."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

# Schemes whose options `pyarrow.fs.FileSystem.from_uri` reads. Elsewhere `?` is any character.
_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
# Names with values up to the end; what has a slash or a wildcard behind `?` is a pattern.
_OPTIONS = re.compile(r"\?[a-z_]+=[^/?*\[\]]*$")
# As `AWS_ENDPOINT_URL` is written; its slashes would make a pattern of it.
_WITH_SCHEME = re.compile(r"[?&]endpoint_override=(https?)://", re.IGNORECASE)


def split_options(url: str) -> tuple[str, str]:
    """Divides a URL from the options for its file system.

    Args:
        url: A URL, also with patterns, or a path, which has no options.

    Returns:
        The URL without them, and them with their ``?``; empty if there are none.
    """
    found = _OPTIONS.search(url) if url.partition("://")[0] in _SCHEMES else None
    return (url, "") if found is None else (url[: found.start()], found.group())


def server_in(options: str) -> str:
    """Returns those of some options that name another server; empty if there are none.

    Without a scheme, as the result is part of names of files, which are divided at slashes.
    """
    server = dict(parse_qsl(options.removeprefix("?"))).get("endpoint_override", "")
    server = server.rstrip("/").rpartition("/")[2]
    return f"?endpoint_override={server}" if server else ""


def options_problem(url: str) -> str | None:
    """Says what is wrong with the options of a URL that are none because of it, or None."""
    found = _WITH_SCHEME.search(url) if url.partition("://")[0] in _SCHEMES else None
    if found is None:
        return None
    scheme = found.group(1)
    return "found an endpoint with its scheme, allowed endpoint_override=HOST:PORT&scheme=" + scheme
