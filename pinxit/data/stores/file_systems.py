"""Opens the file system of a URL, with the settings that reads and uploads need.

fsspec names the class for a protocol. Credentials and endpoints come from the environment and from
the clients' own files (`docs/object_stores.md`), never from Pinxit's settings, which are stored and
printed.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from pinxit.config import UsageError
from pinxit.extras import check_data_extra, extra_command

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extras that bring the packages for a protocol."""
READ_ONLY = ("http", "https")
WHOLE_PUTS = frozenset({*EXTRAS, "abfs", "abfss", "adl", "az", "oci", "oss", "memory"})
"""Protocols of which an upload appears whole or not at all."""
CONNECT_SECONDS, ANSWER_SECONDS = 10, 30
"""The longest time to connect, and between two pieces of an answer."""
PART_BYTES = 32 * 2**20
"""The size of the parts in which a large file is uploaded."""
PARTS_AT_ONCE = 4
BLOCK_BYTES = 5 * 2**20
"""The bytes that an open file of a source reads ahead."""
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@|\?\S*")
"""The parts of a URL that may hold a password, a key or a signature."""


def protocol_of(url: str) -> str:
    """Returns the protocol of a URL, in lower case."""
    return url.partition("://")[0].lower()


def masked(text: str) -> str:
    """Returns a text with the user names, passwords and queries of its URLs replaced by dots."""
    return CREDENTIALS.sub(lambda match: "…@" if match[0].endswith("@") else "?…", text)


def check_url(url: str) -> None:
    """Raises `UsageError` for a URL that cannot be the root of a store."""
    if url.startswith("pipe:") or "::" in url:
        raise UsageError(f"{masked(url)} is refused: it names a command or a chain of file systems")
    if masked(url) != url:
        raise UsageError(
            f"{masked(url)} is refused: it holds a password or a query, which would be stored and "
            "printed; set credentials in the environment (docs/object_stores.md)"
        )
    protocol, _, path = url.partition("://")
    if not path.strip("/"):
        raise UsageError(
            f"{url} names no bucket or host; valid: {protocol}://NAME or {protocol}://NAME/FOLDER"
        )


def open_file_system(url: str, *, parallel: int, uploads: bool = False) -> tuple[Any, str]:
    """Returns a new fsspec file system for a URL, and the path of the URL in it.

    Raises `UsageError` if the protocol is unknown or its packages are not installed. Clients for
    reads try a request once, since the caller repeats it; those for `uploads` repeat a part.
    """
    check_url(url)
    check_data_extra(f"{protocol_of(url)}://")
    check_protocol(url)
    import fsspec

    protocol = protocol_of(url)
    options = _options(protocol, parallel=parallel, uploads=uploads)
    file_system, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
    if protocol in ("s3", "s3a") and not uploads:
        file_system.retries = 1
    if protocol in ("gs", "gcs"):  # it prints the traceback of each refused request
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    return file_system, path.rstrip("/")


def shared_file_system(url: str) -> tuple[Any, str]:
    """Returns the file system for the files of a source, and the path of the URL in it.

    fsspec shares one between all callers of a process. Its files are read ahead by blocks, which
    s3fs makes ten times as large as others do: too large for tables, of which parts are read.
    """
    check_protocol(url)
    import fsspec

    blocks = {"default_block_size": BLOCK_BYTES} if protocol_of(url) in ("s3", "s3a") else {}
    return fsspec.core.url_to_fs(url, **blocks)


def check_protocol(url: str) -> None:
    """Raises `UsageError` if fsspec has no file system for a URL, or if its packages are not
    installed. The message has the command that installs them."""
    import fsspec

    protocol = protocol_of(url)
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise UsageError(_missing(masked(url), protocol, error)) from error
    except ValueError as error:
        raise UsageError(f"{masked(url)}: there is no file system for {protocol}://") from error


def _missing(url: str, protocol: str, error: ImportError) -> str:
    """Returns the message for a protocol whose packages are not installed."""
    if protocol in EXTRAS:
        command = extra_command(EXTRAS[protocol])
        return f"{url}: {protocol}:// needs packages that are not installed: {command}"
    return f"{url}: {protocol}:// needs a package that is not installed ({error})"


def _options(protocol: str, *, parallel: int, uploads: bool) -> dict[str, Any]:
    """Returns the settings of a file system, beside those of fsspec's own configuration."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        from fsspec.config import conf

        config = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
            "max_pool_connections": parallel,
            "retries": {"mode": "standard", "total_max_attempts": 5 if uploads else 1},
        }
        configured = conf.get(protocol, {}).get("config_kwargs", {})
        options["config_kwargs"] = {**config, **configured}
        options["max_concurrency"] = PARTS_AT_ONCE if uploads else 1
    if protocol in ("gs", "gcs") and uploads:
        options["consistency"] = "md5"
    return options
