"""Datasets on the Hugging Face hub: listed once, pinned to a commit, streamed by range.

A branch moves and a commit does not, so whatever revision is asked for becomes a commit when a
source is opened, and every path carries it: ``hf://datasets/owner/name@<commit>/data/0.parquet``.
The hub limits rates; what it says of waiting (``Retry-After``) is obeyed.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pinxit.config import UsageError
from pinxit.data.retry_after import seconds_of

T = TypeVar("T")

SCHEME = "hf://"
RETRIES = 5
LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is asked again after this long."""
REPO = r"[\w][\w.-]*/[\w][\w.-]*"
REVISION = r"refs/(?:convert|pr)/[^/]+|[^/@]+"


@dataclass(frozen=True, slots=True)
class HubPath:
    """A dataset repository, a revision of it, and what is wanted inside."""

    repo: str
    """owner/name."""
    revision: str | None
    inside: str
    """A file, a folder or a glob; "" is everything."""


def is_hub_name(path: str) -> bool:
    """Whether this is ``owner/name`` or ``owner/name@revision`` and nothing more."""
    return re.fullmatch(rf"{REPO}(?:@(?:{REVISION}))?", path) is not None


def parse_hub_path(path: str, revision: str | None = None) -> HubPath | None:
    """Reads ``[hf://datasets/]owner/name[@revision][/inside]``; None where it is not one.

    `revision` is taken where the path names none; two that differ are an error.
    """
    plain = path.removeprefix(SCHEME).removeprefix("datasets/").rstrip("/")
    match = re.fullmatch(rf"({REPO})(?:@({REVISION}))?(?:/(.*))?", plain)
    if match is None:
        return None
    repo, named, inside = match.groups()
    if named and revision and named != revision:
        raise UsageError(f"revision: {revision!r}, but the path says {named!r}: {path}")
    return HubPath(repo, named or revision, inside or "")


def list_hub(where: HubPath, *, form: str) -> tuple[str, list[tuple[str, int | None]]]:
    """The commit, and the files under `where` at it: (path within the repository, size).

    `form` names the format that a local copy must have, for the message when there is no network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        info = politely(lambda: HfApi().dataset_info(where.repo, revision=where.revision))
        commit = str(info.sha)
        found = politely(lambda: _find(f"datasets/{where.repo}@{commit}", where.inside))
    except (HTTPError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UsageError(_refusal(where, error, form)) from error
    start = f"datasets/{where.repo}@{commit}/"
    return commit, [(name.removeprefix(start), size) for name, size in found]


def open_hub(path: str, *, stream: bool = False) -> io.IOBase:
    """A file by its full ``hf://`` path: seekable, or one `stream` from beginning to end."""
    from huggingface_hub import HfFileSystem

    options: dict[str, Any] = {"block_size": 0} if stream else {}
    name = path.removeprefix(SCHEME)
    return politely(lambda: HfFileSystem().open(name, "rb", **options))


def politely(call: Callable[[], T]) -> T:
    """What `call` returns, asked again as the server wishes when it is busy (429, 5xx)."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(RETRIES):
        try:
            return call()
        except HfHubHTTPError as error:
            code = getattr(error.response, "status_code", 0)
            if code != 429 and not 500 <= code <= 599:
                raise
            time.sleep(wait_of(error.response.headers.get("retry-after"), attempt))
    return call()


def wait_of(header: str | None, attempt: int) -> float:
    """Seconds to wait before attempt + 1: a Retry-After header, else 1, 2, 4 ...; bounded."""
    wait = float(2**attempt)
    if header is not None:
        asked = seconds_of(header)
        wait = wait if asked is None else asked
        with contextlib.suppress(ValueError):  # fractions, too
            wait = float(header)
    return min(max(0.0, wait), LONGEST_WAIT)


def _find(root: str, inside: str) -> list[tuple[str, int | None]]:
    from huggingface_hub import HfFileSystem

    fs = HfFileSystem()
    place = f"{root}/{inside}".rstrip("/")
    wild = any(mark in inside for mark in "*?[")
    found: Any = fs.glob(place, detail=True) if wild else fs.find(place, detail=True)
    return [(name, entry.get("size")) for name, entry in found.items() if entry["type"] == "file"]


def _refusal(where: HubPath, error: Exception, form: str) -> str:
    """Why the hub did not give a dataset, and what to do, in one message."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/datasets/{where.repo}"
    said = " ".join(str(error).split())[:300] or type(error).__name__
    what = f"the dataset {where.repo} on the Hugging Face hub"
    if isinstance(error, GatedRepoError):
        why = f"{what} is gated: accept its conditions at {page} and log in (hf auth login)"
    elif isinstance(error, RevisionNotFoundError):
        why = f"{what} has no revision {where.revision!r}"
    elif isinstance(error, RepositoryNotFoundError):
        why = f"{what} does not exist, or is private: then log in (hf auth login)"
    elif isinstance(error, FileNotFoundError):
        why = f"{what} has no {where.inside!r}"
    else:
        why = f"{what} cannot be reached ({said})"
    return (
        f"{why}. Without the hub, --dataset_path takes a local file, folder or glob: {form}. "
        f"Where there is a network, this fetches it: "
        f"hf download {where.repo} --repo-type dataset --local-dir DIR"
    )
