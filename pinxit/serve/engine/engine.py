"""The engine, which draws the pictures of all requests."""

from __future__ import annotations

import gc
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from PIL import Image

from pinxit.arrays import TextEncoder
from pinxit.drawing import one_by_one
from pinxit.free_memory import return_free_memory
from pinxit.serve.engine.job_error import job_error
from pinxit.serve.engine.jobs import Draining, DrawRequest, Job, Picture, QueueFull
from pinxit.serve.engine.kept_jobs import KEPT_SECONDS, jobs_to_forget
from pinxit.serve.engine.lanes import Lane
from pinxit.serve.engine.limits import check_request
from pinxit.serve.engine.models import LoadedModel, ModelEntry, ModelSource, ModelStore
from pinxit.serve.engine.prepared_job import PreparedJob, order_of
from pinxit.serve.engine.queue import FairQueue
from pinxit.serve.settings import StudioConfig
from pinxit.stepwise import StepForm

MOST_THREADS = 4
"""The largest number of threads that draw on a CPU by default."""
MOST_BATCHES = 4
"""The number of forms of pictures that an accelerator draws in turn."""
MOST_FORMS = 24
"""The number of forms of pictures whose programs are kept in memory, about 40 MB for each."""
SECONDS_TO_TRIM = 30.0
"""The time after which memory that is free is returned to the system again."""
MOST_SECONDS_TO_END = 20.0
"""The time that `DrawingEngine.close` waits for threads, of which one may be compiling."""
Store = Callable[[Job, int, Image.Image, dict[str, Any]], str]
"""A function that stores a finished picture, and returns its name in the gallery."""


