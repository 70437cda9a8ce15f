"""`pinxit pack`: gathers a prepared dataset in a few large files.

The command can be run again at any time: packs that are finished stay as they are, and the same
dataset and settings give the same bytes.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pinxit.cli.arguments import parse
from pinxit.cli.prepare_ending import training_command
from pinxit.config import UsageError, positive
from pinxit.data.packed.pack_index import LARGEST
from pinxit.data.packed.packed_manifest import PackedManifest, is_packed, is_store_url
from pinxit.data.prepared.manifest import Manifest, is_prepared
from pinxit.data.stores.byte_store import open_store
from pinxit.extras import check_data_extra

if TYPE_CHECKING:
    from rich.console import Console

    from pinxit.prepare.packing.pack_plan import KindPlan

GIGABYTE = 10**9
LARGEST_GIGABYTES = LARGEST / GIGABYTE


@dataclass(frozen=True)
class PackOptions:
    """Options of `pinxit pack`."""

    dataset: tuple[str, ...] = ()
    """Folder of the prepared dataset, with or without --dataset: pinxit pack DIR --out OTHER."""
    out: str | None = None
    """The folder of the packed dataset, or the URL of an object store: s3://bucket/name."""
    pack_gigabytes: float = 1.0
    """The size of a pack, in units of 10^9 bytes. It must be less than 4.29."""
    held_out_images: int = 4096
    """The number of held-out rows whose images are packed, for the validation loss. 0 packs no
    images. A dataset without latents is packed with all of its images."""
    workers: int = 2
    """The number of threads that verify shards ahead."""
    scratch: str | None = None
    """The folder on this machine for the packs under way, if --out is a URL; none means the
    system's folder for temporary files."""

    def __post_init__(self) -> None:
        positive("pack_gigabytes", self.pack_gigabytes, minimum=1e-6)
        if self.pack_gigabytes > LARGEST_GIGABYTES:
            valid = f"up to {LARGEST_GIGABYTES:.2f}"
            raise UsageError(
                "pack_gigabytes", self.pack_gigabytes, problem="too large", valid=valid
            )
        positive("held_out_images", self.held_out_images, minimum=0)
        positive("workers", self.workers)
        if self.scratch is not None and not is_store_url(self.out or ""):
            raise UsageError("scratch", self.scratch, problem="not used unless --out is a URL")

    @property
    def source(self) -> Path:
        """The folder of the prepared dataset."""
        if len(self.dataset) != 1:
            names = " ".join(self.dataset) or None
            raise UsageError("dataset", names, problem="not one folder", valid="a prepared dataset")
        path = self.dataset[0]
        if is_store_url(path) or not is_prepared(path):
            problem = "already packed" if is_packed(path) else "not a prepared dataset"
            valid = "a folder that `pinxit prepare` wrote"
            raise UsageError("dataset", path, problem=problem, valid=valid)
        return Path(path).expanduser()

    @property
    def target(self) -> str:
        """The folder or URL of the packed dataset."""
        if self.out is None:
            raise UsageError("out", None, problem="missing", valid="a folder or URL: --out DIR")
        if is_store_url(self.out):
            return self.out
        if "://" in self.out:
            valid = "a folder, or the URL of an object store (s3://bucket/name)"
            raise UsageError("out", self.out, problem="not an object store", valid=valid)
        folder = Path(self.out).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UsageError("out", self.out, problem="a file", valid="a folder")
        if is_prepared(str(folder)):
            valid = "a folder of its own"
            raise UsageError("out", self.out, problem="a prepared dataset itself", valid=valid)
        return str(folder)


def pack_command(argv: Sequence[str]) -> int:
    """Packs a prepared dataset, and returns the exit code."""
    options = parse(
        PackOptions,
        argv,
        prog="pinxit pack",
        description="Gathers a prepared dataset in a few large files: pinxit pack DIR --out OTHER.",
        positional="dataset",
    )
    check_data_extra("pinxit pack")
    from rich.console import Console

    console = Console(stderr=True)
    try:
        return _pack(options, console)
    except OSError as error:  # a full disk, a read-only folder, an unreachable store
        console.print(f"stopped: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1


def _pack(options: PackOptions, console: Console) -> int:
    from pinxit.prepare.packing.pack_dataset import PackSettings, pack_dataset
    from pinxit.prepare.packing.pack_plan import plan_packs
    from pinxit.prepare.packing.pack_series import PackOutput

    root, target = options.source, options.target

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    manifest = Manifest.read(root)
    plans = plan_packs(root, manifest, options.held_out_images)
    settings = PackSettings(round(options.pack_gigabytes * GIGABYTE), options.held_out_images)
    with _scratch(options) as scratch, contextlib.closing(open_store(target)) as store:
        say(_needed(options, plans, settings.pack_bytes, target, scratch))
        with _watching(console) as watch:
            packed = pack_dataset(
                root,
                PackOutput(store, scratch),
                settings,
                plans=plans,
                workers=options.workers,
                watch=watch,
            )
    say(_ending(packed, target))
    say(f"to train: {training_command(target)}")
    return 0


@contextlib.contextmanager
def _scratch(options: PackOptions) -> Iterator[Path]:
    """Yields a folder for the packs that are to be uploaded. It is removed in the end."""
    parent = Path(options.scratch).expanduser() if options.scratch else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pinxit-pack-", dir=parent) as folder:
        yield Path(folder)


def _needed(
    options: PackOptions, plans: Sequence[KindPlan], limit: int, target: str, scratch: Path
) -> str:
    """Returns how much room the packs need, in words. Raises `UsageError` if there is too little.

    Packs that are there already count as room.
    """
    total = sum(plan.bytes for plan in plans)
    parts = ", ".join(f"{plan.kind} {_gigabytes(plan.bytes)}" for plan in plans)
    line = f"packing {options.source} into {target}: about {_gigabytes(total)} ({parts})"
    if is_store_url(target):
        field, folder, present = "scratch", scratch, 0
        most = max((len(plan.shapes) for plan in plans), default=0)
        needed = min(total, most * limit)
        line += f", of which up to {_gigabytes(needed)} at a time lie in {scratch.parent}"
    else:
        field, folder, needed = "out", Path(target), total
        present = sum(path.stat().st_size for path in folder.glob("packs/*.pack"))
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free + present:
        problem = f"on a disk with {_gigabytes(free)} free, but {_gigabytes(needed)} are needed"
        raise UsageError(field, str(folder), problem=problem, valid="a folder with more room")
    return f"{line}; {_gigabytes(free)} free"


def _ending(packed: PackedManifest, target: str) -> str:
    """Describes the packed dataset in a line."""
    packs = [pack for kind in packed.contents for pack in packed.packs(kind)]
    kinds = ", ".join(
        f"{sum(pack.rows for pack in packed.packs(kind)):,} records of {kind}"
        for kind in packed.contents
    )
    total = _gigabytes(sum(pack.bytes for pack in packs))
    return f"done: {kinds} in {len(packs)} packs ({total}), in {target}"


def _gigabytes(count: float) -> str:
    for unit, name in ((GIGABYTE, "GB"), (10**6, "MB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count / 1e3:,.1f} kB"


@contextlib.contextmanager
def _watching(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that shows the progress of each kind."""
    from pinxit.progress import showing

    with contextlib.ExitStack() as stack:
        current: list[tuple[str, Callable[[int, int], None]]] = []

        def watch(kind: str, done: int, total: int) -> None:
            if not current or current[-1][0] != kind:
                stack.close()
                text = f"packing {kind}"
                current.append((kind, stack.enter_context(showing(console, text, unit="record"))))
            current[-1][1](done, total)

        yield watch
