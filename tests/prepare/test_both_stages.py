"""Both stages at the same time: what is encoded when, what a failure holds back, equal bytes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prepare_work as work
import prepared_toys as toys
import pytest

from pinxit.config import UsageError
from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.files import DiskFull
from pinxit.prepare.both_stages import EncodeSettings, encode_finished, run_both, run_latents
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.local import InlineEngine, LocalEngine
from pinxit.prepare.engines.ranks import RankEngine
from pinxit.prepare.latents import Encoders, LatentStage
from pinxit.prepare.stages import run_images

IDENTITY = {"autoencoder": "means"}
UNITS = ("00000-000", "00001-000", "00002-000")


def encode_settings(
    out: Path, engine: Engine | None = None, *, workers: int = 1, make: Any = None
) -> EncodeSettings:
    def load() -> tuple[LatentStage, Mapping[str, Any]]:
        return LatentStage(out, make or toys.toy_encoders_with_text, batch_size=4), IDENTITY

    return EncodeSettings(load, engine or InlineEngine(), workers)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What one stage after the other gives."""
    out = tmp_path_factory.mktemp("wanted")
    run_images(work.stage(out), InlineEngine())
    latents = LatentStage(out, toys.toy_encoders_with_text, batch_size=4)
    assert run_latents(latents, InlineEngine(), identity=IDENTITY).exit_code == 0
    return toys.content(out)


def leftovers(out: Path) -> list[Path]:
    return [*out.rglob("*.partial"), *(out / "units" / "latents").glob(".queue-*")]


@pytest.mark.parametrize("workers", [1, 2])
def test_both_stages_at_once_give_the_same_bytes(wanted, tmp_path, workers):
    engine = InlineEngine() if workers == 1 else LocalEngine()
    settings = encode_settings(tmp_path, engine, workers=workers)
    images, latents = run_both(work.stage(tmp_path), engine, settings, workers=workers)
    assert (images.done, latents.done, latents.exit_code) == (3, 3, 0)
    assert latents.manifest == Manifest.read(tmp_path) and latents.waiting == ""
    assert toys.content(tmp_path) == wanted and not leftovers(tmp_path)
    again = run_both(work.stage(tmp_path), engine, settings, workers=workers)
    assert [(result.done, result.units) for result in again] == [(3, 3), (3, 3)]
    assert toys.content(tmp_path) == wanted


def test_ranks_wait_for_nobody(wanted, tmp_path):
    engines = [RankEngine(rank, 2, inside=InlineEngine()) for rank in range(2)]
    ended = [
        run_both(work.stage(tmp_path), engine, encode_settings(tmp_path, engine))
        for engine in engines
    ]
    assert [[result.done for result in results] for results in ended] == [[2, 2], [1, 1]]
    assert ended[0][1].manifest is None and "1 of 3 units are not done" in ended[0][1].waiting
    assert ended[1][1].manifest is not None and toys.content(tmp_path) == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_pools_of_ray_actors_give_the_same_bytes(wanted, tmp_path):
    ray = pytest.importorskip("ray")
    from pinxit.prepare.engines.choose import get_engine

    engine = get_engine("ray")
    settings = encode_settings(tmp_path, engine, workers=2)
    results = run_both(work.stage(tmp_path), engine, settings, workers=2)
    assert [result.done for result in results] == [3, 3] and not ray.is_initialized()
    assert toys.content(tmp_path) == wanted


@dataclass
class LastWaits(work.ToyStage):
    """Begins its last unit only when the latents of the first are committed."""

    def __call__(self, unit):
        end = time.monotonic() + 60
        while unit.id == UNITS[2] and UNITS[0] not in toys.committed(self.out, "latents"):
            if time.monotonic() > end:
                raise RuntimeError("nothing is encoded while images are prepared")
            time.sleep(0.02)
        return super().__call__(unit)


def waiting_stage(out: Path) -> LastWaits:
    plain = work.stage(out)
    return LastWaits(plain.source, out, filters=work.FILTERS, image=work.IMAGE, outage_hours=0)


@pytest.mark.parametrize("pool", [False, True])
def test_the_first_unit_is_encoded_before_the_last_is_prepared(wanted, tmp_path, pool):
    engine = LocalEngine() if pool else InlineEngine()
    settings = encode_settings(tmp_path, engine, workers=1 + pool)
    results = run_both(waiting_stage(tmp_path), engine, settings)
    assert [result.failed for result in results] == [(), ()]
    assert toys.content(tmp_path) == wanted


def test_a_failed_unit_holds_back_only_itself(tmp_path):
    class Torn(work.ToySource):
        def read(self, unit):
            if unit.part == 1:
                raise ValueError("toys is damaged")
            return super().read(unit)

    settings = encode_settings(tmp_path)
    images, latents = run_both(work.stage(tmp_path, source=Torn()), InlineEngine(), settings)
    assert [failure.unit.id for failure in images.failed] == ["00001-000"]
    assert (latents.done, latents.units, latents.exit_code) == (2, 3, 0)
    assert toys.committed(tmp_path, "latents") == {UNITS[0], UNITS[2]}
    assert latents.manifest is None and "1 of 3 units are not done" in latents.waiting
    images, latents = run_both(
        work.stage(tmp_path, source=Torn()), InlineEngine(), settings, skip_failed=True
    )
    assert latents.manifest.units == (UNITS[0], UNITS[2]) and latents.manifest.latents["count"]


