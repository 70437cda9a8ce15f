"""Preparation: an end for every row, the same bytes whatever happens, nothing lost to a kill."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import prepare_work as work  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.engines import InlineEngine, LocalEngine, RankEngine
from pinxit.data.filters import FilterConfig
from pinxit.data.images import decode
from pinxit.data.manifest import Ledger, Manifest, Unfinished
from pinxit.data.preparation import ImageStage, Progress, locked, run_images, run_latents
from pinxit.data.prepare import Offline, prepare_images, read_outcomes
from pinxit.data.prepare_latents import Encoders, LatentStage, prepare_latents
from pinxit.data.previews import read_previews
from pinxit.data.reading import PreparedRows
from pinxit.data.shards import DamagedShard, ShardReader, unpack

HERE = Path(__file__).parent
UNIT = work.ToySource().units()[0]
IDENTITY = {"autoencoder": "means"}
PICTURE = work.picture(1)


def prepare(out: Path, **more):
    settings = {
        "source": work.ToySource(),
        "filters": work.FILTERS,
        "fetch": work.ToyWeb(),
        "decode": work.decode_here,
    }
    return prepare_images(UNIT, out=out, **settings | more)


def content(root: Path) -> dict[str, bytes]:
    """Everything that must be equal: all files but the records (seconds) and the previews."""
    files = [path for path in root.rglob("*") if path.is_file()]
    names = {str(path.relative_to(root)): path for path in files}
    aside = ("units/", "previews/", ".lock")
    return {n: p.read_bytes() for n, p in sorted(names.items()) if not n.startswith(aside)}


def records(path: Path) -> list[tuple[dict, dict]]:
    with ShardReader(path) as reader:
        return [unpack(record) for record in reader]


# --- the first stage --------------------------------------------------------------------------


def test_every_row_has_one_end_and_the_kept_ones_are_their_images(tmp_path):
    record = prepare(tmp_path)
    rows = list(work.ToySource().read(UNIT))
    outcomes = read_outcomes(tmp_path / "outcomes" / record.files["outcomes"].name)
    assert [outcome.key for outcome in outcomes] == [row.key for row in rows]
    ends = {"404": "http_404", "500": "http_500", "html": "not_image", "corrupt": "decode_error"}
    for number, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        kind = row.url.split("/")[3]
        wanted = ends.get(kind, "ok" if kind == "good" else kind)
        wanted = "filtered_watermark" if number % 7 == 3 else wanted
        wanted = "filtered_words" if number % 11 == 0 and number % 7 != 3 else wanted
        assert outcome.status == wanted, row
    assert record.counts == Counter(outcome.status for outcome in outcomes)
    assert outcomes[7].detail and outcomes[4].detail == "as it was told"
    kept = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome.status == "ok"]
    stored = records(tmp_path / "images" / record.files["images"].name)
    assert [meta["key"] for _, meta in stored] == [row.key for row in kept]
    for (arrays, meta), row in zip(stored, kept, strict=True):
        made = decode(work.picture(int(row.url.split("/")[4])), work.IMAGE, key=row.key)
        assert (meta["caption"], tuple(meta["crop"])) == (row.caption, made.crop)
        assert tuple(meta["original"]) == (24, 20)
        again = decode(arrays["jpeg"].tobytes(), work.IMAGE).image
        assert np.abs(again.astype(int) - made.image).mean() < 8


def test_the_order_in_which_the_web_answers_leaves_no_trace(tmp_path):
    for seed in range(3):
        prepare(tmp_path / str(seed), fetch=work.ToyWeb(seed=seed))
    assert content(tmp_path / "0") == content(tmp_path / "1") == content(tmp_path / "2")


def test_a_source_that_bears_its_images_gives_the_same_ones(tmp_path):
    web = prepare(tmp_path / "web", source=work.ToySource(kinds=("good",)))
    never = work.ToyWeb()
    source = work.ToySource(kinds=("good",), bears_images=True)
    borne = prepare(tmp_path / "borne", source=source, fetch=never)
    assert content(tmp_path / "web") == content(tmp_path / "borne")
    assert web.counts == borne.counts and never.asked == []


def test_a_unit_that_is_done_is_not_done_again(tmp_path):
    first = prepare(tmp_path)
    web = work.ToyWeb()
    assert prepare(tmp_path, fetch=web) == first and web.asked == []
    (tmp_path / "images" / first.files["images"].name).unlink()
    again = prepare(tmp_path, fetch=web)
    assert again.files == first.files and len(web.asked) > 20


def test_a_unit_without_an_image_has_no_shard(tmp_path):
    record = prepare(tmp_path, source=work.ToySource(kinds=("404",)))
    assert set(record.files) == {"outcomes"} and record.counts["http_404"] > 20
    web = work.ToyWeb()
    assert prepare(tmp_path, fetch=web) == record and web.asked == []


def test_rows_with_one_url_share_one_fetch(tmp_path):
    class Twins(work.ToySource):
        def read(self, unit):
            for row in super().read(unit):
                yield dataclasses.replace(row, url="http://host.test/good/1")

    web = work.ToyWeb()
    filters = dataclasses.replace(work.FILTERS, unique_url=False)
    record = prepare(tmp_path / "all", source=Twins(), fetch=web, filters=filters, previews=0)
    assert len(web.asked) == 1 and record.counts["ok"] > 20
    record = prepare(tmp_path / "one", source=Twins(), previews=0)
    assert record.counts["ok"] == 1 and record.counts["filtered_url"] > 20


def test_rows_of_which_nothing_can_come(tmp_path):
    class Poor(work.ToySource):
        def read(self, unit):
            first, second, third = list(super().read(unit))[:3]
            yield dataclasses.replace(first, url=None, caption="two words")
            yield dataclasses.replace(second, caption=" \n")
            yield third

    record = prepare(tmp_path, source=Poor(), filters=FilterConfig(min_side=1))
    assert record.counts == {"no_caption": 1, "no_url": 1, "ok": 1}


def test_words_that_are_no_text_do_not_stop_a_unit(tmp_path):
    nasty = "a \ud800 half, a \0 and \u202e \U0001f3a8"

    class Nasty(work.ToySource):
        def read(self, unit):
            for number, row in enumerate(super().read(unit)):
                watermark = {"watermark": 0.9 if number == 0 else 0.1}
                yield dataclasses.replace(
                    row, caption=nasty, origin=nasty, scores=watermark, url=None, image=PICTURE
                )

    source = Nasty((3,), bears_images=True)
    filters = dataclasses.replace(work.FILTERS, unique_url=False)
    record = prepare(tmp_path, source=source, filters=filters)
    assert record.counts == {"filtered_watermark": 1, "ok": 2}
    stored = records(tmp_path / "images" / record.files["images"].name)
    assert stored[0][1]["caption"] == nasty.replace("\ud800", "?")
    assert [caption for _, caption, _ in read_previews(tmp_path)] == [stored[0][1]["caption"]]


def test_lost_rows_and_equal_keys_are_faults(tmp_path):
    def forgetful(items):
        yield from list(work.ToyWeb()(items))[1:]

    with pytest.raises(RuntimeError, match="1 rows are lost"):
        prepare(tmp_path, fetch=forgetful)

    class Stutter(work.ToySource):
        def read(self, unit):
            yield from [next(super().read(unit))] * 2

    with pytest.raises(ValueError, match="two rows with the key 00000-000/00000000"):
        prepare(tmp_path, source=Stutter())
    assert not (tmp_path / "units").exists() and content(tmp_path) == {}


def test_without_a_network_nothing_is_recorded(tmp_path):
    with pytest.raises(Offline, match=r"not one of 2\d hosts could be reached"):
        prepare(tmp_path, fetch=work.ToyWeb(offline=True))
    assert Ledger(tmp_path, "images").read(UNIT.id) is None
    # A few dead hosts are no proof.
    few = prepare(tmp_path, source=work.ToySource((12,)), fetch=work.ToyWeb(offline=True))
    assert few.counts["dns"] == 8


def test_duplicates_found_before_are_dropped(tmp_path):
    class Hashed(work.ToySource):
        def read(self, unit):
            for number, row in enumerate(super().read(unit)):
                yield dataclasses.replace(row, phash=f"{number:016x}")

    key = f"{UNIT.id}/{1:08d}"
    before = prepare(tmp_path / "a", source=Hashed())
    after = prepare(tmp_path / "b", source=Hashed(), duplicates={key})
    assert after.counts["filtered_phash"] == 1 and after.counts["ok"] == before.counts["ok"] - 1


def test_previews_show_what_the_filters_turned_away(tmp_path):
    prepare(tmp_path / "web")
    shown = list(read_previews(tmp_path / "web"))
    assert {reason for reason, _, _ in shown} <= {"filtered_watermark", "filtered_words"}
    for reason, caption, jpeg in shown:
        assert (caption == "one") == (reason == "filtered_words")
        assert decode(jpeg, work.IMAGE).original == (16, 16)
    source = work.ToySource(bears_images=True)
    prepare(tmp_path / "borne", source=source, fetch=work.ToyWeb())
    found = Counter(reason for reason, _, _ in read_previews(tmp_path / "borne"))
    assert found == {"filtered_watermark": 2, "filtered_words": 2}
    prepare(tmp_path / "none", source=source, previews=0)
    assert list(read_previews(tmp_path / "none")) == []
    unsafe = dataclasses.replace(work.FILTERS, max_watermark=None, min_words=None, max_nsfw=0.5)

    class Unsafe(work.ToySource):
        def read(self, unit):
            for row in super().read(unit):
                yield dataclasses.replace(row, scores={"nsfw": 0.9})

    web = work.ToyWeb()
    prepare(tmp_path / "unsafe", source=Unsafe(), filters=unsafe, fetch=web)
    assert web.asked == [] and list(read_previews(tmp_path / "unsafe")) == []


# --- trying again -----------------------------------------------------------------------------


def test_a_retry_heals_what_can_heal_and_equals_a_run_that_never_failed(tmp_path):
    first = prepare(tmp_path / "a")
    old = content(tmp_path / "a")
    web = work.ToyWeb(healed=True)
    again = prepare(tmp_path / "a", fetch=web, retry=True)
    assert {url.split("/")[3] for url in web.asked} == {"timeout", "500"}
    assert len(web.asked) == first.counts["timeout"] + first.counts["http_500"]
    assert again.counts["ok"] == first.counts["ok"] + len(web.asked)
    assert again.generation == 1 and again.measured == first.measured
    fresh = prepare(tmp_path / "b", fetch=work.ToyWeb(healed=True), retry=True)
    digests = [{name: info.sha256 for name, info in r.files.items()} for r in (again, fresh)]
    assert digests[0] == digests[1]
    # The files of before are gone, and those that are there belong to the record.
    assert not old.keys() & content(tmp_path / "a").keys()
    assert len(content(tmp_path / "a")) == 2


def test_a_retry_that_heals_nothing_changes_nothing(tmp_path):
    first = prepare(tmp_path)
    before = content(tmp_path)
    assert prepare(tmp_path, retry=True) == first
    assert prepare(tmp_path, retry=True, fetch=work.ToyWeb(offline=True)).counts["dns"] > 0
    assert content(tmp_path).keys() != before.keys()
    healed = prepare(tmp_path, retry=True, fetch=work.ToyWeb(healed=True))
    web = work.ToyWeb()
    assert prepare(tmp_path, retry=True, fetch=web) == healed and web.asked == []


def test_a_retry_that_is_killed_leaves_the_commit_of_before(tmp_path, monkeypatch):
    first = prepare(tmp_path)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", lambda *_: os.abort)
        prepare(tmp_path, fetch=work.ToyWeb(healed=True), retry=True)
    ledger = Ledger(tmp_path, "images")
    assert ledger.done(UNIT.id) == first
    assert before.items() <= content(tmp_path).items()
    stage = work.stage(tmp_path)
    run_images(stage, InlineEngine(), limit=1)  # sweeps what the killed one left
    assert {n: c for n, c in content(tmp_path).items() if "/" in n} == before


# --- the second stage -------------------------------------------------------------------------


def test_latents_are_those_of_the_images_with_their_captions(tmp_path):
    toys.image_dataset(tmp_path, [5])
    record = prepare_latents("00000-000", tmp_path, encoders=toys.toy_encoders(), batch_size=2)
    images = records(tmp_path / "images" / "00000-000.array_record")
    stored = records(tmp_path / "latents" / "00000-000.array_record")
    assert [meta for _, meta in stored] == [meta for _, meta in images]
    assert all(arrays["latents"].dtype == np.float16 for arrays, _ in stored)
    values = np.stack([arrays["latents"] for arrays, _ in stored]).astype(np.float64)
    count, sums = record.measured["cells"], record.measured["sum"]
    np.testing.assert_allclose(np.divide(sums, count), values.mean(axis=(0, 1, 2)), rtol=1e-12)
    assert record.measured["shapes"] == {"2x2x3": 5} and record.counts == {"ok": 5}


def test_batches_have_one_size_and_no_influence(tmp_path):
    toys.image_dataset(tmp_path, [7], wide=(2, 3, 6))
    seen = set()

    def encode(images):
        seen.add(images.shape)
        return toys.encode(images)

    files = []
    for size in (2, 3, 64):
        out = tmp_path / str(size)
        record = prepare_latents(
            "00000-000", out, encoders=Encoders(encode), images=tmp_path, batch_size=size
        )
        files.append(record.files)
    assert files[0] == files[1] == files[2]
    assert seen == {(n, 16, w, 3) for n in (2, 3, 64) for w in (16, 32)}


def test_the_manifest_has_the_latents_mean_and_deviation(tmp_path):
    toys.latent_dataset(tmp_path, (4, 9))
    manifest = Manifest.read(tmp_path)
    values = PreparedRows(tmp_path).take(np.arange(13))["latents"].astype(np.float64)
    np.testing.assert_allclose(manifest.latents["mean"], values.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(manifest.latents["std"], values.std(axis=(0, 1, 2)), rtol=1e-9)
    assert manifest.identity["encoders"] == IDENTITY and manifest.latents["count"] == 13
    summary = manifest.summary()
    assert (summary["kept"], summary["units"]) == (13, 2) and json.dumps(summary)


def test_what_is_not_finite_is_left_out_and_counted(tmp_path):
    toys.image_dataset(tmp_path, [6])

    def encode(images):
        latents = toys.encode(images).astype(np.float32)
        latents[1] = 1e9  # beyond float16
        return latents

    record = prepare_latents("00000-000", tmp_path, encoders=Encoders(encode), batch_size=3)
    assert record.counts == {"not_finite": 2, "ok": 4} and len(record.measured["not_finite"]) == 2

    def nowhere(images):
        return np.full_like(toys.encode(images), np.nan)

    out = tmp_path / "none"
    record = prepare_latents("00000-000", out, encoders=Encoders(nowhere), images=tmp_path)
    assert record.counts == {"not_finite": 6} and record.files == {}


def test_text_beyond_float16_is_kept_in_bfloat16(tmp_path):
    toys.image_dataset(tmp_path, [6])

    def encode_text(captions):
        plain = toys.encode_text(captions)
        tokens = np.array(plain.tokens)
        tokens[np.array([caption.endswith("3") for caption in captions]), 0, 0] = 1e5
        return dataclasses.replace(plain, tokens=tokens, pooled=None)

    make = partial(Encoders, toys.encode, encode_text)
    run_latents(LatentStage(tmp_path, make), InlineEngine(), identity=IDENTITY)
    found = PreparedRows(tmp_path, text=True).take(np.arange(6))
    assert found["text_tokens"].dtype == np.float32
    assert found["text_tokens"][3, 0, 0] == pytest.approx(1e5, rel=0.01)
    np.testing.assert_array_equal(found["text_tokens"][2, 1], [ord("o"), 1, 0.5, -1])
    assert Manifest.read(tmp_path).text["wide"] == 1


def test_a_damaged_image_shard_is_set_aside_and_made_again(tmp_path):
    engine, latents = InlineEngine(), LatentStage(tmp_path, toys.toy_encoders)
    run_images(work.stage(tmp_path), engine)
    good = content(tmp_path)
    path = tmp_path / "images" / "00001-000.array_record"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    ended = run_latents(latents, engine, identity=IDENTITY)
    assert [failed.kind for failed in ended.failed] == [DamagedShard.__name__]
    assert ended.exit_code == 1 and ended.manifest is None and "1 of 3" in ended.waiting
    assert run_images(work.stage(tmp_path), engine).exit_code == 0
    assert run_latents(latents, engine, identity=IDENTITY).exit_code == 0
    assert (
        content(tmp_path)["images/00001-000.array_record"] == good["images/00001-000.array_record"]
    )


def test_latents_follow_their_images(tmp_path):
    engine, latents = InlineEngine(), LatentStage(tmp_path, toys.toy_encoders)
    run_images(work.stage(tmp_path), engine)
    run_latents(latents, engine, identity=IDENTITY)
    count = len(PreparedRows(tmp_path))
    # Nothing to do: the manifest keeps its latents.
    assert run_images(work.stage(tmp_path), engine).manifest == Manifest.read(tmp_path)
    assert Manifest.read(tmp_path).latents is not None
    healed = work.stage(tmp_path, retry=True, web=work.ToyWeb(healed=True))
    assert run_images(healed, engine).manifest.latents is None
    with pytest.raises(Unfinished, match="second stage"):
        PreparedRows(tmp_path)
    ended = run_latents(latents, engine, identity=IDENTITY)
    assert ended.manifest.latents["count"] == ended.manifest.kept > count
    assert len(PreparedRows(tmp_path)) == ended.manifest.kept


def test_stages_come_in_order_and_encoders_do_not_mix(tmp_path):
    stage = LatentStage(tmp_path, toys.toy_encoders)
    with pytest.raises(Unfinished):
        run_latents(stage, InlineEngine(), identity=IDENTITY)
    with pytest.raises(Unfinished, match="not prepared"):
        prepare_latents("00000-000", tmp_path, encoders=toys.toy_encoders())
    toys.latent_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"encoders\.autoencoder \(was 'means', is 'sd'\)"):
        run_latents(stage, InlineEngine(), identity={"autoencoder": "sd"})


# --- whole runs -------------------------------------------------------------------------------


def both(out: Path, engine, *, workers: int = 1):
    run_images(work.stage(out), engine, workers=workers)
    latents = LatentStage(out, toys.toy_encoders_with_text, batch_size=4)
    return run_latents(latents, engine, identity=IDENTITY, workers=workers)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What every engine must give."""
    out = tmp_path_factory.mktemp("wanted")
    assert both(out, InlineEngine()).exit_code == 0
    return content(out)


