"""Jobs: what a request asks for, how far it is, and the events for any number of listeners.

A job keeps its state and not a history. A listener compares the state with what it saw before and
receives the difference as events. So a late listener gets the whole state at once, a slow one gets
the latest step, and nothing grows without listeners. Only previews have a short history, so that
a listener sees each of them unless it falls far behind.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pinxit.serve.engine.events import Event, Finished, JobEnded, Preview, Queued, Step

ENDED = ("done", "failed", "cancelled")
"""The states in which nothing more happens."""
PREVIEW_BYTES = 2**25
"""Memory for the previews of a job; beyond it the oldest are dropped."""


@dataclass(frozen=True, eq=False)
class DrawRequest:
    """A request for pictures of one prompt."""

    prompt: str
    """The text that the pictures show."""
    model: str | None = None
    """The id of the model; None means the default one."""
    n: int = 1
    """The number of pictures, whose seeds follow each other."""
    seed: int = 0
    """The seed of the first picture."""
    size: tuple[int, int] | None = None
    """Width and height in pixels; None means the model's own size."""
    negative_prompt: str = ""
    """The text that guidance steers away from."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """The fields of `Sampling` that differ from the model's."""
    image: Image.Image | None = None
    """The picture to start from."""
    mask: Image.Image | None = None
    """White where the picture is repainted."""
    strength: float | None = None
    """The fraction of the steps that are made from the picture."""
    image_name: str = ""
    """The name of the picture's file, for the recipe."""
    mask_name: str = ""
    """The name of the mask's file, for the recipe."""
    previews: int = 0
    """The number of previews of each picture; -1 means one after every step."""
    keep: bool = False
    """Whether finished pictures are stored in the gallery."""


@dataclass(frozen=True)
class Picture:
    """A finished picture."""

    image: Image.Image
    """The finished picture, an RGB image."""
    recipe: dict[str, Any]
    """The recipe that draws it again."""
    stored: str | None
    """Its name in the gallery, or None if it is not stored."""


