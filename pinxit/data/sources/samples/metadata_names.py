"""Matches the names in metadata to the images of a folder.

A name may be written on another machine: with backslashes, in another case, with a folder in front,
as an absolute path, quoted like a URL, or without its suffix. An exact name always wins, and a name
that fits two images matches none.
"""

from __future__ import annotations

import functools
import itertools
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import unquote

from pinxit.data.sources.files import HELD_OUT
from pinxit.data.sources.samples.metadata_files import ImageRecord
from pinxit.data.sources.samples.sample_names import IMAGE_SUFFIXES


def match_records(
    records: Sequence[ImageRecord], images: Collection[str], *, root: str = ""
) -> dict[int, str]:
    """Returns the image of each record, by the record's position. Others name no image.

    `root` is the path of the folder that holds the images.

    The passes run from strict to loose, and an image that one pass matches is not available to the
    next. Several records with the same name all match.
    """
    matches = {
        at: plain_name(record) for at, record in enumerate(records) if plain_name(record) in images
    }
    passes = (_by_spelling, _by_case, _by_stem, functools.partial(_by_tail, root=root))
    for one_pass in passes:
        free = set(images) - set(matches.values())
        rest = {at: record for at, record in enumerate(records) if at not in matches}
        matches |= one_pass(rest, free)
    return matches


def plain_name(record: ImageRecord) -> str:
    """Returns the path of a record's image as the record states it, relative to the dataset."""
    return posixpath.normpath(posixpath.join(record.folder, record.named))


def _by_spelling(records: Mapping[int, ImageRecord], images: Collection[str]) -> dict[int, str]:
    """Matches names with backslashes, quoted characters or another folder to start from."""
    candidates = {}
    for at, record in records.items():
        name = next((name for name in _respelled(record) if name in images), None)
        if name is not None:
            candidates[at] = name
    return _unrivalled(candidates, records)


def _by_case(
    records: Mapping[int, ImageRecord], images: Collection[str], *, with_suffix: bool = True
) -> dict[int, str]:
    """Matches names that differ in case only, if one image fits."""
    by_fold: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_fold[_fold(image, with_suffix=with_suffix)].append(image)
    candidates = {}
    for at, record in records.items():
        folds = [_fold(name, with_suffix=with_suffix) for name in _respelled(record)]
        same = next((by_fold[fold] for fold in folds if fold in by_fold), [])
        if len(same) == 1 and (with_suffix or _lacks_suffix(record)):
            candidates[at] = same[0]
    return _unrivalled(candidates, records)


def _by_stem(records: Mapping[int, ImageRecord], images: Collection[str]) -> dict[int, str]:
    """Matches names without a suffix, if one image fits."""
    return _by_case(records, images, with_suffix=False)


def _respelled(record: ImageRecord) -> list[str]:
    """Returns other spellings of a record's image: beside the metadata, or from the root."""
    spellings = dict.fromkeys((_slashed(record.named), _slashed(unquote(record.named))))
    return [
        posixpath.normpath(posixpath.join(folder, spelling))
        for folder in dict.fromkeys((record.folder, ""))
        for spelling in spellings
    ]


def _slashed(name: str) -> str:
    """Returns a path with slashes, without a drive and without a slash at its beginning."""
    return re.sub(r"^(?:file://)?(?:[A-Za-z]:)?/*", "", name.strip().replace("\\", "/"))


def _fold(path: str, *, with_suffix: bool) -> str:
    """Returns a path without differences of case or of composed letters."""
    stem, suffix = posixpath.splitext(path)
    if not with_suffix and suffix[1:].lower() in IMAGE_SUFFIXES:
        path = stem
    return unicodedata.normalize("NFC", path).casefold()


def _lacks_suffix(record: ImageRecord) -> bool:
    return posixpath.splitext(record.named)[1][1:].lower() not in IMAGE_SUFFIXES


def _by_tail(
    records: Mapping[int, ImageRecord], images: Collection[str], *, root: str
) -> dict[int, str]:
    """Matches names and images of which one is the end of the other, such as an absolute path.

    The image's full path decides between several: in the folder ``data/train``, ``0.jpg`` is
    ``train/0.jpg`` and not ``val/0.jpg``. A name in a folder of a held-out split never matches an
    image outside.
    """
    by_tail: dict[tuple[str, ...], set[str]] = defaultdict(set)
    whole: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for image, with_suffix in itertools.product(images, (True, False)):
        parts = _parts(image, with_suffix=with_suffix)
        whole[parts].add(image)
        for start in range(len(parts)):
            by_tail[parts[start:]].add(image)
    candidates, lengths = {}, {}
    for at, record in records.items():
        with_suffix = not _lacks_suffix(record)
        named = _parts(_slashed(unquote(record.named)), with_suffix=with_suffix)
        if ".." in named:
            continue
        fits = [by_tail.get(named, set())]
        fits += [whole[named[i:]] for i in range(1, len(named)) if named[i:] in whole]
        scores = {}
        for image in set().union(*fits):
            full = _parts(f"{_slashed(root)}/{image}", with_suffix=with_suffix)
            if not (set(named[:-1]) - set(full)) & HELD_OUT:
                scores[image] = _common_tail(named, full)
        best = [image for image, score in scores.items() if score == max(scores.values())]
        if len(best) == 1:
            candidates[at], lengths[at] = best[0], scores[best[0]]
    return _unrivalled(candidates, records, lengths)


def _parts(path: str, *, with_suffix: bool) -> tuple[str, ...]:
    folded = _fold(path, with_suffix=with_suffix)
    return tuple(part for part in folded.split("/") if part not in ("", "."))


def _common_tail(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the number of equal parts at the ends of two paths."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left != right:
            break
        count += 1
    return count


def _unrivalled(
    candidates: Mapping[int, str],
    records: Mapping[int, ImageRecord],
    lengths: Mapping[int, int] | None = None,
) -> dict[int, str]:
    """Returns the candidates whose image no record of another name claims equally well."""
    claims: dict[str, list[int]] = defaultdict(list)
    for at, image in candidates.items():
        claims[image].append(at)
    chosen = {}
    for image, positions in claims.items():
        longest = max(lengths[at] for at in positions) if lengths else 0
        best = [at for at in positions if not lengths or lengths[at] == longest]
        if len({plain_name(records[at]) for at in best}) == 1:
            chosen |= dict.fromkeys(best, image)
    return chosen
