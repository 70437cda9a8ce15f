"""Uploads an exported folder to the Hugging Face Hub.

``HF_TOKEN`` (or ``hf auth login``) gives the token and ``HF_ENDPOINT`` the address of the Hub.
`huggingface_hub` sends large files to Xet storage if the package ``hf_xet`` is installed, unless
``HF_HUB_DISABLE_XET=1`` is set, and to Git LFS otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pinxit.config import UsageError
from pinxit.version import __version__

FIELD = "push_to_hub"
"""The setting that the messages name."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
FOLDERS = ("transformer", "text_encoder", "tokenizer", "vae", "scheduler", "pinxit")
"""Folders whose files from an earlier export are removed, such as pieces of a split file."""
OTHER_KINDS = ("dataset", "space")


def check_repository(repository: str, *, private: bool) -> None:
    """Raises `UsageError` unless this user can upload a model to the repository.

    Asks the Hub who the token belongs to, and whether the repository exists. Nothing is created.
    """
    if NAME.fullmatch(repository) is None or ".." in repository or "--" in repository:
        problem = "not the id of a repository"
        raise UsageError(FIELD, repository, problem=problem, valid="OWNER/NAME")
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        problem = "not possible without a token of the Hub"
        valid = "HF_TOKEN=... in the environment, or `hf auth login`"
        raise UsageError(FIELD, repository, problem=problem, valid=valid)
    api = HfApi()
    owner = repository.partition("/")[0]
    with _explained(repository, "checked"):
        user = api.whoami()
    owners = [str(user.get("name")), *(str(org.get("name")) for org in user.get("orgs") or ())]
    if owner not in owners:
        problem = f"not in a namespace of this token, which belongs to {owners[0]}"
        raise UsageError(FIELD, repository, problem=problem, valid=[f"{o}/NAME" for o in owners])
    with _explained(repository, "checked"):
        _check_existing(repository, private)


def _check_existing(repository: str, private: bool) -> None:
    """Raises if the repository is not a model's, or public although it must be private."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    try:
        existing = api.repo_info(repository)
    except RepositoryNotFoundError:
        for kind in OTHER_KINDS:
            if api.repo_exists(repository, repo_type=kind):
                problem = f"a {kind} on the Hub, not a model"
                raise UsageError(FIELD, repository, problem=problem, valid="another NAME") from None
        return
    if private and not existing.private:
        problem = "a public repository already, so the upload would not be private"
        raise UsageError(FIELD, repository, problem=problem, valid="another NAME, or no --private")


def upload_folder(folder: Path, repository: str, *, private: bool) -> str:
    """Creates the repository if needed, uploads the folder in one commit, and returns the address.

    The folder stays as it is, so that an upload that failed can be repeated. Raises `UsageError`.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _explained(repository, "written", folder):
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"Export by Pinxit {__version__}",
            delete_patterns=[f"{name}/*" for name in FOLDERS],
        )
    return str(address)


@contextmanager
def _explained(repository: str, action: str, folder: Path | None = None) -> Iterator[None]:
    """Turns the errors of the Hub's client into a `UsageError` that says what to do."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except UsageError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        again = f". {folder} is complete: hf upload {repository} {folder}" if folder else ""
        message = f"{FIELD}: {repository!r} cannot be {action}: {_reason(error)}{again}"
        raise UsageError(message) from error


def _reason(error: BaseException) -> str:
    """Returns why the client failed, in words.

    The client raises a RuntimeError for a file, whose cause is the error of the request.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    first = next(iter(str(error).splitlines()), type(error).__name__)
    if isinstance(error, HfHubHTTPError):
        return _of_status(error.response.status_code, first)
    if isinstance(error, HTTPError | OSError):
        return f"the Hub is not reachable ({first})"
    if isinstance(error, ValueError):
        return f"the Hub refuses it ({first})"
    return f"the upload failed ({first})" if error.__cause__ is None else _reason(error.__cause__)


def _of_status(status: int, first: str) -> str:
    """Returns the reason for an answer of the Hub with an error; `first` is its first line."""
    reasons = {
        401: "the token is not valid (HTTP 401); make one at https://huggingface.co/settings/tokens",
        403: "the token may not write there (HTTP 403); it needs write access to this namespace",
        404: "the Hub does not know it (HTTP 404), or the token may not see it",
        413: "a file is larger than the Hub accepts (HTTP 413)",
        429: "the Hub limits this token's requests (HTTP 429); wait and try again",
    }
    return reasons.get(status, f"the Hub answers with HTTP {status} ({first})")
