"""A folder of pictures: lists it, newest first, serves its files and stores new ones.

A name that comes from outside is compared with the names in the folder. It is never joined to a
path before, so that no name leads out of the folder. Links are not followed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from pinxit.files import move_into, remove_folder, whole
from pinxit.picture_files import JSON_KEY, picture_bytes, save_picture
from pinxit.picture_texts import DAMAGE, FORMATS, SHEET, stored_texts

SUFFIXES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
"""The suffixes of picture files, with their media types."""
THUMBNAIL = 384
"""The longest side of a thumbnail, in pixels."""
MOST_THUMBNAILS = 600
"""The number of thumbnails that are kept in memory."""
MOST_DESCRIPTIONS = 20_000
"""The number of pictures whose recipes are kept in memory."""
DELETED = ".deleted"
"""The folder of deleted pictures inside the gallery's folder, from which they can be restored."""
RESTORABLE = 3600.0
"""The number of seconds for which a deleted picture can be restored."""
SETTLED_NS = 2_000_000_000
"""A folder that changed this many nanoseconds ago or earlier shows a later change in its time."""


class UnknownPicture(LookupError):
    """The folder has no picture of the name."""


@dataclass(frozen=True)
class PictureEntry:
    """A picture file in the folder."""

    name: str
    """The name of the file."""
    changed_ns: int
    """The time of its last change, in nanoseconds since 1970."""
    length: int
    """The number of bytes."""

    @property
    def stamp(self) -> str:
        """The version of the file, which changes with its content."""
        return f"{self.changed_ns:x}-{self.length:x}"

    @property
    def format(self) -> str:
        """The name of the format that the suffix says: png, webp or jpeg."""
        return self.media_type.partition("/")[2]

    @property
    def media_type(self) -> str:
        """The media type of the file."""
        return SUFFIXES[Path(self.name).suffix.lower()]


@dataclass(frozen=True)
class _Listing:
    """The pictures of a folder at one time."""

    changed_ns: int
    """The time of the folder's last change before it was listed."""
    entries: list[PictureEntry]
    """The pictures, newest first."""

    @cached_property
    def places(self) -> dict[str, int]:
        """The number of each picture in `entries`, by name."""
        return {entry.name: number for number, entry in enumerate(self.entries)}

    @cached_property
    def state(self) -> str:
        """A hash of the names and versions of all pictures."""
        names = [(entry.name, entry.stamp) for entry in self.entries]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


