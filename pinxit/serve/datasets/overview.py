"""Describes a prepared dataset as plain values: a line of the list, and everything about one."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, plain
from pinxit.data.filters.resolve import stored_filters
from pinxit.data.outcome import outcome_figures
from pinxit.data.prepared.manifest import MANIFEST, Manifest
from pinxit.prepare.folder_lock import NAMES as LOCKS
from pinxit.prepare.last_command import read_last_command
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.report import REPORT, network_remarks
from pinxit.prepare.report_figures import (
    latent_figures,
    score_figures,
    size_figures,
    summary_line,
)
from pinxit.prepare.retry_advice import RETRY, retry_advice
from pinxit.serve.datasets.folders import DatasetFolder
from pinxit.serve.datasets.unit_totals import UnitTotals

QUIET = 600.0
"""Seconds without a finished unit after which a preparation counts as stopped, if its lock cannot
be seen: it may run on another machine."""
LISTED = 200
"""The maximum number of failed units and lines that are passed on."""


def is_running(root: Path, newest: float) -> bool:
    """Returns whether a preparation of this folder seems to be running.

    `newest` is when the last unit was finished. A lock that a process of this machine holds is
    seen without touching it. Other machines do not show their locks.
    """
    with contextlib.suppress(OSError):  # this system does not list locks
        locks = Path("/proc/locks").read_text("ascii", "replace").splitlines()
        fields = [line.split() for line in locks]
        held = {f[5].rpartition(":")[2] for f in fields if len(f) > 5 and f[1] == "FLOCK"}
        for name in LOCKS.values():
            with contextlib.suppress(OSError):  # no lock was ever taken
                if str((root / name).stat().st_ino) in held:
                    return True
    return time.time() - newest < QUIET


def finished_manifest_in(root: Path) -> Manifest | None:
    """Returns the manifest of a finished dataset, or None."""
    if not (root / MANIFEST).is_file():
        return None
    return Manifest.read(root)


def preparation_state(root: Path, manifest: Manifest | None, newest: float) -> str:
    """Returns "finished", "preparing" or "stopped"."""
    begun_latents = Ledger(root, "latents").about.is_file()
    if manifest is not None and (manifest.latents is not None or not begun_latents):
        return "finished"
    return "preparing" if is_running(root, newest) else "stopped"


def list_entry(folder: DatasetFolder, totals: UnitTotals) -> dict[str, Any]:
    """Returns the most important figures of a dataset. A damaged one has a `problem`."""
    entry: dict[str, Any] = {
        "name": folder.name,
        "folder": str(folder.root),
        "runs": list(folder.runs),
    }
    try:
        totals.refresh()
        identity = Ledger(folder.root, "images").identity() or {}
        manifest = finished_manifest_in(folder.root)
        rows, images = totals.counts.total(), totals.counts["ok"]
        if manifest is not None:
            identity, rows, images = manifest.identity, manifest.rows, manifest.kept
        return {
            **entry,
            "state": preparation_state(folder.root, manifest, totals.newest),
            "source": (identity.get("source") or {}).get("name"),
            "rows": rows,
            "kept": images,
            "kept_share": images / rows if rows else None,
            "bytes": sum(size_figures(manifest).values()) if manifest else _bytes(totals),
            "has_latents": manifest is not None and manifest.latents is not None,
            "unread": totals.unread,
        }
    except (UsageError, OSError, AttributeError, TypeError) as error:
        return {**entry, "state": "damaged", "problem": str(error)}


def _bytes(totals: UnitTotals) -> int:
    """Returns the size of the files of all finished units."""
    infos = (info for entry in totals.entries.values() for info in (entry.images, entry.outcomes))
    return sum(info.bytes for info in infos if info is not None)


def describe_dataset(folder: DatasetFolder, totals: UnitTotals) -> dict[str, Any]:
    """Returns everything about one dataset but its rows."""
    root = folder.root
    listed = list_entry(folder, totals)  # this refreshes the totals
    ledger = Ledger(root, "images")
    problems: list[str] = []
    manifest = None
    with _noting(problems):
        manifest = finished_manifest_in(root)
    identity, notes = ledger.identity() or {}, ledger.notes()
    if manifest is not None and not identity:
        identity = dict(manifest.identity)
    counts = totals.counts
    last = read_last_command(root)
    scores: list[dict[str, Any]] = []
    with _noting(problems):
        figures = score_figures(totals.histograms, stored_filters(identity))
        scores = [asdict(one) for one in figures]
    latents = len(Ledger(root, "latents").units())
    problems += damaged_files(root, totals)
    problems += [f"the record of unit {unit} cannot be read" for unit in totals.damaged[:LISTED]]
    return {
        **listed,
        "sentence": summary_line(
            counts, identity, units=len(totals.entries), seconds=totals.seconds
        ),
        "units": {"images": len(totals.entries), "latents": latents, "unread": totals.unread},
        "newest": totals.newest or None,
        "outcomes": [asdict(one) for one in outcome_figures(counts)],
        "retry": _retry(root, counts, last.arguments),
        "scores": scores,
        "sizes": size_figures(manifest) if manifest else {},
        "fingerprint": manifest.fingerprint() if manifest else None,
        "latents": latent_figures(manifest) if manifest else None,
        "remarks": network_remarks(notes),
        "enlarged": sum(entry.enlarged for entry in totals.entries.values()),
        "not_read": [str(line) for line in notes.get("not_read", ())][:LISTED],
        "failed": [list(pair) for pair in last.failed[:LISTED]],
        "skipped": [list(pair) for pair in list(ledger.skipped().items())[:LISTED]],
        "command": shlex.join(last.words) if last.words else None,
        "train": shlex.join(["pinxit", "train", "--dataset_path", str(root)]),
        "has_report": (root / REPORT).is_file(),
        "settings": {"content": plain(identity), "other": plain(notes)},
        "problems": problems,
    }


def damaged_files(root: Path, totals: UnitTotals, *, seconds: float = 0.3) -> list[str]:
    """Returns what is wrong with files that are missing or have another size, as far as there is
    time to look. Images may be deleted once their latents exist."""
    until = time.monotonic() + seconds
    has_latents = (root / "latents").is_dir()
    problems: list[str] = []
    for entry in totals.entries.values():
        if time.monotonic() > until or len(problems) == LISTED:
            break
        for name, info in (("images", entry.images), ("outcomes", entry.outcomes)):
            if info is None:
                continue
            try:
                size = (root / name / info.name).stat().st_size
            except OSError:
                if name != "images" or not has_latents:
                    problems.append(f"{name}/{info.name} is missing")
                continue
            if size != info.bytes:
                problems.append(f"{name}/{info.name} has {size} bytes instead of {info.bytes}")
    return problems


@contextlib.contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Adds the message of a mistake in a file to the problems, so that the rest is shown."""
    try:
        yield
    except UsageError as error:
        problems.append(str(error))


def _retry(root: Path, counts: Any, arguments: tuple[str, ...]) -> dict[str, Any] | None:
    """Returns the advice for rows that may still succeed, or None if there are none."""
    advice = retry_advice(counts, arguments)
    if advice is None:
        return None
    text, _, command = advice.rpartition("; to retry them: ")
    if not arguments:
        same = f"run the same command again with {RETRY} 1 (its folder is {root})"
        return {"text": text, "command": None, "hint": same}
    return {"text": text, "command": command, "hint": ""}
