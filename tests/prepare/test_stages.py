"""Whole preparations: the same bytes on every engine, nothing lost to a kill or a full disk."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import prepare_work as work  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.row import Unit
from pinxit.data.sources.catalogue import open_source
from pinxit.prepare.both_stages import run_latents
from pinxit.prepare.engines.base import UnitResult
from pinxit.prepare.engines.local import InlineEngine, LocalEngine
from pinxit.prepare.engines.ranks import RankEngine
from pinxit.prepare.folder_lock import locked
from pinxit.prepare.images import ImageStage
from pinxit.prepare.latents import LatentStage
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.progress import StageProgress
from pinxit.prepare.report import write_preparation_report
from pinxit.prepare.stages import can_skip, run_images

HERE = Path(__file__).parents[1] / "stand_ins"
IDENTITY = {"autoencoder": "means"}


def both(out: Path, engine, *, workers: int = 1):
    run_images(work.stage(out), engine, workers=workers)
    latents = LatentStage(out, toys.toy_encoders_with_text, batch_size=4)
    return run_latents(latents, engine, identity=IDENTITY, workers=workers)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What every engine must give."""
    out = tmp_path_factory.mktemp("wanted")
    assert both(out, InlineEngine()).exit_code == 0
    return toys.content(out)


def test_processes_give_the_same_bytes_as_one(wanted, tmp_path):
    assert both(tmp_path, LocalEngine(), workers=2).exit_code == 0
    assert toys.content(tmp_path) == wanted


def test_ranks_give_the_same_bytes_and_the_last_writes_the_manifest(wanted, tmp_path):
    engines = [RankEngine(rank, 2, inside=InlineEngine()) for rank in range(2)]
    first, second = (run_images(work.stage(tmp_path), engine) for engine in engines)
    assert (first.units, second.units) == (2, 1) and first.manifest is None
    assert "1 of 3 units are not done" in first.waiting and second.manifest is not None
    latents = LatentStage(tmp_path, toys.toy_encoders_with_text, batch_size=4)
    for engine in reversed(engines):
        run_latents(latents, engine, identity=IDENTITY)
    assert toys.content(tmp_path) == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_bytes(wanted, tmp_path):
    pytest.importorskip("ray")
    from pinxit.prepare.engines.choose import get_engine

    assert both(tmp_path, get_engine("ray"), workers=2).exit_code == 0
    assert toys.content(tmp_path) == wanted


def test_progress_is_told_and_failures_are_named(tmp_path):
    class Picky(work.ToyWeb):
        def __call__(self, items):
            items = list(items)
            if any(url.endswith("/31") for _, url in items):
                raise OSError("too many open files")
            return super().__call__(items)

    told: list[StageProgress] = []
    ended = run_images(
        work.stage(tmp_path, web=Picky()), InlineEngine(), watch=lambda p, _: told.append(p)
    )
    assert [(p.done, p.failed) for p in told] == [(0, 0), (1, 0), (1, 1), (2, 1)]
    assert told[0].eta is None and told[1].eta > 0 and told[-1].eta == 0
    assert told[-1].rows == 55 > told[-1].counts["ok"] > 0 and told[-1].rate > 0
    assert [(f.unit.id, f.reason) for f in ended.failed] == [
        ("00001-000", "OSError: too many open files")
    ]
    assert (ended.exit_code, ended.done, ended.manifest) == (1, 2, None)
    resumed: list[StageProgress] = []
    ended = run_images(work.stage(tmp_path), InlineEngine(), watch=lambda p, _: resumed.append(p))
    assert [(p.done, p.fresh) for p in resumed] == [(2, 0), (3, 1)] and ended.manifest.rows == 75


def test_a_dead_network_stops_the_run(tmp_path):
    stage = work.stage(tmp_path, source=work.ToySource((30,) * 9), web=work.ToyWeb(offline=True))
    ended = run_images(stage, InlineEngine())
    assert len(ended.failed) == 3 and "could be reached" in ended.stopped and ended.exit_code == 1


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(wanted, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, before[1]))
    try:
        ended = run_images(work.stage(tmp_path), InlineEngine())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(ended.failed) == 1 and "could not be written" in ended.stopped
    assert ended.exit_code == 1 and "run the same command again" in ended.stopped
    assert not [n for n in toys.content(tmp_path) if n.startswith("images/")]
    assert both(tmp_path, InlineEngine()).exit_code == 0
    assert toys.content(tmp_path) == wanted


def test_other_settings_and_other_commands_are_kept_out(tmp_path):
    run_images(work.stage(tmp_path), InlineEngine(), limit=1)
    filters = dataclasses.replace(work.FILTERS, max_watermark=0.3)
    with pytest.raises(ValueError, match=r"filters\.max_watermark \(was 0\.5, is 0\.3\)"):
        run_images(work.stage(tmp_path, filters=filters), InlineEngine())
    with (
        locked(tmp_path, InlineEngine()),
        pytest.raises(ValueError, match="in use by another preparation"),
    ):
        run_images(work.stage(tmp_path), InlineEngine())
    # More of the same is fine.
    assert run_images(work.stage(tmp_path), InlineEngine()).manifest.rows == 75


