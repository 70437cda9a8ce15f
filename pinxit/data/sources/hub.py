"""Lists and opens datasets on the Hugging Face hub, pinned to a commit.

A branch moves and a commit does not. Opening a source therefore resolves its revision to a commit,
and every path contains it: ``hf://datasets/owner/name@<commit>/data/0.parquet``. Files are streamed
by byte ranges. The hub limits request rates; its ``Retry-After`` headers are respected.
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
"""The longest wait between two attempts in seconds, even if the server asks for more."""
REPO = r"[\w][\w.-]*/[\w][\w.-]*"
REVISION = r"refs/(?:convert|pr)/[^/]+|[^/@]+"


@dataclass(frozen=True, slots=True)
class HubPath:
    """A dataset repository, its revision, and a path inside it."""

    repo: str
    """The repository id, owner/name."""
    revision: str | None
    inside: str
    """A file, a folder or a glob within the repository; "" means everything."""


def is_hub_name(path: str) -> bool:
    """Returns whether a path is exactly ``owner/name`` or ``owner/name@revision``."""
    return re.fullmatch(rf"{REPO}(?:@(?:{REVISION}))?", path) is not None


def parse_hub_path(path: str, revision: str | None = None) -> HubPath | None:
    """Parses ``[hf://datasets/]owner/name[@revision][/inside]``. Returns None if it is not one.

    `revision` applies if the path names none. Two different revisions raise UsageError.
    """
    plain = path.removeprefix(SCHEME).removeprefix("datasets/").rstrip("/")
    match = re.fullmatch(rf"({REPO})(?:@({REVISION}))?(?:/(.*))?", plain)
    if match is None:
        return None
    repo, named, inside = match.groups()
    if named and revision and named != revision:
        raise UsageError(f"dataset_revision: {revision!r} contradicts {named!r} in the path {path}")
    return HubPath(repo, named or revision, inside or "")


def list_hub(where: HubPath, *, form: str) -> tuple[str, list[tuple[str, int | None]]]:
    """Returns the commit, and the files of `where` at it as (path in the repository, bytes).

    `form` describes the files of a local copy, for the error message when the hub is unreachable.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        info = politely(lambda: HfApi().dataset_info(where.repo, revision=where.revision))
        commit = str(info.sha)
        entries = politely(lambda: _find(f"datasets/{where.repo}@{commit}", where.inside))
    except (HTTPError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UsageError(_refusal(where, error, form)) from error
    start = f"datasets/{where.repo}@{commit}/"
    return commit, [(name.removeprefix(start), size) for name, size in entries]


def open_hub(path: str, *, stream: bool = False, exact: bool = False) -> io.IOBase:
    """Opens a file by its full ``hf://`` path, seekable or as one `stream` from start to end.

    With `exact`, a seekable file is not read ahead.
    """
    from huggingface_hub import HfFileSystem

    options: dict[str, Any] = {"cache_type": "none"} if exact else {}
    options |= {"block_size": 0} if stream else {}
    name = path.removeprefix(SCHEME)
    return politely(lambda: HfFileSystem().open(name, "rb", **options))


def hub_info(path: str) -> dict[str, Any]:
    """Returns the facts that the hub states about a file, which is given by its full path."""
    from huggingface_hub import HfFileSystem

    name = path.removeprefix(SCHEME)
    return politely(lambda: HfFileSystem().info(name))


def politely(call: Callable[[], T]) -> T:
    """Returns the result of `call`, and retries when the server is busy (429, 5xx), as it asks."""
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
    """Returns the seconds to wait after an attempt, from a Retry-After header or 1, 2, 4 ...

    The wait is at most `LONGEST_WAIT`.
    """
    wait = float(2**attempt)
    if header is not None:
        asked = seconds_of(header)
        wait = wait if asked is None else asked
        with contextlib.suppress(ValueError):  # accept fractions as well
            wait = float(header)
    return min(max(0.0, wait), LONGEST_WAIT)


def _find(root: str, inside: str) -> list[tuple[str, int | None]]:
    from huggingface_hub import HfFileSystem

    fs = HfFileSystem()
    path = f"{root}/{inside}".rstrip("/")
    is_glob = any(mark in inside for mark in "*?[")
    entries: Any = fs.glob(path, detail=True) if is_glob else fs.find(path, detail=True)
    return [(name, entry.get("size")) for name, entry in entries.items() if entry["type"] == "file"]


def _refusal(where: HubPath, error: Exception, form: str) -> str:
    """Returns one message that explains why a dataset is unavailable, and what to do about it."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/datasets/{where.repo}"
    message = " ".join(str(error).split())[:300] or type(error).__name__
    dataset = f"the dataset {where.repo} on the Hugging Face hub"
    if isinstance(error, GatedRepoError):
        why = f"{dataset} is gated: accept its conditions at {page} and log in (hf auth login)"
    elif isinstance(error, RevisionNotFoundError):
        why = f"{dataset} has no revision {where.revision!r}"
    elif isinstance(error, RepositoryNotFoundError):
        why = f"{dataset} does not exist, or is private and needs a login (hf auth login)"
    elif isinstance(error, FileNotFoundError):
        why = f"{dataset} has no {where.inside!r}"
    else:
        why = f"{dataset} cannot be reached ({message})"
    return (
        f"{why}. Without the hub, set --dataset_path to a local file, folder or glob: {form}. "
        f"On a machine with network access, this command downloads the dataset: "
        f"hf download {where.repo} --repo-type dataset --local-dir DIR"
    )