class QueueFull(Exception):
    """The queue has no room for the pictures of a request."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} seconds")
        self.retry_after = retry_after


class Draining(Exception):
    """The server is about to end and takes no further requests."""

    def __init__(self) -> None:
        super().__init__("the server is ending and takes no further requests")


class Job:
    """The pictures of one request, from the queue to the end."""

    def __init__(self, request: DrawRequest, *, on_cancel: Callable[[Job], None]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.request = request
        self.created = time.time()
        self.ended: float | None = None
        """The time at which the job ended, otherwise None."""
        self.state = "queued"
        self.position = 1
        self.warnings: list[str] = []
        self.pictures: list[Picture | None] = [None] * request.n
        self.tokens = 0
        """The number of text tokens that were read, once the texts are encoded."""
        self.error: Exception | None = None
        self.cancelling = False
        """Whether the job was cancelled; it ends within one step."""
        self._on_cancel = on_cancel
        self._steps: list[tuple[int, int]] = [(0, 0)] * request.n
        self._previews: list[Preview] = []
        self._first_preview = 0
        self._changed = threading.Condition()
        self._wakers: dict[int, Callable[[], None]] = {}
        self._next_waker = 0

    def __repr__(self) -> str:
        return f"Job({self.id[:6]}..., {self.state}, {len(self.pictures)} pictures)"

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens."""
        return self.state in ENDED

    @property
    def nbytes(self) -> int:
        """The memory of the job's pictures."""
        images = [picture.image for picture in self.pictures if picture is not None]
        images += [preview.image for preview in self._previews]
        images += [image for image in (self.request.image, self.request.mask) if image is not None]
        return sum(_bytes_of(image) for image in images)

    def progress(self) -> list[tuple[int, int]]:
        """Returns the number of steps that are done, and in all, for each picture."""
        with self._changed:
            return list(self._steps)

    def cancel(self) -> None:
        """Ends the job within one step. Finished pictures stay. An ended job is not changed."""
        self._on_cancel(self)

    def wait(self, timeout: float | None = None) -> Job:
        """Waits until the job has ended, and returns it. Raises `TimeoutError` after a time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.is_ended, timeout):
                raise TimeoutError(f"the job has not ended after {timeout:g} seconds")
        return self

    def follow(self) -> Iterator[Event]:
        """Yields the state so far as events, then each change until the end; waits in between."""
        view = _View(self)
        while True:
            with self._changed:
                self._changed.wait_for(view.is_behind)
                events = view.events()
            yield from events
            if events and isinstance(events[-1], JobEnded):
                return

    async def events(self) -> AsyncIterator[Event]:
        """Yields the same events as `follow`, in a coroutine."""
        loop, changed, view = asyncio.get_running_loop(), asyncio.Event(), _View(self)

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._changed:
            key, self._next_waker = self._next_waker, self._next_waker + 1
            self._wakers[key] = wake
        try:
            while True:
                changed.clear()
                with self._changed:
                    events = view.events()
                for event in events:
                    yield event
                if events and isinstance(events[-1], JobEnded):
                    return
                await changed.wait()
        finally:
            with self._changed:
                del self._wakers[key]

    # --- what the engine reports ---------------------------------------------------------------

    def report_position(self, position: int) -> None:
        """Records the place in the queue; 0 means that drawing has begun."""
        with self._changed:
            if position != self.position and not self.is_ended:
                self.position = position
                self.state = "queued" if position else "drawing"
                self._notify()

    def report_step(self, picture: int, step: int, steps: int) -> None:
        """Records the steps of a picture."""
        with self._changed:
            self._steps[picture] = (step, steps)
            self._notify()

    def report_preview(self, preview: Preview) -> None:
        """Records a preview, and drops the oldest ones if there are too many."""
        with self._changed:
            self._previews.append(preview)
            size = sum(_bytes_of(each.image) for each in self._previews)
            while size > PREVIEW_BYTES and len(self._previews) > 1:
                size -= _bytes_of(self._previews.pop(0).image)
                self._first_preview += 1
            self._notify()

    def report_picture(self, number: int, picture: Picture) -> None:
        """Records a finished picture."""
        with self._changed:
            self.pictures[number] = picture
            self._notify()

    def report_end(self, state: str, error: Exception | None = None) -> None:
        """Records the end. A job that has ended is not changed."""
        with self._changed:
            if self.is_ended:
                return
            self.position, self.ended = 0, time.time()
            self.error, self.state = error, state
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        for key, wake in list(self._wakers.items()):
            try:
                wake()
            except RuntimeError:  # its event loop was closed
                self._wakers[key] = _nothing


class _View:
    """The part of a job's state that a listener has seen."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._position: int | None = None
        self._steps = [0] * len(job.pictures)
        self._finished: set[int] = set()
        # An ended job and a late listener: only the latest preview of each picture is of interest.
        self._preview: int | None = None

    def is_behind(self) -> bool:
        """Returns whether there are events that the listener has not seen. Needs the job's lock."""
        return bool(self._differences())

    def events(self) -> list[Event]:
        """Returns the events since the last call. Needs the job's lock."""
        events = self._differences()
        job = self._job
        for event in events:
            if isinstance(event, Queued):
                self._position = event.position
            elif isinstance(event, Finished):
                self._finished.add(event.picture)
        self._steps = [done for done, _ in job._steps]
        self._preview = job._first_preview + len(job._previews)
        return events

    def _differences(self) -> list[Event]:
        job, events = self._job, list[Event]()
        if job.position != self._position and not (job.is_ended and self._position == 0):
            events.append(Queued(job.position))
        events += self._new_previews()
        for number, (done, steps) in enumerate(job._steps):
            if done > self._steps[number]:
                events.append(Step(number, done, steps))
        for number, picture in enumerate(job.pictures):
            if picture is not None and number not in self._finished:
                events.append(Finished(number, picture.image, picture.recipe, picture.stored))
        if job.is_ended:
            events.append(JobEnded(job.state, job.error))
        return events

    def _new_previews(self) -> list[Preview]:
        """Returns the previews since the last call, at first the latest one of each picture."""
        job = self._job
        if self._preview is None:
            latest = {preview.picture: preview for preview in job._previews}
            return [each for each in latest.values() if job.pictures[each.picture] is None]
        return job._previews[max(0, self._preview - job._first_preview) :]


def _bytes_of(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())


def _nothing() -> None:
    """Does nothing, in place of a listener that is gone."""
