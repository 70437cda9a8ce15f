"""Finds the samples of a tar archive: which members are the image, the caption and the metadata.

In most archives the members of a sample follow one another, so that a sample is complete before the
next one begins. `streamed_samples` reads such an archive once from beginning to end and holds one
sample at a time. It stops at the first sample that lacks its image or its text. From there on
`read_plan` decides: it reads the headers of the whole archive, and forms the same samples as the
stream where members are adjacent. It then pairs what is left: eight images may be followed by their
eight captions.

Every image and every caption is in a sample or is an `Extra`.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pinxit.data.sources.samples.sample_names import (
    Grouping,
    Sample,
    SampleName,
    are_related,
    describe_picture,
    group_names,
    parse_name,
)
from pinxit.data.sources.samples.sample_rows import LARGEST
from pinxit.data.sources.samples.tar_stream import members, read_exactly

HELD = 2**27
"""The most bytes of adjacent members with one name that are held in memory."""

Place = tuple[str, str]
"""A folder and a name up to its first dot."""


@dataclass(frozen=True, slots=True)
class Part:
    """A member that is an image, a caption or the metadata of a sample."""

    name: SampleName
    size: int
    offset: int
    """The position of its content in the archive, in bytes."""
    order: int
    """The number of members before it."""
    data: bytes | None = None
    """The content, if it has been read; None if it is larger than the limit."""

    @property
    def fits(self) -> bool:
        """Returns whether the member is small enough to be read."""
        return self.size <= LARGEST["image" if self.name.kind == "image" else "text"]

    def read(self, stream: io.IOBase, path: str) -> Part:
        """Returns the member with its content from the archive, if it is small enough."""
        if not self.fits:
            return self
        stream.seek(self.offset)
        return dataclasses.replace(self, data=read_exactly(stream, self.size, path))


@dataclass(frozen=True, slots=True)
class TarSample:
    """The members that form one sample."""

    image: Part | None
    caption: Part | None
    about: Part | None

    @property
    def parts(self) -> list[Part]:
        """Returns the members that exist."""
        return [part for part in (self.image, self.caption, self.about) if part is not None]

    @property
    def is_complete(self) -> bool:
        """Returns whether there is an image and a text with its caption."""
        return self.image is not None and (self.caption is not None or self.about is not None)

    def read(self, stream: io.IOBase, path: str) -> TarSample:
        """Returns the sample with the content of its members from the archive."""
        parts = (self.image, self.caption, self.about)
        return TarSample(*(part and part.read(stream, path) for part in parts))


@dataclass(frozen=True, slots=True)
class Extra:
    """An image or a caption of an archive that is in no sample."""

    order: int
    path: str
    status: str
    """The outcome of its row."""
    detail: str


@dataclass
class TarPlan:
    """The samples of an archive and all other images and captions, both in the archive's order."""

    samples: list[TarSample] = field(default_factory=list)
    extras: list[Extra] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Returns whether no sample lacks its image or its text."""
        return all(sample.is_complete for sample in self.samples)

    @property
    def rows(self) -> int:
        """Returns the number of rows of the archive."""
        return len(self.samples) + len(self.extras)


def streamed_samples(
    stream: io.IOBase, path: str, extras: list[Extra]
) -> Generator[TarSample, None, int | None]:
    """Yields the samples of an archive as far as they are complete, and adds to `extras`.

    The generator returns None at the end of the archive. Where it stops before, it returns the
    number of samples, after which those of `read_plan` continue.
    """
    count = 0
    for run in _runs(_parts(stream, path, extras, bodies=True)):
        held, size = [], 0
        for part in run:
            held.append(part)
            size += len(part.data or b"")
            if size > HELD:
                return count
        plan = _plan_run(held)
        if not plan.is_complete:
            return count
        extras += plan.extras
        yield from plan.samples
        count += len(plan.samples)
    extras.sort(key=lambda extra: extra.order)
    return None


def read_plan(stream: io.IOBase, path: str) -> TarPlan:
    """Returns the samples of an archive by the names of all of its members."""
    plan = TarPlan()
    waiting: dict[Place, list[Part]] = {}
    images: dict[Place, list[SampleName]] = {}
    for run in _runs(_parts(stream, path, plan.extras, bodies=False)):
        parts = list(run)
        place = parts[0].name.group
        near = _plan_run(parts)
        if near.is_complete:
            plan.samples += near.samples
            plan.extras += near.extras
            images.setdefault(place, []).extend(
                sample.image.name for sample in near.samples if sample.image is not None
            )
        else:
            waiting.setdefault(place, []).extend(parts)
    for place, parts in waiting.items():
        far = _without_repeats(_plan_run(parts), images.get(place, ()))
        plan.samples += far.samples
        plan.extras += far.extras
    plan.samples.sort(key=lambda sample: min(part.order for part in sample.parts))
    plan.extras.sort(key=lambda extra: extra.order)
    return plan


def _parts(stream: io.IOBase, path: str, extras: list[Extra], *, bodies: bool) -> Iterator[Part]:
    """Yields the members that have the name of an image, a caption or metadata.

    Of these, links and members with unsafe names are added to `extras`.
    """
    for order, member in enumerate(members(stream, path, seek=not bodies)):
        name = parse_name(member.name.replace("\\", "/") if member.problem else member.name)
        if name is None:
            continue
        if member.problem:
            if name.kind != "about":
                extras.append(Extra(order, member.name, "bad_record", member.problem))
            continue
        part = Part(name, member.size, member.offset, order)
        if bodies and part.fits:
            part = dataclasses.replace(part, data=member.body.read(member.size))
        yield part


def _runs(parts: Iterable[Part]) -> Iterator[Iterator[Part]]:
    """Yields runs of members whose names agree up to the first dot."""
    for _, run in itertools.groupby(parts, key=lambda part: part.name.group):
        yield run


def _plan_run(parts: Sequence[Part]) -> TarPlan:
    """Returns the samples and extras among members whose names agree up to the first dot."""
    grouping = group_names([part.name for part in parts])
    samples = [_sample(parts, sample) for sample in grouping.samples]
    return TarPlan(samples, [*_extra_images(parts, grouping), *_extra_captions(parts, grouping)])


def _sample(parts: Sequence[Part], sample: Sample) -> TarSample:
    positions = (sample.image, sample.caption, sample.about)
    return TarSample(*(None if at is None else parts[at] for at in positions))


def _extra_images(parts: Sequence[Part], grouping: Grouping) -> Iterator[Extra]:
    for at, sample in grouping.extra_images:
        picture = None if sample.image is None else parts[sample.image].name
        yield _extra(parts[at], "extra_image", describe_picture(picture))


def _extra_captions(parts: Sequence[Part], grouping: Grouping) -> Iterator[Extra]:
    for at in grouping.extra_captions:
        yield _extra(parts[at], "extra_caption", "another text is the caption of this sample")


def _extra(part: Part, status: str, detail: str) -> Extra:
    return Extra(part.order, part.name.path, status, detail)


def _without_repeats(plan: TarPlan, images: Sequence[SampleName]) -> TarPlan:
    """Returns a plan whose incomplete samples are extras if they repeat one of the `images`."""
    samples, extras = [], list(plan.extras)
    for sample in plan.samples:
        head = sample.parts[0]
        anchor = next((image for image in images if are_related(image, head.name)), None)
        if sample.is_complete or anchor is None:
            samples.append(sample)
            continue
        detail = f"an earlier sample has the picture {anchor.base}"
        if sample.image is not None:
            extras.append(_extra(sample.image, "extra_image", detail))
        if sample.caption is not None:
            extras.append(_extra(sample.caption, "extra_caption", detail))
    return TarPlan(samples, extras)