def test_a_retried_unit_is_encoded_again(tmp_path):
    settings = encode_settings(tmp_path)
    run_both(work.stage(tmp_path), InlineEngine(), settings)
    before = Manifest.read(tmp_path)
    healed = work.stage(tmp_path, web=work.ToyWeb(healed=True), retry=True)
    _, latents = run_both(healed, InlineEngine(), settings)
    assert latents.manifest.latents["count"] > before.latents["count"]
    assert latents.manifest.files["latents"][0].name == "00000-000~1.array_record"


# --- the end of one stage ---------------------------------------------------------------------


def test_other_encoders_are_refused_and_both_stages_end(tmp_path):
    run_both(work.stage(tmp_path), InlineEngine(), encode_settings(tmp_path), limit=1)

    def others():
        return LatentStage(tmp_path, toys.toy_encoders, batch_size=4), {"autoencoder": "other"}

    other = EncodeSettings(others, InlineEngine())
    with pytest.raises(UsageError, match="autoencoder"):
        run_both(work.stage(tmp_path), InlineEngine(), other)
    assert not leftovers(tmp_path) and toys.committed(tmp_path, "latents") == {UNITS[0]}


def test_a_full_disk_in_the_second_stage_ends_the_first(tmp_path):
    def full(images):
        raise DiskFull("latents could not be written: No space left on device")

    def make() -> Encoders:
        return Encoders(full)

    source = work.ToySource((10,) * 12)
    stopped = threading.Event()

    def watch(progress, result):
        if progress.stage == "latents" and progress.failed:
            stopped.set()
        if progress.stage == "images" and progress.fresh == 2:
            assert stopped.wait(60)

    images, latents = run_both(
        work.stage(tmp_path, source=source),
        InlineEngine(),
        encode_settings(tmp_path, make=make),
        watch=watch,
    )
    assert "free some space" in latents.stopped and images.stopped == latents.stopped
    assert images.done == 2 and images.exit_code == latents.exit_code == 1
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_an_interruption_ends_both_stages_between_two_batches(wanted, tmp_path, number):
    encoding = threading.Event()

    def slow(images):
        encoding.set()
        time.sleep(0.3)
        return toys.encode(images)

    def make() -> Encoders:
        return Encoders(slow, toys.encode_text)

    def watch(progress, result):
        if progress.stage == "images" and progress.fresh == 1:
            assert encoding.wait(60)
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        run_both(
            work.stage(tmp_path),
            InlineEngine(),
            encode_settings(tmp_path, make=make),
            watch=watch,
        )
    assert not [thread for thread in threading.enumerate() if thread.name == "pinxit-encoding"]
    assert toys.committed(tmp_path, "latents") == set() and not leftovers(tmp_path)
    run_both(work.stage(tmp_path), InlineEngine(), encode_settings(tmp_path))
    assert toys.content(tmp_path) == wanted


def test_nothing_kept_needs_no_encoders(tmp_path):
    def never():
        raise AssertionError("the encoders are loaded")

    source = work.ToySource((12, 12), kinds=("404",))
    settings = EncodeSettings(never, InlineEngine())
    (images,) = run_both(work.stage(tmp_path, source=source), InlineEngine(), settings)
    assert images.manifest.kept == 0 and images.manifest.latents is None


# --- another command encodes ------------------------------------------------------------------


def test_another_command_follows_the_first_stage(wanted, tmp_path):
    """The last unit waits for latents that only the other command can make."""
    ended = []

    def prepare() -> None:
        ended.append(run_images(waiting_stage(tmp_path), InlineEngine()))

    run_images(work.stage(tmp_path), InlineEngine(), limit=1)  # so that there is a list of units
    thread = threading.Thread(target=prepare)
    thread.start()
    while not (tmp_path / "units" / "list.json").read_text().count(UNITS[2]):
        time.sleep(0.01)
    said: list[str] = []
    result = encode_finished(
        tmp_path, encode_settings(tmp_path), follow=True, poll=0.02, say=said.append
    )
    thread.join()
    assert ended[0].exit_code == 0 and (result.done, result.units) == (3, 3)
    assert result.manifest is not None and toys.content(tmp_path) == wanted
    assert not said or "units are not there yet" in said[0]


def test_the_units_that_are_there_are_encoded(tmp_path):
    with pytest.raises(Unfinished):
        encode_finished(tmp_path, encode_settings(tmp_path))
    offline = work.ToyStage(
        work.ToySource(), tmp_path, filters=work.FILTERS, image=work.IMAGE, outage_hours=0
    )

    def stop(progress, result):
        if progress.fresh == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_images(offline, InlineEngine(), watch=stop)
    said: list[str] = []
    result = encode_finished(tmp_path, encode_settings(tmp_path), say=said.append)
    assert said == ["the images of 1 of 3 units are not there yet; --follow 1 waits for them"]
    assert (result.done, result.exit_code, result.manifest) == (2, 0, None)
    assert "1 of 3 units are not done" in result.waiting
    started = time.monotonic()
    result = encode_finished(
        tmp_path, encode_settings(tmp_path), follow=True, poll=0.01, patience=0.1
    )
    assert result.manifest is None and time.monotonic() - started < 60
    run_images(work.stage(tmp_path), InlineEngine())
    assert encode_finished(tmp_path, encode_settings(tmp_path)).manifest.latents["count"] > 10
