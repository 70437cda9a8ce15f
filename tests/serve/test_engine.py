"""The engine: bytes, turns, the bounded queue, cancelling, failures, and the events of jobs."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from toy_pipeline import pixels, toy_model

from pinxit.config import UsageError
from pinxit.flow.solvers import SOLVERS
from pinxit.free_memory import return_free_memory
from pinxit.serve.engine import engine as engines
from pinxit.serve.engine import kept_jobs, models
from pinxit.serve.engine.engine import Draining, DrawingEngine, QueueFull
from pinxit.serve.engine.events import Finished, JobEnded, Preview, Queued, Step
from pinxit.serve.engine.jobs import DrawRequest
from pinxit.serve.settings import StudioConfig

TOY = toy_model(steps=3, solver="euler")
LONG = {"steps": 250}


@contextmanager
def running(tmp_path, **options):
    engine = DrawingEngine(StudioConfig(**{"runs": str(tmp_path / "runs")} | options))
    try:
        yield engine
    finally:
        engine.close()
        assert not any(thread.is_alive() for thread in engine._threads)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Every checkpoint is the toy."""
    monkeypatch.setattr(models, "load_checkpoint", lambda path, encoder_dtype: TOY)


@pytest.fixture
def engine(tmp_path):
    with running(tmp_path, concurrency=2) as engine:
        wait_for_models(engine)
        yield engine


def wait_for_models(engine):
    engine.start()
    deadline = time.monotonic() + 30
    while not any(entry.loaded for entry in engine.models()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.001)


def images_of(job):
    return [picture.image for picture in job.wait(60).pictures]


def test_pictures_have_the_bytes_and_the_recipes_of_generate(engine):
    settings = {"steps": 3, "guidance_scale": 2.5}
    job = engine.submit(DrawRequest("a tree", n=3, seed=5, sampling=settings))
    assert pixels(images_of(job)) == pixels(TOY.generate("a tree", n=3, seed=5, **settings))
    order = TOY.order("a tree", n=3, seed=5, **settings)
    assert [picture.recipe for picture in job.pictures] == [TOY.recipe(order, i) for i in range(3)]
    assert (job.state, job.error, job.tokens) == ("done", None, 2)


def test_as_on_an_accelerator_requests_share_batches_and_keep_their_bytes(tmp_path, monkeypatch):
    for place in ("pinxit.pipeline", "pinxit.drawing", engines.__name__):
        monkeypatch.setattr(f"{place}.one_by_one", lambda: False)
    requests = [
        DrawRequest("a tree", n=3, seed=5),
        DrawRequest("a red house", n=2, sampling={"guidance_scale": 3.5}),
        DrawRequest("a car", sampling={"shift": 2.0}, negative_prompt="blue"),
    ]
    with running(tmp_path) as engine:
        wait_for_models(engine)
        jobs = [engine.submit(request) for request in requests]
        drawn = [pixels(images_of(job)) for job in jobs]
        assert jobs[0].pictures[0].recipe["batch_size"] == 4
    for request, images in zip(requests, drawn, strict=True):
        expected = TOY.generate(
            [request.prompt],
            n=request.n,
            seed=request.seed,
            negative_prompt=request.negative_prompt,
            **request.sampling,
        )
        assert images == pixels(expected)


def test_a_small_job_does_not_wait_for_a_large_one(tmp_path):
    with running(tmp_path, concurrency=1) as engine:
        wait_for_models(engine)
        large = engine.submit(DrawRequest("a tree", n=12, sampling={"steps": 20}))
        until(lambda: large.state == "drawing")
        small = engine.submit(DrawRequest("a car", n=1, sampling={"steps": 20}))
        assert small.position == 1
        small.wait(60)
        assert sum(picture is not None for picture in large.pictures) <= 4
        large.wait(60)


def test_a_full_queue_refuses_and_tells_when_to_come_again(tmp_path):
    with running(tmp_path, concurrency=1, max_waiting=3) as engine:
        wait_for_models(engine)
        jobs = [engine.submit(DrawRequest("a tree", n=4, sampling=LONG))]
        until(lambda: jobs[0].state == "drawing")
        with pytest.raises(QueueFull) as refused:
            engine.submit(DrawRequest("a tree"))
        assert 1 <= refused.value.retry_after <= 3600
        jobs[0].cancel()
        jobs[0].wait(30)
        assert engine.submit(DrawRequest("a tree")).wait(30).state == "done"


