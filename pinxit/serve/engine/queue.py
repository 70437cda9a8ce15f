"""The queue of pictures, which takes turns between jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from pinxit.serve.engine.jobs import Job


class FairQueue:
    """Pictures that wait, job by job: each job in turn gives one picture.

    So the pictures of a large job do not hold up a small one. It has no lock of its own.
    """

    def __init__(self) -> None:
        self._waiting: dict[Job, deque[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __contains__(self, job: Job) -> bool:
        return job in self._waiting

    def jobs(self) -> Iterator[Job]:
        """Returns the jobs in the order of their turns."""
        return iter(list(self._waiting))

    def add(self, job: Job) -> None:
        """Adds all pictures of a job."""
        self._waiting[job] = deque(range(len(job.pictures)))

    def take(self, fits: Callable[[Job], bool]) -> tuple[Job, int] | None:
        """Removes and returns the next picture whose job fits, or returns None."""
        job = next((job for job in self._waiting if fits(job)), None)
        if job is None:
            return None
        numbers = self._waiting.pop(job)
        number = numbers.popleft()
        if numbers:
            self._waiting[job] = numbers  # behind all others
        return job, number

    def discard(self, job: Job) -> None:
        """Removes the pictures of a job that still wait."""
        self._waiting.pop(job, None)