class DrawingEngine:
    """Draws the pictures of all requests."""

    def __init__(self, config: StudioConfig, *, store: Store | None = None) -> None:
        self.config = config
        self.store = store
        """Stores the pictures of requests with `keep`; the gallery sets it."""
        self.kept_seconds = KEPT_SECONDS
        self._models = ModelStore(
            tuple(config.checkpoints),
            Path(config.runs),
            most=config.max_models,
            encoder_dtype=config.encoder_dtype,
        )
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._prepared: dict[Job, PreparedJob] = {}
        self._queue = FairQueue()
        self._loading: deque[tuple[Job, ModelSource]] = deque()
        self._drawing: dict[Job, int] = {}
        self._counts: dict[str, int] = {}
        self._seconds = 1.0
        self._known: set[StepForm] = set()
        self._first: set[StepForm] = set()
        self._started = self._draining = self._closed = False
        count, most = 1, MOST_BATCHES
        if one_by_one():
            count, most = config.concurrency or min(os.cpu_count() or 1, MOST_THREADS), 1
        self._threads: list[threading.Thread] = [
            Lane(_Desk(self), most_batches=most, name=f"drawing {i + 1}") for i in range(count)
        ]
        loader = threading.Thread(target=self._load_models, name="loading models", daemon=True)
        self._threads.append(loader)

    # --- for everybody -------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the threads and loads the default model; the first request does it as well."""
        with self._changed:
            if self._started or self._closed:
                return
            self._started = True
            for thread in self._threads:
                thread.start()

    def submit(self, request: DrawRequest) -> Job:
        """Adds a request to the queue.

        Raises `UsageError` for a request that the model refuses, if the model is in memory;
        otherwise such a job fails with that error once the model is loaded. Raises `QueueFull` and
        `Draining`.
        """
        self.start()
        self._check_room(request.n)
        check_request(request, self.config)
        source = self._models.find(request.model)
        job = Job(request, on_cancel=self._cancel)
        # A model that waits for room is not overtaken for ever by requests for the others.
        loaded = None if self._models.waits_for_room else self._models.acquire(source)
        prepared = None if loaded is None else self._prepare(job, loaded)
        with self._changed:
            try:
                self._check_room(request.n)
            except (QueueFull, Draining):
                if loaded is not None:
                    self._models.release(loaded)
                raise
            self._jobs[job.id] = job
            if prepared is None:
                self._loading.append((job, source))
            else:
                self._prepared[job] = prepared
                self._queue.add(job)
            self._forget()
            self._positions()
            self._changed.notify_all()
        return job

    def job(self, id: str) -> Job:
        """Returns a job that has not ended, or ended a short time ago. Raises `KeyError`."""
        with self._changed:
            self._forget()
            return self._jobs[id]

    def jobs(self) -> list[Job]:
        """Returns all such jobs, the newest last."""
        with self._changed:
            self._forget()
            return list(self._jobs.values())

    def models(self) -> list[ModelEntry]:
        """Returns the models that requests may choose, the default one first."""
        return self._models.entries()

    def load(self, id: str | None) -> ModelEntry:
        """Returns a model's entry with the facts about it, and loads it if they are not known.

        Waits while as many models as allowed are in use. Raises `UsageError` for an unknown model,
        and whatever loading raises.
        """
        source = self._models.find(id)
        entry = self._models.entry(source)
        if not entry.defaults:
            self._models.release(self._models.load(source))
            entry = self._models.entry(source)
        return entry

    def text_encoder(self, id: str | None) -> TextEncoder:
        """Returns the text encoder of a model, which is loaded if it is not in memory."""
        loaded = self._models.load(self._models.find(id))
        try:
            return loaded.model.text_encoder
        finally:
            self._models.release(loaded)

    def statistics(self) -> dict[str, Any]:
        """Returns numbers for monitoring: pictures by state, jobs by end, seconds per picture."""
        with self._changed:
            return {
                "waiting": self._waiting(),
                "drawing": sum(self._drawing.values()),
                "ended": dict(self._counts),
                "seconds_per_picture": self._seconds,
                "draining": self._draining,
            }

    def drain(self, seconds: float) -> None:
        """Refuses further requests, waits until the others have ended, and cancels what is left
        after some seconds."""
        with self._changed:
            self._draining = True
            self._changed.wait_for(lambda: not self._unfinished(), seconds)
            left = self._unfinished()
        for job in left:
            job.cancel()

    def close(self) -> None:
        """Cancels everything and ends the threads."""
        self.drain(0)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._models.close()
        deadline = time.monotonic() + MOST_SECONDS_TO_END
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    # --- the queue -----------------------------------------------------------------------------

    def _check_room(self, count: int) -> None:
        """Raises if as many pictures may not wait. A large request is taken by an empty queue."""
        with self._changed:
            if self._draining:
                raise Draining
            waiting = self._waiting()
            excess = waiting + count - self.config.max_waiting
            if waiting and excess > 0:
                lanes = len(self._threads) - 1
                seconds = min(excess, waiting) * self._seconds / lanes
                raise QueueFull(max(1, min(3600, math.ceil(seconds))))

    def _waiting(self) -> int:
        return len(self._queue) + sum(len(job.pictures) for job, _ in self._loading)

    def _unfinished(self) -> list[Job]:
        return [job for job in self._jobs.values() if not job.is_ended]

    def _positions(self) -> None:
        """Tells the jobs that have not begun their places."""
        place = 0
        for job in [*self._queue.jobs(), *(job for job, _ in self._loading)]:
            if job.state == "queued" and job not in self._drawing:
                place += 1
                job.report_position(place)

    def _forget(self) -> None:
        for job in jobs_to_forget(self._jobs.values(), seconds=self.kept_seconds):
            del self._jobs[job.id]

    def _cancel(self, job: Job) -> None:
        """Removes a job's waiting pictures; those that are drawn end with their step."""
        with self._changed:
            if job.is_ended:
                return
            job.cancelling = True
            self._queue.discard(job)
            self._loading = deque(item for item in self._loading if item[0] is not job)
            self._end_if_idle(job)
            self._positions()

    # --- models --------------------------------------------------------------------------------

    def _prepare(self, job: Job, loaded: LoadedModel) -> PreparedJob:
        """Returns a job for a loaded model. Raises `UsageError`, and then releases the model."""
        try:
            order, job.warnings = order_of(job.request, loaded.model, self.config)
            dtype = self.config.encoder_dtype
            added = {} if dtype == "float32" else {"encoder_dtype": dtype}
            return PreparedJob(job, loaded, order, added=added)
        except BaseException:
            self._models.release(loaded)
            raise

    def _load_models(self) -> None:
        """Loads models for the jobs that wait for them, first the default one."""
        try:
            self._models.release(self._models.load(self._models.find(None)))
        except Exception as error:  # the requests for it fail with this error, and no others
            print(f"pinxit studio: the default model cannot be loaded: {error}", file=sys.stderr)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._loading, SECONDS_TO_TRIM)
                if self._closed:
                    return
                first = self._loading[0] if self._loading else None
            if first is None:
                return_free_memory()
                continue
            job, source = first
            try:
                prepared = self._prepare(job, self._models.load(self._models.find(source.id)))
            except (Exception, SystemExit) as error:
                self._loaded(job, None, error)
            else:
                self._loaded(job, prepared, None)

    def _loaded(self, job: Job, prepared: PreparedJob | None, error: BaseException | None) -> None:
        """Puts a job whose model was loaded into the queue, unless it was cancelled meanwhile."""
        with self._changed:
            waited = bool(self._loading) and self._loading[0][0] is job
            if waited:
                self._loading.popleft()
            if prepared is not None and not waited:
                self._models.release(prepared.loaded)
            elif prepared is not None:
                self._prepared[job] = prepared
                self._queue.add(job)
            elif waited and error is not None:
                self._end(job, "failed", job_error(error))
            self._positions()
            self._changed.notify_all()

    # --- drawing -------------------------------------------------------------------------------

    def _end_if_idle(self, job: Job) -> None:
        """Ends a job none of whose pictures is drawn or waits."""
        if self._drawing.get(job) or job in self._queue or job.is_ended:
            return
        if job.error is not None:
            self._end(job, "failed", job.error)
        elif any(picture is None for picture in job.pictures):
            self._end(job, "cancelled", None)
        else:
            self._end(job, "done", None)

    def _end(self, job: Job, state: str, error: Exception | None) -> None:
        prepared = self._prepared.pop(job, None)
        self._drawing.pop(job, None)
        if prepared is not None:
            if message := prepared.late_warning():
                job.warnings.append(message)
            self._models.release(prepared.loaded)
        self._counts[state] = self._counts.get(state, 0) + 1
        job.report_end(state, error)
        self._changed.notify_all()