# --- damaged units, deleted images ------------------------------------------------------------


class Torn(work.ToySource):
    """Its second unit cannot be read to the end."""

    def read(self, unit):
        rows = list(super().read(unit))
        yield from rows[:5]
        if unit.part == 1:
            raise ValueError("toys is damaged: it ends before its end mark")
        yield from rows[5:]


def test_a_damaged_unit_is_left_out_where_that_is_asked_for(tmp_path):
    ended = run_images(work.stage(tmp_path, source=Torn()), InlineEngine())
    assert (ended.exit_code, ended.manifest, len(ended.failed)) == (1, None, 1)
    torn = work.stage(tmp_path, source=Torn())
    ended = run_images(torn, InlineEngine(), skip_failed=True)
    assert ended.exit_code == 0 and [r.unit.id for r in ended.skipped] == ["00001-000"]
    assert ended.manifest.units == ("00000-000", "00002-000") and ended.manifest.rows == 55
    latents = LatentStage(tmp_path, toys.toy_encoders, batch_size=4)
    manifest = run_latents(latents, InlineEngine(), identity=IDENTITY).manifest
    assert manifest.units == ("00000-000", "00002-000") and manifest.latents["count"] > 10
    assert "ends before its end mark" in manifest.skipped["00001-000"]
    assert len(PreparedRows(tmp_path)) == manifest.kept
    assert "Units left out" in write_preparation_report(tmp_path).read_text()
    # It is tried again in every run; without the setting that is a failure.
    ended = run_images(torn, InlineEngine())
    assert ended.exit_code == 1 and len(ended.failed) == 1 and ended.manifest is None
    # Mended, it takes its place.
    manifest = run_images(work.stage(tmp_path), InlineEngine(), skip_failed=True).manifest
    assert manifest.rows == 75 and manifest.skipped == {} and manifest.latents is None
    assert "Units left out" not in write_preparation_report(tmp_path).read_text()


@pytest.mark.parametrize(
    ("result", "skips"),
    [
        (UnitResult(Unit("a", "a.tar"), kind="ValueError"), True),
        (UnitResult(Unit("a", "a.tar"), kind="OSError", os_error=True), True),
        (UnitResult(Unit("a", "hf://a.tar"), kind="ValueError"), True),
        (UnitResult(Unit("a", "hf://a.tar"), kind="OSError", os_error=True), False),
        (UnitResult(Unit("a", "a.tar"), kind="Offline", os_error=True), False),
        (UnitResult(Unit("a", "a.tar"), kind="DiskFull", os_error=True), False),
    ],
)
def test_only_what_fails_by_itself_is_left_out(result, skips):
    assert can_skip(result) == skips


def test_without_a_network_nothing_is_left_out(tmp_path):
    stage = work.stage(tmp_path, source=work.ToySource((30,) * 9), web=work.ToyWeb(offline=True))
    ended = run_images(stage, InlineEngine(), skip_failed=True)
    assert len(ended.failed) == 3 and ended.skipped == () and ended.manifest is None