def test_processes_give_the_same_bytes_as_one(wanted, tmp_path):
    assert both(tmp_path, LocalEngine(), workers=2).exit_code == 0
    assert content(tmp_path) == wanted


def test_ranks_give_the_same_bytes_and_the_last_writes_the_manifest(wanted, tmp_path, monkeypatch):
    engines = [RankEngine(rank, 2) for rank in range(2)]
    for engine in engines:
        monkeypatch.setattr(engine, "_engine", InlineEngine())
    first, second = (run_images(work.stage(tmp_path), engine) for engine in engines)
    assert (first.units, second.units) == (2, 1) and first.manifest is None
    assert "1 of 3 units are not done" in first.waiting and second.manifest is not None
    latents = LatentStage(tmp_path, toys.toy_encoders_with_text, batch_size=4)
    for engine in reversed(engines):
        run_latents(latents, engine, identity=IDENTITY)
    assert content(tmp_path) == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_bytes(wanted, tmp_path):
    pytest.importorskip("ray")
    from pinxit.data.engines import get_engine

    assert both(tmp_path, get_engine("ray"), workers=2).exit_code == 0
    assert content(tmp_path) == wanted


def test_progress_is_told_and_failures_are_named(tmp_path):
    class Picky(work.ToyWeb):
        def __call__(self, items):
            items = list(items)
            if any(url.endswith("/31") for _, url in items):
                raise OSError("too many open files")
            return super().__call__(items)

    told: list[Progress] = []
    ended = run_images(
        work.stage(tmp_path, web=Picky()), InlineEngine(), watch=lambda p, _: told.append(p)
    )
    assert [(p.done, p.failed) for p in told] == [(0, 0), (1, 0), (1, 1), (2, 1)]
    assert told[0].eta is None and told[1].eta > 0 and told[-1].eta == 0
    assert told[-1].rows == 55 and told[-1].rate > told[-1].kept_rate > 0
    assert [(f.unit.id, f.reason) for f in ended.failed] == [
        ("00001-000", "OSError: too many open files")
    ]
    assert (ended.exit_code, ended.done, ended.manifest) == (1, 2, None)
    resumed: list[Progress] = []
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
    assert not [n for n in content(tmp_path) if n.startswith("images/")]
    assert both(tmp_path, InlineEngine()).exit_code == 0
    assert content(tmp_path) == wanted