class _Desk:
    """Hands out the engine's pictures to its lanes (see `lanes.Desk`)."""

    def __init__(self, engine: DrawingEngine) -> None:
        self._engine = engine

    def next_picture(
        self, fits: Callable[[PreparedJob], bool], *, wait: bool
    ) -> tuple[PreparedJob, int] | None:
        """Returns a picture whose job fits, and waits for one if it may."""
        engine = self._engine
        with engine._changed:
            while True:
                if engine._closed and wait:
                    return None
                following = engine._queue.take(
                    lambda job: self._may_start(job) and fits(engine._prepared[job])
                )
                if following is not None:
                    job, number = following
                    form = engine._prepared[job].form
                    if form not in engine._known:
                        engine._first.add(form)
                    engine._drawing[job] = engine._drawing.get(job, 0) + 1
                    job.report_position(0)
                    engine._positions()
                    return engine._prepared[job], number
                if not wait:
                    return None
                engine._changed.wait()

    def _may_start(self, job: Job) -> bool:
        """Returns whether a job's form was drawn before, or is drawn for the first time now.

        The first picture of a form compiles its programs. Others wait for it instead of compiling
        the same programs at the same time.
        """
        return self._engine._prepared[job].form not in self._engine._first

    def finished(
        self, prepared: PreparedJob, number: int, image: Image.Image, seconds: float
    ) -> None:
        """Stores a picture if its request asks for that, and reports it."""
        engine, job = self._engine, prepared.job
        recipe, stored = prepared.recipe(number), None
        if job.request.keep and engine.store is not None:
            try:
                stored = engine.store(job, number, image, recipe)
            except OSError as error:
                job.warnings.append(f"picture {number + 1} could not be stored: {error}")
        job.report_picture(number, Picture(image, recipe, stored))
        with engine._changed:
            if prepared.form in engine._known:  # otherwise most of the time was compilation
                engine._seconds += 0.2 * (seconds - engine._seconds)
            engine._counts["pictures"] = engine._counts.get("pictures", 0) + 1
            engine._known.add(prepared.form)
            self._done(prepared)

    def abandoned(self, prepared: PreparedJob, error: BaseException | None) -> None:
        """Ends the job of a picture that was not finished, after its other pictures."""
        engine, job = self._engine, prepared.job
        with engine._changed:
            if error is not None and job.error is None:
                job.error = job_error(error)
                job.cancelling = True
                engine._queue.discard(job)
            self._done(prepared)

    def _done(self, prepared: PreparedJob) -> None:
        engine, job = self._engine, prepared.job
        engine._drawing[job] -= 1
        engine._first.discard(prepared.form)
        if len(engine._known) > MOST_FORMS and not engine._first:
            jax.clear_caches()
            gc.collect()
            engine._known.clear()
        engine._end_if_idle(job)
        engine._positions()
        engine._changed.notify_all()