def test_images_may_be_deleted_once_their_latents_are_there(tmp_path):
    both(tmp_path, InlineEngine())
    before = toys.content(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    for retry in (False, True):
        web = work.ToyWeb(healed=True)
        ended = run_images(work.stage(tmp_path, web=web, retry=retry), InlineEngine())
        assert (ended.exit_code, ended.done, web.asked) == (0, 3, [])
        latents = LatentStage(tmp_path, toys.toy_encoders_with_text, batch_size=4)
        again = run_latents(latents, InlineEngine(), identity=IDENTITY)
        assert again.exit_code == 0 and again.manifest.latents is not None
    left = {n: data for n, data in before.items() if not n.startswith("images/")}
    assert toys.content(tmp_path) == left
    assert (
        write_preparation_report(tmp_path).is_file()
        and not (tmp_path / "report" / "kept.png").exists()
    )
    assert len(PreparedRows(tmp_path)) == again.manifest.kept


@pytest.mark.parametrize("loss", ["latents", "set aside", "not encoded"])
def test_images_are_made_again_where_they_are_wanted(tmp_path, loss):
    """Their latents are gone too, they were damaged and not deleted, or never encoded."""
    run_images(work.stage(tmp_path), InlineEngine())
    if loss != "not encoded":
        both(tmp_path, InlineEngine())
    before = toys.content(tmp_path)
    path = tmp_path / "images" / "00001-000.array_record"
    if loss == "set aside":
        path.rename(path.with_name(f"{path.name}.corrupt"))
    else:
        path.unlink()
    if loss == "latents":
        (tmp_path / "latents" / path.name).unlink()
    web = work.ToyWeb()
    assert run_images(work.stage(tmp_path, web=web), InlineEngine()).exit_code == 0
    assert web.asked and path.read_bytes() == before[f"images/{path.name}"]


def test_a_damaged_shard_does_not_hide_the_report(tmp_path):
    run_images(work.stage(tmp_path), InlineEngine())
    for path in sorted((tmp_path / "images").iterdir())[:2]:
        path.write_bytes(path.read_bytes()[:100])
    for path in (tmp_path / "previews").iterdir():
        path.write_bytes(b"torn")
    report = write_preparation_report(tmp_path)
    assert (tmp_path / "report" / "kept.png").is_file() and "75 rows" in report.read_text()


KINDS = ("good", "404", "html", "noai", "webp", "to_private", "gzip", "cut", "reset", "png")
"""Of the hostile server."""


@pytest.fixture
def coyo(tmp_path):
    """The settings of a stage on a COYO file whose links lead to a server on loopback."""
    from coyo_files import write_coyo  # pyrefly: ignore
    from hostile_server import LOOPBACK, HostileServer  # pyrefly: ignore

    with HostileServer() as server:
        links = [server.url(kind, i) for i in range(3) for kind in KINDS]
        path = write_coyo(tmp_path / "coyo.parquet", 30, group=10, url=links)
        yield {
            "source": open_source("coyo", path=str(path), unit_rows=10),
            "fetch": FetchConfig(allow_networks=(LOOPBACK,), retries=0, timeout=20),
            "image": ImageConfig(size=32, workers=1),
        }


def test_coyo_rows_through_the_real_fetcher_and_decoders_on_any_engine(coyo, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    ended = run_images(ImageStage(out=here, **coyo), InlineEngine())
    assert ended.manifest.counts == {
        **{"blocked": 3, "connect": 3, "decode_error": 3, "encoded": 3, "http_404": 3},
        **{"not_image": 3, "ok": 9, "opt_out": 3},
    }
    assert ended.manifest.identity["image"]["size"] == 32 and ended.units == 3
    assert Ledger(here, "images").notes()["fetch"]["allow_networks"]
    run_images(ImageStage(out=there, **coyo), LocalEngine(), workers=2)
    wanted, found = toys.content(here), toys.content(there)
    assert found.keys() == wanted.keys()
    # What is said of a broken connection may differ in words; images may not.
    assert all(found[name] == wanted[name] for name in wanted if name.startswith("images/"))
    run_latents(LatentStage(here, toys.toy_encoders), InlineEngine(), identity=IDENTITY)
    rows = PreparedRows(here)
    assert len(rows) == 9 and rows.take(np.arange(9))["latents"].shape == (9, 4, 4, 3)
    assert rows.captions(np.array([0])) == ["a picture of thing number 0"]


def test_leftovers_of_killed_workers_are_swept(wanted, tmp_path):
    both(tmp_path, InlineEngine())
    names = ("images/00000-000~1.array_record", "outcomes/00001-000~2.parquet",
             "previews/.00002-000.array_record.7.partial", "units/images/.00000-000.json.7.partial",
             "latents/.00000-000.array_record.7.partial")  # fmt: skip
    others = ("images/00009-000.array_record", "images/00000-000.array_record.corrupt")
    for name in (*names, *others):
        (tmp_path / name).write_text("left")
    both(tmp_path, InlineEngine())
    assert {name for name in names if (tmp_path / name).exists()} == set()
    assert toys.content(tmp_path).keys() == {*wanted, *others}


# --- kill -9 ----------------------------------------------------------------------------------


def kill_at_random(out: Path, kills: int, *, workers: int, seed: int) -> Counter[str]:
    """Runs the command again and again, killing it; units begun in the first stage."""
    log = out.with_name(f"{out.name}.log")
    log.touch()
    environ = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "JAX_PLATFORMS": "cpu"}
    script = str(HERE / "prepare_work.py")
    command = [sys.executable, script, str(out), str(log), "local", str(workers), "0.02"]
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        begun = len(log.read_text().splitlines())
        process = subprocess.Popen(command, env=environ)
        while process.poll() is None and len(log.read_text().splitlines()) == begun:
            if begun >= 8:  # all images are made: the rest of it may be hit anywhere
                break
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.6 if begun < 8 else 4.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, env=environ).returncode == 0
    return Counter(json.loads(line) for line in log.read_text().splitlines())


def check_kills(tmp_path: Path, kills: int, *, workers: int) -> None:
    out, plain = tmp_path / "killed", tmp_path / "plain"
    begun = kill_at_random(out, kills, workers=workers, seed=kills)
    log = tmp_path / "plain.log"
    assert work.main(plain, log, "inline", 1, 0.0) == 0
    assert toys.content(out) == toys.content(plain)
    assert sum(begun.values()) - len(begun) <= kills * workers
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
def test_kill_9_and_again_gives_the_same_set(tmp_path):
    check_kills(tmp_path, 3, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_at_20_points_gives_the_same_set(tmp_path, workers):
    check_kills(tmp_path, 20, workers=workers)
