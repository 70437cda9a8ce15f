"""The network: the hub, names, the clock; and which encoders are here without it."""

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
"""Hosts whose names are looked up, to see how a resolver does."""
SLOW_NAME = 0.5
"""Seconds for one name, above which a resolver holds streaming up."""
CLOCK = 60.0
"""Seconds that a clock may be off."""
ENCODERS = ("clip", "t5", "sd", "sdxl")


def offline() -> bool:
    """Whether the hub is not to be asked, by the user's own choice."""
    return os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no")


def hub(timeout: float) -> Iterator[Line]:
    """Whether the Hugging Face hub answers, and what time it is there."""
    if offline():
        yield ok("hub", "not asked: HF_HUB_OFFLINE is set, so only the cache is looked at")
        return
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        date = in_time(functools.partial(_date, address, timeout), timeout)
    except (OSError, ValueError, Late) as error:
        said = f"{address} does not answer ({reason(error, timeout)})"
        advice = "encoders that are not in the cache cannot be fetched; HF_HUB_OFFLINE=1 says so "
        advice += "at once, and local directories do as well as names"
        yield warning("hub", said, advice)
        return
    yield ok("hub", f"{address} answers")
    if date is not None:
        off = time.time() - date
        if abs(off) > CLOCK:
            said = f"this clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
            yield warning("clock", said, "set it (NTP): certificates and tokens depend on it")
        else:
            yield ok("clock", "right within a minute")


def _date(address: str, timeout: float) -> float | None:
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            said = answer.headers.get("Date")
    except urllib.error.HTTPError as error:  # it answered
        said = error.headers.get("Date")
    return parsedate_to_datetime(said).timestamp() if said else None


def names(timeout: float) -> Iterator[Line]:
    """Whether names are found, and how fast: streaming looks up hundreds a minute."""
    seconds, failed = [], []
    for name in NAMES:
        begun = time.perf_counter()
        try:
            in_time(functools.partial(socket.getaddrinfo, name, 443), timeout)
            seconds.append(time.perf_counter() - begun)
        except (OSError, Late) as error:
            failed.append(f"{name} ({reason(error, timeout)})")
            if not seconds:
                break
    own = "a resolver on this machine" if _local_resolver() else "a resolver elsewhere"
    if failed:
        said = f"not found: {', '.join(failed)}"
        yield warning("names", said, "nothing can be streamed; training from disk can go on")
    elif max(seconds) > SLOW_NAME:
        advice = "a caching resolver on this machine (unbound, systemd-resolved, knot-resolver)"
        yield warning("names", f"{own} takes up to {max(seconds):.1f} s for a name", advice)
    else:
        yield ok("names", f"{own} takes up to {max(seconds) * 1000:.0f} ms for a name")


def _local_resolver() -> bool:
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return False
    servers = [line.split()[1] for line in lines if line.startswith("nameserver ")]
    return any(server.startswith("127.") or server == "::1" for server in servers)


def in_time(call: Any, seconds: float) -> Any:
    """What a call returns; raises `Late` after so long (and lets it end by itself)."""
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # handed to the caller, which raises it
            answer.set_exception(error)

    # a daemon: a look-up that hangs must not keep the program from ending
    threading.Thread(target=work, name="pinxit-doctor", daemon=True).start()
    return answer.result(seconds)


def reason(error: BaseException, timeout: float) -> str:
    """An error in a few words."""
    if isinstance(error, Late | TimeoutError):
        return f"no answer within {timeout:g} s"
    return str(getattr(error, "reason", error)) or type(error).__name__


def encoders() -> Iterator[Line]:
    """Which of the encoders with names are in the cache."""
    here, absent = [], []
    for name in ENCODERS:
        folder = cached(name)
        if folder is None:
            absent.append(name)
        else:
            here.append(f"{name} ({size(bytes_of(folder))})")
    said = f"here: {', '.join(['tiny', *here])}"
    if absent:
        said += f"; to be fetched when they are asked for: {', '.join(absent)}"
    yield ok("encoders", said)


def cached(name: str) -> Path | None:
    """The local directory of an encoder: one by name, a directory, or a repository in the cache."""
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
        found = AUTOENCODERS[name]
        source = found.args[0] if isinstance(found, functools.partial) else name
    if Path(source).is_dir():
        return Path(source)
    repository, _, revision = str(source).partition("@")
    try:
        folder = snapshot_download(repository, revision=revision or None, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    return Path(folder) if any(Path(folder).rglob("*.safetensors*")) else None


def bytes_of(folder: Path) -> int:
    """Size of the files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
