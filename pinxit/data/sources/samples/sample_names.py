"""Decides by their names which files form a sample: an image, its caption and its metadata.

Folders and archives ask the same questions, and this module answers them for both. The suffix is
the part of a name after its last dot, so that ``shot 1.5s.jpg`` belongs to ``shot 1.5s.txt`` and
not to ``shot 1.7s.txt``. A text and an image belong together, in this order, if

- they have the same stem (``1.jpg`` and ``1.txt``),
- the text repeats the whole name of the image (``1.jpg.txt``),
- one continues the other by a dotted word or number (``1.jpg`` and ``1.caption.txt``), or their
  last dotted words are the usual ones for this (``1.image.png`` and ``1.caption.txt``).

Another image of the same sample, such as ``1.mask.png``, never takes the place of the picture, even
if the picture is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pinxit.data.images.formats import SUFFIXES
from pinxit.data.sources.file_names import is_hidden, printable

IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""The suffixes of images, in lower case. Whether an image can be decoded shows later."""
CAPTION_SUFFIXES = ("txt", "caption", "text", "captions", "cap")
"""The suffixes of captions. If an image has several captions, the first suffix here counts."""
ABOUT_SUFFIX = "json"
"""The suffix of the metadata of one image."""
MASKS = frozenset({"mask", "masks", "seg", "segmentation", "trimap", "matte"})
"""Dotted words of images that never take the caption of a sample."""
AUXILIARY = MASKS | {
    *("depth", "normal", "normals", "edge", "edges", "canny", "alpha", "pose"),
    *("thumb", "thumbnail", "preview"),
}
"""Dotted words of images that describe another image of the sample, if there is one."""
ROLES = AUXILIARY | {
    *("image", "img", "rgb", "photo", "picture"),
    *("caption", "captions", "text", "txt", "prompt", "alt", "description"),
}
"""Dotted words that name a part of a sample."""
PART = re.compile(r"[^\W\d][\w-]*|\d+")
"""A dotted word or number that continues the name of a sample. In ``shot 1.5s`` it is neither."""


@dataclass(frozen=True, slots=True)
class SampleName:
    """The name of an image, a caption or a metadata file."""

    path: str
    folder: str
    base: str
    """The name without the folder."""
    stem: str
    """The name without the folder and the suffix."""
    suffix: str
    """The suffix in lower case."""
    kind: str
    """The kind of file: "image", "caption" or "about"."""

    @property
    def group(self) -> tuple[str, str]:
        """Returns the folder and the name up to the first dot. Samples never extend over two."""
        return self.folder, self.base.partition(".")[0]

    @property
    def role(self) -> str:
        """Returns the last dotted word in lower case, or an empty string if there is none."""
        return self.stem.lower().partition(".")[2].rpartition(".")[2]

    @property
    def is_auxiliary(self) -> bool:
        """Returns whether the last dotted word is one of `AUXILIARY`."""
        return self.role in AUXILIARY


@dataclass
class Sample:
    """The positions of a sample's files in a list of names."""

    image: int | None = None
    caption: int | None = None
    about: int | None = None

    @property
    def first(self) -> int:
        """Returns the position of the sample's first file."""
        return min(at for at in (self.image, self.caption, self.about) if at is not None)


@dataclass
class Grouping:
    """The samples of a group of names, and the images and captions that are left over."""

    samples: list[Sample] = field(default_factory=list)
    extra_images: list[tuple[int, Sample]] = field(default_factory=list)
    """The other images of samples. The sample may lack its picture."""
    extra_captions: list[int] = field(default_factory=list)
    """The captions of images that have another caption."""


def parse_name(path: str) -> SampleName | None:
    """Returns the parts of a name, or None if it is not part of a sample, or hidden."""
    folder, _, base = path.rpartition("/")
    stem, _, suffix = base.rpartition(".")
    kind = suffix_kind(suffix.lower())
    if kind is None or not stem or is_hidden(base) or "__MACOSX" in folder.split("/"):
        return None
    return SampleName(path, folder, base, stem, suffix.lower(), kind)


def suffix_kind(suffix: str) -> str | None:
    """Returns the kind of file that a suffix in lower case stands for, or None."""
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in CAPTION_SUFFIXES:
        return "caption"
    return "about" if suffix == ABOUT_SUFFIX else None


def describe_picture(picture: SampleName | None) -> str:
    """Returns the detail of another image of a sample, which says what the picture is."""
    if picture is None:
        return "this sample has no picture"
    return f"the picture of this sample is {printable(picture.base)}"


