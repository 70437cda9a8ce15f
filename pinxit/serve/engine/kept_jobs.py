"""The jobs that a server still remembers after their end."""

from __future__ import annotations

import time
from collections.abc import Iterable

from pinxit.serve.engine.jobs import Job

KEPT_JOBS, KEPT_BYTES, KEPT_SECONDS = 256, 2**29, 3600.0
"""The number, the memory and the age of the jobs that are kept after their end."""


def jobs_to_forget(jobs: Iterable[Job], *, seconds: float) -> list[Job]:
    """Returns the jobs that ended more than some seconds ago, and the oldest ones if there are too
    many or their pictures need too much memory."""
    ended = [job for job in jobs if job.ended is not None]
    sizes = {job: job.nbytes for job in ended}
    total, now, forgotten = sum(sizes.values()), time.time(), []
    for rank, job in enumerate(ended):
        old = now - (job.ended or now) > seconds
        if old or len(ended) - rank > KEPT_JOBS or total > KEPT_BYTES:
            forgotten.append(job)
            total -= sizes[job]
    return forgotten
