"""Features of sets of pictures: each set is made once for all the figures that need it.

Evaluators first say which features of which sets they need (`expect`). The first one that asks for
some (`features`) lets the set be made, a piece at a time, and all extractors see each piece. No
pictures are kept, only rows of features in files.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from pinxit.cache_limit import hold
from pinxit.evaluate.extractors.base import Extractor, Picture
from pinxit.evaluate.feature_cache import limit_features
from pinxit.evaluate.feature_store import FeatureStore
from pinxit.evaluate.picture_sets import PictureSet, identity
from pinxit.evaluate.user_function import StoppedAtPicture
from pinxit.files import remove_folder, write_json
from pinxit.progress import counted

Report = Callable[[int, int], Any]
"""A callback that receives the number of finished pictures and their total."""
Showing = Callable[[str, str], AbstractContextManager[Report]]
"""Shows the progress of one activity, given its name and the name of its unit."""


def silent(text: str, unit: str) -> AbstractContextManager[Report]:
    """Shows nothing; the default `Showing`."""
    return nullcontext(lambda done, total: None)


class Observations:
    """Makes sets of pictures, and stores their features."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        cache: Path | None = None,
        showing: Showing = silent,
        check: Callable[[], Any] = lambda: None,
    ) -> None:
        """Stores features in `folder`, so that an interrupted evaluation goes on, or, with None,
        in a temporary folder. Those of `lasting` sets are stored in `cache`, if there is one
        (`feature_cache.feature_cache`).
        `check` is called between pieces and may raise an exception to stop.
        """
        self.cache, self.showing, self.check = cache, showing, check
        self._folder = folder
        self._expected: dict[str, dict[str, Extractor]] = {}
        self._sets: dict[int, tuple[PictureSet, str]] = {}

    def expect(self, pictures: PictureSet, extractor: Extractor) -> None:
        """Notes that these features will be asked for."""
        self._expected.setdefault(self.key(pictures), {})[extractor.name] = extractor

    def features(self, pictures: PictureSet, extractor: Extractor) -> FeatureStore:
        """Returns the features of the pictures, which are made unless they are stored."""
        self.expect(pictures, extractor)
        key = self.key(pictures)
        extractors = list(self._expected[key].values())
        stores = [self._store(pictures, key, each) for each in extractors]
        if len(stores[extractors.index(extractor)]) < len(pictures):
            self._observe(pictures, extractors, stores)
        return stores[extractors.index(extractor)]

    def key(self, pictures: PictureSet) -> str:
        """Returns the hash of everything that a set depends on."""
        if id(pictures) not in self._sets:
            self._sets[id(pictures)] = pictures, identity(pictures.about())
        return self._sets[id(pictures)][1]

    def used(self) -> list[dict[str, Any]]:
        """Returns the sets of pictures whose features were asked for, each with everything that its
        pictures and their features depend on, as JSON."""
        sets = {key: pictures for pictures, key in self._sets.values()}
        return [
            {
                "made_by": sets[key].title,
                "pictures": dict(sets[key].about()),
                "features": {name: dict(one.about()) for name, one in extractors.items()},
            }
            for key, extractors in self._expected.items()
        ]

    def finished(self) -> None:
        """Removes the stored features, except those in the cache, whose size it limits."""
        if self._folder is not None and self._folder.is_dir():
            remove_folder(self._folder)
        if self.cache is not None and self.cache.is_dir():
            limit_features(self.cache)

    @cached_property
    def folder(self) -> Path:
        """The folder of features; a temporary one disappears with this object."""
        if self._folder is not None:
            return self._folder
        temporary = Path(tempfile.mkdtemp(prefix="pinxit-"))
        weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
        return temporary

    def _store(self, pictures: PictureSet, key: str, extractor: Extractor) -> FeatureStore:
        cached = pictures.lasting and self.cache is not None
        root = self.cache if cached and self.cache is not None else self.folder
        about = {"pictures": pictures.about(), "features": extractor.about()}
        folder = root / f"{extractor.name}-{identity(about)}"
        if not (folder / "about.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "about.json", about)
        if cached:
            with suppress(OSError):  # some file systems have no locks
                hold(folder)
        return FeatureStore(folder, width=extractor.width)

    def _observe(
        self,
        pictures: PictureSet,
        extractors: Sequence[Extractor],
        stores: Sequence[FeatureStore],
    ) -> None:
        """Makes the pictures whose features are missing, in pieces, and stores the features."""
        total, together = len(pictures), pictures.together
        start = min(len(store) for store in stores)
        names = ", ".join(extractor.name for extractor in extractors)
        text = f"{pictures.title} ({counted(total, 'picture')}: {names})"
        with self.showing(text, "picture") as report:
            report(start, total)
            while start < total:
                self.check()
                stop = min(total, start + together, *(len(s) for s in stores if len(s) > start))
                numbers = range(start, stop)
                images, prompts = pictures.pictures(numbers), pictures.prompts[start:stop]
                for extractor, store in zip(extractors, stores, strict=True):
                    if len(store) == start:
                        _append(store, extractor, images, prompts)
                start = stop
                report(start, total)


def _append(
    store: FeatureStore, extractor: Extractor, images: Sequence[Picture], prompts: Sequence[str]
) -> None:
    """Stores the features of the next pictures, also those before one that a user's code fails."""
    start = len(store)
    try:
        rows = extractor(images, prompts)
    except StoppedAtPicture as stopped:
        if len(stopped.rows):
            store.append(stopped.rows, name=extractor.name)
        raise stopped.named(start, prompts) from stopped.error.__cause__
    store.append(rows, name=extractor.name)