def are_related(one: SampleName, other: SampleName) -> bool:
    """Returns whether two names of one group belong to the same sample by their dotted words."""
    short, long = sorted((one.stem.split("."), other.stem.split(".")), key=len)
    if long[: len(short)] == short:
        return all(PART.fullmatch(part) for part in long[len(short) :])
    return short[:-1] == long[:-1] and bool({short[-1].lower(), long[-1].lower()} & ROLES)


def group_names(names: Sequence[SampleName]) -> Grouping:
    """Returns the samples among the `names` of one group, in the order of their first files."""
    grouping = Grouping()
    images = sorted(_of(names, "image"), key=lambda at: _rank(names[at]))
    free = {
        "caption": sorted(
            _of(names, "caption"), key=lambda at: CAPTION_SUFFIXES.index(names[at].suffix)
        ),
        "about": _of(names, "about"),
    }
    rest = _pair_by_stem(names, images, free, grouping)
    masks = [at for at in rest if names[at].role in MASKS]
    for at in (at for at in rest if at not in masks):
        anchor = _related_sample(names, at, grouping.samples)
        if anchor is not None:
            grouping.extra_images.append((at, anchor))
        else:
            grouping.samples.append(Sample(image=at))
            _fill(names, grouping.samples[-1], free)
    for sample in grouping.samples:
        _fill(names, sample, free)
    _place_the_rest(names, free, grouping)
    for at in masks:
        anchor = _related_sample(names, at, grouping.samples)
        if anchor is None:
            grouping.samples.append(Sample(image=at))
        else:
            grouping.extra_images.append((at, anchor))
    grouping.samples.sort(key=lambda sample: sample.first)
    grouping.extra_images.sort(key=lambda extra: extra[0])
    grouping.extra_captions.sort()
    return grouping


def _pair_by_stem(
    names: Sequence[SampleName], images: list[int], free: dict[str, list[int]], grouping: Grouping
) -> list[int]:
    """Adds the samples whose texts have the name of their image. Returns the other images."""
    rest, stems = [], set()
    only_auxiliary = all(names[at].is_auxiliary for at in images)
    for at in images:
        name, sample = names[at], Sample(image=at)
        if name.stem not in stems and (only_auxiliary or not name.is_auxiliary):
            stems.add(name.stem)
            _take(names, sample, free, lambda text, name=name: text.stem == name.stem)
        _take(names, sample, free, lambda text, name=name: text.stem == name.base)
        if sample.caption is None and sample.about is None:
            rest.append(at)
        else:
            grouping.samples.append(sample)
    return rest


def _place_the_rest(
    names: Sequence[SampleName], free: dict[str, list[int]], grouping: Grouping
) -> None:
    """Adds the texts that belong to no image as samples, and notes the spare captions."""
    for kind in ("caption", "about"):
        for at in free[kind]:
            anchor = _related_sample(names, at, grouping.samples)
            if anchor is None:
                grouping.samples.append(Sample(**{kind: at}))
            elif kind == "caption":
                grouping.extra_captions.append(at)
            elif anchor.image is None and anchor.about is None:
                anchor.about = at


def _fill(names: Sequence[SampleName], sample: Sample, free: dict[str, list[int]]) -> None:
    """Gives a sample the first related caption and metadata that it lacks."""
    assert sample.image is not None
    image = names[sample.image]
    _take(names, sample, free, lambda text: are_related(image, text))


def _take(
    names: Sequence[SampleName],
    sample: Sample,
    free: dict[str, list[int]],
    fits: Callable[[SampleName], bool],
) -> None:
    """Moves the first caption and metadata that fit from the `free` ones into the sample."""
    for kind, positions in free.items():
        at = next((at for at in positions if fits(names[at])), None)
        if at is not None and getattr(sample, kind) is None:
            setattr(sample, kind, at)
            positions.remove(at)


def _related_sample(
    names: Sequence[SampleName], at: int, samples: Sequence[Sample]
) -> Sample | None:
    return next((s for s in samples if are_related(names[at], names[_head(s)])), None)


def _head(sample: Sample) -> int:
    return sample.first if sample.image is None else sample.image


def _rank(name: SampleName) -> tuple[bool, int]:
    """Returns the order in which images may be the picture of a sample: plain names first."""
    return name.is_auxiliary, name.stem.count(".")


def _of(names: Sequence[SampleName], kind: str) -> list[int]:
    return [at for at, name in enumerate(names) if name.kind == kind]