class Gallery:
    """The pictures in a folder, which need not exist before the first one is stored."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        """The folder of the pictures."""
        self._lock = threading.Lock()
        self._listing = _Listing(0, [])
        self._descriptions: OrderedDict[PictureEntry, dict[str, Any]] = OrderedDict()
        self._thumbnails: OrderedDict[PictureEntry, bytes] = OrderedDict()

    # --- listing ------------------------------------------------------------------------------

    def entries(self) -> list[PictureEntry]:
        """Returns the pictures in the folder, newest first."""
        return self._listed().entries

    def _listed(self) -> _Listing:
        """Returns the listing of the folder, which is read again if the folder may have changed."""
        try:
            changed = self.folder.stat().st_mtime_ns
        except OSError:
            return _Listing(0, [])
        with self._lock:
            known = self._listing
        if known.changed_ns == changed and time.time_ns() - changed > SETTLED_NS:
            return known
        entries = []
        with os.scandir(self.folder) as scan:
            for entry in scan:
                hidden = entry.name.startswith(".")
                if hidden or Path(entry.name).suffix.lower() not in SUFFIXES:
                    continue
                try:
                    about = entry.stat(follow_symlinks=False)
                except OSError:  # removed meanwhile
                    continue
                if stat.S_ISREG(about.st_mode):
                    entries.append(PictureEntry(entry.name, about.st_mtime_ns, about.st_size))
        entries.sort(key=lambda each: (each.changed_ns, each.name), reverse=True)
        listing = _Listing(changed, entries)
        with self._lock:
            self._listing = listing
        return listing

    @property
    def state(self) -> str:
        """A short text that changes whenever a picture is added, changed or removed."""
        return self._listed().state

    def page(self, limit: int, *, before: str | None = None) -> tuple[list[PictureEntry], bool]:
        """Returns up to `limit` pictures, those behind `before`, and whether there are more.

        Raises `UnknownPicture` if `before` is not in the folder.
        """
        listing, start = self._listed(), 0
        if before is not None:
            if before not in listing.places:
                raise UnknownPicture(before)
            start = listing.places[before] + 1
        entries = listing.entries
        return entries[start : start + limit], start + limit < len(entries)

    def entry(self, name: str) -> PictureEntry:
        """Returns the picture of a name. Raises `UnknownPicture` for any other name.

        A name that the last listing has needs one look at its file, however many others there are.
        """
        with self._lock:
            known = self._listing
        if name in known.places and (entry := self._file(name)) is not None:
            return entry
        listing = self._listed()
        if name in listing.places:
            return listing.entries[listing.places[name]]
        raise UnknownPicture(name)

    def _file(self, name: str) -> PictureEntry | None:
        """Returns the picture with a name that a listing had, or None if it is gone or a link."""
        try:
            about = (self.folder / name).lstat()
        except OSError:
            return None
        regular = stat.S_ISREG(about.st_mode)
        return PictureEntry(name, about.st_mtime_ns, about.st_size) if regular else None

    # --- reading ------------------------------------------------------------------------------

    def read(self, entry: PictureEntry) -> bytes:
        """Returns the bytes of a picture. Raises `UnknownPicture` if it is gone, or a link now."""
        try:
            handle = os.open(self.folder / entry.name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with open(handle, "rb") as file:
                return file.read()
        except OSError as error:
            raise UnknownPicture(entry.name) from error

    def description(self, entry: PictureEntry) -> dict[str, Any]:
        """Returns width and height of a picture, and its recipe or its grid, if it has one.

        Its pixels are not decoded. A damaged file has the width and height 0.
        """
        with self._lock:
            if entry in self._descriptions:
                self._descriptions.move_to_end(entry)
                return self._descriptions[entry]
        described = _described(self.read(entry))
        with self._lock:
            self._descriptions[entry] = described
            while len(self._descriptions) > MOST_DESCRIPTIONS:
                self._descriptions.popitem(last=False)
        return described

    def thumbnail(self, entry: PictureEntry) -> bytes:
        """Returns a WebP picture of at most `THUMBNAIL` pixels on a side.

        Raises `UnknownPicture` for a file that is damaged.
        """
        with self._lock:
            if entry in self._thumbnails:
                self._thumbnails.move_to_end(entry)
                return self._thumbnails[entry]
        try:
            with Image.open(io.BytesIO(self.read(entry)), formats=FORMATS) as image:
                image.draft("RGB", (THUMBNAIL, THUMBNAIL))
                small = image.convert("RGB")
        except DAMAGE as error:
            raise UnknownPicture(entry.name) from error
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=90, method=2)
        with self._lock:
            self._thumbnails[entry] = buffer.getvalue()
            while len(self._thumbnails) > MOST_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return buffer.getvalue()

    def converted(self, entry: PictureEntry, format: str) -> bytes:
        """Returns the picture in another format, with its recipe inside.

        Raises `UnknownPicture` for a picture without a recipe, and the errors of `picture_bytes`.
        """
        recipe = self.description(entry).get("recipe")
        if recipe is None:
            raise UnknownPicture(entry.name)
        with Image.open(io.BytesIO(self.read(entry)), formats=FORMATS) as image:
            return picture_bytes(image.convert("RGB"), recipe, format=format)

    # --- changes ------------------------------------------------------------------------------

    def save(self, image: Image.Image, recipe: Mapping[str, Any]) -> str:
        """Stores a picture with its recipe as a PNG, and returns its name."""
        return save_picture(self.folder, image, recipe).name

    def add_file(self, name: str, data: bytes) -> str:
        """Stores a file under a name. If another file has the name, adds a number to it."""
        path = self.folder / name
        for number in range(2, 1000):
            try:
                with whole(path, replace=False) as temporary:
                    temporary.write_bytes(data)
                return path.name
            except FileExistsError:
                if path.read_bytes() == data:
                    os.utime(path)  # drawn again: it is the newest now
                    return path.name
                path = self.folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
        raise FileExistsError(str(path))

    def delete(self, name: str) -> None:
        """Moves a picture to `DELETED`, and removes what was moved there an hour ago."""
        entry = self.entry(name)
        deleted = self.folder / DELETED
        self.forget()
        (deleted / name).unlink(missing_ok=True)
        try:
            os.utime(move_into(self.folder / entry.name, deleted))
        except FileNotFoundError as error:
            raise UnknownPicture(name) from error

    def restore(self, name: str) -> str:
        """Puts a deleted picture back and returns its name, which is another one if it is taken."""
        deleted = self.folder / DELETED
        names = {entry.name for entry in os.scandir(deleted)} if deleted.is_dir() else set()
        if name not in names:
            raise UnknownPicture(name)
        restored = self.add_file(name, (deleted / name).read_bytes())
        (deleted / name).unlink(missing_ok=True)
        return restored

    def forget(self) -> None:
        """Removes the deleted pictures that can no longer be restored."""
        deleted = self.folder / DELETED
        if deleted.is_symlink() or not deleted.is_dir():
            return
        for entry in list(os.scandir(deleted)):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > RESTORABLE:
                Path(entry.path).unlink(missing_ok=True)
        if not any(os.scandir(deleted)):
            remove_folder(deleted)


def _described(data: bytes) -> dict[str, Any]:
    """Returns width, height, and the recipe or the grid in the texts of a picture."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            texts = stored_texts(image)
            width, height = image.size
    except DAMAGE:
        return {"width": 0, "height": 0}
    described: dict[str, Any] = {"width": width, "height": height}
    for key, name in ((JSON_KEY, "recipe"), (SHEET, "grid")):
        try:
            value = json.loads(texts[key], parse_constant=_no_constant)
        except (KeyError, ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            described[name] = value
    return described


def _no_constant(text: str) -> float:
    """Refuses NaN and Infinity, which are not JSON."""
    raise json.JSONDecodeError(f"{text} is no number", text, 0)
