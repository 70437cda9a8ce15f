"""The first stage: an end for every row, the same bytes whatever the web does, retries."""

import dataclasses
import multiprocessing
import os
from collections import Counter
from pathlib import Path

import numpy as np
import prepare_work as work  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import decode
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.images import Offline, prepare_images
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.outcome_files import read_outcomes
from pinxit.prepare.rejected_previews import read_previews
from pinxit.prepare.stages import run_images

UNIT = work.ToySource().units()[0]
PICTURE = work.picture(1)


def prepare(out: Path, **more):
    settings = {
        "source": work.ToySource(),
        "filters": work.FILTERS,
        "fetch": work.ToyWeb(),
        "decode": work.decode_here,
    }
    return prepare_images(UNIT, out=out, **settings | more)


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
    stored = toys.records(tmp_path / "images" / record.files["images"].name)
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
    assert (
        toys.content(tmp_path / "0") == toys.content(tmp_path / "1") == toys.content(tmp_path / "2")
    )


def test_a_source_that_bears_its_images_gives_the_same_ones(tmp_path):
    web = prepare(tmp_path / "web", source=work.ToySource(kinds=("good",)))
    never = work.ToyWeb()
    source = work.ToySource(kinds=("good",), has_images=True)
    borne = prepare(tmp_path / "borne", source=source, fetch=never)
    assert toys.content(tmp_path / "web") == toys.content(tmp_path / "borne")
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

    source = Nasty((3,), has_images=True)
    filters = dataclasses.replace(work.FILTERS, unique_url=False)
    record = prepare(tmp_path, source=source, filters=filters)
    assert record.counts == {"filtered_watermark": 1, "ok": 2}
    stored = toys.records(tmp_path / "images" / record.files["images"].name)
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
    assert not (tmp_path / "units").exists() and toys.content(tmp_path) == {}


def test_without_a_network_nothing_is_recorded(tmp_path):
    with pytest.raises(Offline, match=r"none of 2\d hosts could be reached"):
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
    after = prepare(
        tmp_path / "b", source=Hashed(), duplicates=work.Listed({key: "filtered_phash"})
    )
    assert after.counts["filtered_phash"] == 1 and after.counts["ok"] == before.counts["ok"] - 1


def test_previews_show_what_the_filters_turned_away(tmp_path):
    prepare(tmp_path / "web")
    shown = list(read_previews(tmp_path / "web"))
    assert {reason for reason, _, _ in shown} == {"filtered_watermark", "filtered_words"}
    for reason, caption, jpeg in shown:
        assert (caption == "one") == (reason == "filtered_words")
        assert decode(jpeg, work.IMAGE).original == (16, 16)
    source = work.ToySource(has_images=True)
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
    old = toys.content(tmp_path / "a")
    web = work.ToyWeb(healed=True)
    again = prepare(tmp_path / "a", fetch=web, retry=True)
    assert {url.split("/")[3] for url in web.asked} == {"timeout", "500"}
    assert len(web.asked) == first.counts["timeout"] + first.counts["http_500"]
    assert again.counts["ok"] == first.counts["ok"] + len(web.asked)
    assert again.generation == 1
    described = {name: first.measured[name] for name in ("shapes", "examples")}
    assert {**again.measured, **described} == first.measured
    assert again.measured["examples"].keys() == again.counts.keys() - {"ok"}
    assert sum(again.measured["shapes"].values()) == again.counts["ok"]
    fresh = prepare(tmp_path / "b", fetch=work.ToyWeb(healed=True), retry=True)
    digests = [{name: info.sha256 for name, info in r.files.items()} for r in (again, fresh)]
    assert digests[0] == digests[1]
    # The files of before are gone, and those that are there belong to the record.
    assert not old.keys() & toys.content(tmp_path / "a").keys()
    assert len(toys.content(tmp_path / "a")) == 2


def test_a_retry_that_heals_nothing_changes_nothing(tmp_path):
    first = prepare(tmp_path)
    before = toys.content(tmp_path)
    assert prepare(tmp_path, retry=True) == first
    assert prepare(tmp_path, retry=True, fetch=work.ToyWeb(offline=True)).counts["dns"] > 0
    assert toys.content(tmp_path).keys() != before.keys()
    healed = prepare(tmp_path, retry=True, fetch=work.ToyWeb(healed=True))
    web = work.ToyWeb()
    assert prepare(tmp_path, retry=True, fetch=web) == healed and web.asked == []


@pytest.mark.parametrize("folder", ["images", "outcomes"])
def test_a_retry_of_a_damaged_unit_sets_the_file_aside_and_does_all_of_it(tmp_path, folder):
    first = prepare(tmp_path)
    path = tmp_path / folder / first.files[folder].name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # the size stays
    path.write_bytes(data)
    web = work.ToyWeb(healed=True)
    again = prepare(tmp_path, fetch=web, retry=True)
    assert path.with_name(f"{path.name}.corrupt").read_bytes() == data
    assert len(web.asked) > first.counts["timeout"] + first.counts["http_500"]
    fresh = prepare(tmp_path / "fresh", fetch=work.ToyWeb(healed=True))
    assert again.files == fresh.files and again.counts == fresh.counts
    assert Ledger(tmp_path, "images").done(UNIT.id) == again


def die_before_the_commit(out: Path) -> None:
    """A retry in a process of its own, which ends where the commit would be."""
    Ledger.commit = lambda *_: os._exit(9)  # type: ignore[method-assign]
    prepare(out, fetch=work.ToyWeb(healed=True), retry=True)


def test_a_retry_that_is_killed_leaves_the_commit_of_before(tmp_path):
    first = prepare(tmp_path)
    before = toys.content(tmp_path)
    child = multiprocessing.get_context("spawn").Process(
        target=die_before_the_commit, args=(tmp_path,)
    )
    child.start()
    child.join()
    assert child.exitcode == 9
    left = toys.content(tmp_path).keys() - before.keys()
    assert left == {"images/00000-000~1.array_record", "outcomes/00000-000~1.parquet"}
    ledger = Ledger(tmp_path, "images")
    assert ledger.done(UNIT.id) == first
    assert before.items() <= toys.content(tmp_path).items()
    stage = work.stage(tmp_path)
    run_images(stage, InlineEngine(), limit=1)  # sweeps what the killed one left
    assert {n: c for n, c in toys.content(tmp_path).items() if "/" in n} == before