def test_other_settings_and_other_commands_are_kept_out(tmp_path):
    run_images(work.stage(tmp_path), InlineEngine(), limit=1)
    filters = dataclasses.replace(work.FILTERS, max_watermark=0.3)
    with pytest.raises(ValueError, match=r"filters\.max_watermark \(was 0\.5, is 0\.3\)"):
        run_images(work.stage(tmp_path, filters=filters), InlineEngine())
    with (
        locked(tmp_path, InlineEngine()),
        pytest.raises(ValueError, match="another preparation is at work"),
    ):
        run_images(work.stage(tmp_path), InlineEngine())
    # More of the same is fine.
    assert run_images(work.stage(tmp_path), InlineEngine()).manifest.rows == 75


def test_the_real_fetcher_and_decoder_are_what_the_stage_uses(tmp_path):
    from hostile_server import LOOPBACK, HostileServer  # pyrefly: ignore

    from pinxit.data.fetch import FetchConfig
    from pinxit.data.images import ImageConfig
    from pinxit.data.schema import Row

    kinds = ("good", "404", "html", "noai", "webp", "to_private", "gzip", "cut", "reset", "png")

    class Links(work.ToySource):
        def read(self, unit):
            for number, link in enumerate(links):
                yield Row(f"{unit.id}/{number:08d}", link, f"picture {number}")

    with HostileServer() as server:
        links = [server.url(kind, i) for i in range(2) for kind in kinds]
        stage = ImageStage(
            Links((20,)),
            tmp_path,
            filters=FilterConfig(min_words=1),
            fetch=FetchConfig(allow_networks=(LOOPBACK,), retries=0, timeout=10),
            image=ImageConfig(size=32, workers=1),
        )
        ended = run_images(stage, InlineEngine())
    assert ended.manifest.counts == {
        **{"blocked": 2, "connect": 2, "decode_error": 2, "encoded": 2, "http_404": 2},
        **{"not_image": 2, "ok": 6, "opt_out": 2},
    }
    assert ended.manifest.identity["image"]["size"] == 32
    assert Ledger(tmp_path, "images").notes()["fetch"]["allow_networks"] == [LOOPBACK]


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
    assert content(out) == content(plain)
    assert sum(begun.values()) - len(begun) <= kills * workers
    assert not list(out.rglob("*.partial"))


def test_kill_9_and_again_gives_the_same_set(tmp_path):
    check_kills(tmp_path, 3, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_at_20_points_gives_the_same_set(tmp_path, workers):
    check_kills(tmp_path, 20, workers=workers)