def test_64_requests_at_once_finish_or_are_refused(tmp_path):
    with running(tmp_path, concurrency=2, max_waiting=32) as engine:
        wait_for_models(engine)
        jobs, refused, lock = {}, [], threading.Lock()

        def ask(seed):
            try:
                job = engine.submit(DrawRequest("a tree", seed=seed))
            except QueueFull as error:
                with lock:
                    refused.append(error.retry_after)
                return
            job.wait(60)
            with lock:
                jobs[seed] = job

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(jobs) + len(refused) == 64 and len(jobs) >= 32
        for seed, job in jobs.items():
            assert job.state == "done"
            assert pixels(images_of(job)) == pixels([TOY.generate("a tree", seed=seed)])


def test_cancelling_ends_a_job_within_one_step(engine):
    job = engine.submit(DrawRequest("a tree", n=3, sampling=LONG))
    until(lambda: job.progress()[0][0] >= 2)
    done = [steps for steps, _ in job.progress()]
    job.cancel()
    job.wait(30)
    assert job.state == "cancelled" and job.pictures == [None] * 3
    after = [steps for steps, _ in job.progress()]
    assert all(late - early <= 3 for early, late in zip(done, after, strict=True))
    assert engine.statistics()["drawing"] == engine.statistics()["waiting"] == 0
    job.cancel()
    assert job.state == "cancelled"


def test_an_error_fails_its_job_alone(engine, monkeypatch):
    def broken(velocity_fn, x, times, conditioning):
        raise MemoryError("RESOURCE_EXHAUSTED: out of memory")

    def leaves(velocity_fn, x, times, conditioning):
        raise SystemExit(3)

    monkeypatch.setitem(SOLVERS, "broken", broken)
    monkeypatch.setitem(SOLVERS, "leaves", leaves)
    jobs = [
        engine.submit(DrawRequest("a tree", n=4, sampling={"solver": solver}))
        for solver in ("broken", "euler", "leaves")
    ]
    assert [job.wait(60).state for job in jobs] == ["failed", "done", "failed"]
    assert isinstance(jobs[0].error, MemoryError)
    assert "SystemExit: 3" in str(jobs[2].error)
    assert engine.submit(DrawRequest("a tree")).wait(30).state == "done"


def test_a_failed_job_keeps_no_arrays_and_logs_its_traceback(engine, monkeypatch, caplog):
    def broken(velocity_fn, x, times, conditioning):
        try:
            raise KeyError("first")
        except KeyError:
            raise RuntimeError("then") from None

    monkeypatch.setitem(SOLVERS, "broken", broken)
    error = engine.submit(DrawRequest("a tree", sampling={"solver": "broken"})).wait(60).error
    assert str(error) == "then"
    assert error.__traceback__ is error.__context__ is error.__cause__ is None
    assert "in broken" in caplog.text


def test_free_memory_is_returned():
    assert return_free_memory() == sys.platform.startswith("linux")


def test_a_users_own_solver_draws_without_previews(engine, monkeypatch):
    from pinxit.flow.solvers import euler

    monkeypatch.setitem(SOLVERS, "own", lambda *arguments: euler(*arguments))
    job = engine.submit(DrawRequest("a tree", previews=2, sampling={"solver": "own"}))
    events = list(job.follow())
    assert not any(isinstance(event, Preview) for event in events)
    assert pixels(images_of(job)) == pixels([TOY.generate("a tree", solver="own")])


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (DrawRequest("a", n=0), "n"),
        (DrawRequest("a", n=65), "n"),
        (DrawRequest("a", seed=-1), "seed"),
        (DrawRequest("a", n=2, seed=2**32 - 1), "seed"),
        (DrawRequest("a", size=(17, 16)), "size"),
        (DrawRequest("a", size=(0, 16)), "size"),
        (DrawRequest("a", size=(9984, 16)), "size"),
        (DrawRequest("a", sampling={"steps": 251}), "steps"),
        (DrawRequest("a", sampling={"num_inference_steps": 10**9}), "steps"),
        (DrawRequest("a", sampling={"steps": "many"}), "steps"),
        (DrawRequest("a", sampling={"guidance_scale": float("nan")}), "guidance_scale"),
        (DrawRequest("a", sampling={"shift": float("inf")}), "shift"),
        (DrawRequest("a", sampling={"stepz": 3}), "stepz"),
        (DrawRequest("a", strength=0.5), "strength"),
        (DrawRequest("a", previews=-2), "previews"),
        (DrawRequest("a", model="../runs/other"), "model"),
        (DrawRequest("a" * 40_000), "prompt"),
        (DrawRequest("\ud800"), "prompt"),
    ],
)
def test_requests_that_cannot_be_drawn_are_refused(engine, request_, field):
    with pytest.raises(UsageError, match=field):
        engine.submit(request_)
    assert engine.jobs() == []


