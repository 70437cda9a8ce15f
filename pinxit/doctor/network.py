"""Checks of the network (the Hub, name resolution, the clock) and of the cached encoders."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from pinxit.doctor.report_line import Line, ok, size, warning

NAMES = ("huggingface.co", "upload.wikimedia.org", "example.com")
"""Host names that are looked up to time the resolver."""
SLOW_NAME = 0.5
"""Seconds for one name above which the resolver slows streaming down."""
CLOCK = 60.0
"""Seconds that the clock may be off."""
ENCODERS = ("clip", "t5", "t5gemma", "sd", "sdxl", "dc_ae")
"""Named encoders that are downloaded when they are first used."""


def offline() -> bool:
    """Returns whether the user has switched off access to the Hub."""
    return os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no")


def hub(timeout: float) -> Iterator[Line]:
    """Checks whether the Hugging Face Hub answers, and compares its clock with this one."""
    if offline():
        yield ok("hub", "not asked: HF_HUB_OFFLINE is set, so only the cache is used")
        return
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        date = in_time(functools.partial(_date, address, timeout), timeout)
    except (OSError, ValueError, Late) as error:
        message = f"{address} does not answer ({reason(error, timeout)})"
        advice = (
            "encoders that are not in the cache cannot be downloaded: name a local directory, and "
        )
        advice += "set HF_HUB_OFFLINE=1 so that nothing waits for the Hub"
        yield warning("hub", message, advice)
        return
    yield ok("hub", f"{address} answers")
    if date is not None:
        off = time.time() - date
        if abs(off) > CLOCK:
            message = f"this machine's clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
            yield warning(
                "clock", message, "set the clock (NTP): certificates and tokens depend on it"
            )
        else:
            yield ok("clock", "correct to within a minute")


def _date(address: str, timeout: float) -> float | None:
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:  # an error status is an answer, too
        date = error.headers.get("Date")
    return parsedate_to_datetime(date).timestamp() if date else None


def names(timeout: float) -> Iterator[Line]:
    """Checks how fast host names resolve: streaming looks up hundreds per minute."""
    seconds, failed = [], []
    for name in NAMES:
        start = time.perf_counter()
        try:
            in_time(functools.partial(socket.getaddrinfo, name, 443), timeout)
            seconds.append(time.perf_counter() - start)
        except (OSError, Late) as error:
            failed.append(f"{name} ({reason(error, timeout)})")
            if not seconds:
                break
    own = "the resolver on this machine" if _local_resolver() else "the resolver on the network"
    if failed:
        message = f"not resolved: {', '.join(failed)}"
        yield warning("names", message, "streaming is not possible, but training from disk is")
    elif max(seconds) > SLOW_NAME:
        advice = "install a caching resolver here (unbound, systemd-resolved, knot-resolver)"
        yield warning("names", f"{own} takes up to {max(seconds):.1f} s per name", advice)
    else:
        yield ok("names", f"{own} takes up to {max(seconds) * 1000:.0f} ms per name")


def _local_resolver() -> bool:
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return False
    servers = [line.split()[1] for line in lines if line.startswith("nameserver ")]
    return any(server.startswith("127.") or server == "::1" for server in servers)


def in_time(call: Any, seconds: float) -> Any:
    """Returns the result of a call; raises `Late` after `seconds` and leaves the call running."""
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # the caller of in_time raises it
            answer.set_exception(error)

    # a daemon, so that a look-up that hangs does not keep the program from ending
    threading.Thread(target=work, name="pinxit-doctor", daemon=True).start()
    return answer.result(seconds)


def reason(error: BaseException, timeout: float) -> str:
    """Describes a network error in a few words."""
    if isinstance(error, Late | TimeoutError):
        return f"no answer within {timeout:g} s"
    return str(getattr(error, "reason", error)) or type(error).__name__


def encoders() -> Iterator[Line]:
    """Reports which of the named encoders are in the cache."""
    available, absent = [], []
    for name in ENCODERS:
        folder = cached(name)
        if folder is None:
            absent.append(name)
        else:
            available.append(f"{name} ({size(bytes_of(folder))})")
    message = f"available: {', '.join(['tiny', *available])}"
    if absent:
        message += f"; downloaded on first use: {', '.join(absent)}"
    yield ok("encoders", message)


def cached(name: str) -> Path | None:
    """Returns the local directory of an encoder, or None if it is not on this machine.

    `name` is a known name, a directory or a repository of the Hub.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from pinxit.encoders.autoencoder import AUTOENCODERS
    from pinxit.encoders.text_encoder_catalogue import TEXT_ENCODERS
    from pinxit.encoders.weights import bundled

    if name == "tiny":
        return bundled("tiny")
    source: Any = name
    if name in TEXT_ENCODERS:
        source = TEXT_ENCODERS[name]
    elif name in AUTOENCODERS:
        loader = AUTOENCODERS[name]
        source = loader.args[0] if isinstance(loader, functools.partial) else name
    if Path(source).is_dir():
        return Path(source)
    repository, _, revision = str(source).partition("@")
    try:
        folder = snapshot_download(repository, revision=revision or None, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    return Path(folder) if any(Path(folder).rglob("*.safetensors*")) else None


def bytes_of(folder: Path) -> int:
    """Returns the total size of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