def test_warnings_show_where_a_prompt_was_cut(engine):
    job = engine.submit(DrawRequest("one two three four five six", sampling={"guidance_scale": 30}))
    cut, strong = job.warnings
    assert "'two three four'" in cut and "from 'five six' is ignored" in cut
    assert "guidance_scale is 30" in strong
    assert engine.submit(DrawRequest("one two three four")).warnings == []


def test_pictures_that_are_kept_are_stored(engine):
    names = []

    def store(job, number, image, recipe):
        if number == 1:
            raise OSError("no space left on device")
        names.append((number, recipe["seed"]))
        return f"{number}.png"

    engine.store = store
    job = engine.submit(DrawRequest("a tree", n=2, seed=4, keep=True)).wait(30)
    assert names == [(0, 4)] and job.state == "done"
    assert [picture.stored for picture in job.pictures] == ["0.png", None]
    assert "picture 2 could not be stored: no space left" in job.warnings[-1]
    engine.submit(DrawRequest("a tree")).wait(30)
    assert len(names) == 1


def test_listeners_follow_from_the_start_late_and_after_the_end(engine):
    job = engine.submit(DrawRequest("a tree", n=2, previews=2, sampling={"steps": 9}))

    async def collect():
        return [event async for event in job.events()]

    async def three():
        return await asyncio.gather(*(collect() for _ in range(3)))

    for events in [*asyncio.run(three()), list(job.follow())]:
        assert isinstance(events[-1], JobEnded) and events[-1].state == "done"
        finished = {event.picture: event for event in events if isinstance(event, Finished)}
        assert finished.keys() == {0, 1}
        assert finished[1].image is job.pictures[1].image
        assert {event.step for event in events if isinstance(event, Step)} >= {9}
    assert job._wakers == {}


def test_a_listener_that_keeps_up_sees_every_preview(engine):
    # the first picture compiles, so that the listener is there before the first step
    job = engine.submit(DrawRequest("a tree", previews=3, size=(32, 16), sampling={"steps": 9}))
    events = list(job.follow())
    assert events[0] in (Queued(1), Queued(0))
    previews = [event for event in events if isinstance(event, Preview)]
    assert [event.step for event in previews] == [2, 4, 6]
    assert all(event.image.size == (32, 16) for event in previews)
    finished = next(event for event in events if isinstance(event, Finished))
    assert not np.array_equal(np.asarray(previews[0].image), np.asarray(finished.image))


def test_a_listener_that_stops_and_a_closed_loop_leave_nothing(engine):
    job = engine.submit(DrawRequest("a tree", sampling=LONG))

    async def first():
        stream = job.events()
        await anext(stream)
        await stream.aclose()

    asyncio.run(first())
    assert job._wakers == {}

    async def vanish():
        await anext(job.events())

    asyncio.run(vanish())
    job.cancel()
    assert job.wait(30).state == "cancelled"


def test_old_and_large_jobs_are_forgotten(engine, monkeypatch):
    jobs = [engine.submit(DrawRequest("a tree", seed=seed)).wait(30) for seed in range(5)]
    assert engine.jobs() == jobs and engine.job(jobs[0].id) is jobs[0]
    monkeypatch.setattr(kept_jobs, "KEPT_JOBS", 3)
    assert engine.jobs() == jobs[2:]
    monkeypatch.setattr(kept_jobs, "KEPT_BYTES", 2 * 16 * 16 * 3)
    assert engine.jobs() == jobs[3:]
    engine.kept_seconds = 0.0
    assert engine.jobs() == []
    with pytest.raises(KeyError):
        engine.job(jobs[4].id)


@pytest.mark.slow
def test_programs_of_many_sizes_are_dropped_while_others_draw(engine, monkeypatch):
    monkeypatch.setattr(engines, "MOST_FORMS", 1)
    long = engine.submit(DrawRequest("a tree", sampling=LONG))
    sizes = [(16, 16), (16, 32), (32, 16), (16, 16)]
    jobs = [engine.submit(DrawRequest("a car", size=size)) for size in sizes]
    images = [image for job in jobs for image in images_of(job)]
    assert len(engine._known) <= 1
    expected = [TOY.generate("a car", size=size) for size in sizes]
    assert pixels(images) == pixels(expected)
    assert pixels(images_of(long)) == pixels([TOY.generate("a tree", **LONG)])


def test_draining_refuses_finishes_and_then_cancels(engine):
    short = engine.submit(DrawRequest("a tree"))
    engine.drain(30)
    assert short.state == "done"
    with pytest.raises(Draining):
        engine.submit(DrawRequest("a tree"))


def test_draining_cancels_what_takes_too_long(engine):
    job = engine.submit(DrawRequest("a tree", n=30, sampling=LONG))
    engine.drain(0.05)
    assert job.wait(30).state == "cancelled"
