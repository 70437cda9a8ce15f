"""Pictures that a host serves instead of others, and the pictures that a report may show."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import prepare_work as work
import pyarrow.parquet as pq
import pytest

from pinxit.data.fetch.fetcher import Fetched
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig, encode_image
from pinxit.data.row import Row
from pinxit.prepare.images import ImageStage, prepare_images
from pinxit.prepare.outcome_files import read_outcomes, read_prints
from pinxit.prepare.placeholders import Fingerprint, find_placeholders
from pinxit.prepare.rejected_previews import read_previews

UNIT = work.ToySource().units()[0]
CARD = work.picture(10_000)
OPEN = FilterConfig(
    **dict.fromkeys(("min_side", "max_aspect", "max_watermark", "max_nsfw", "min_aesthetic"), None),
    min_clip_similarity=None,
    min_words=None,
)


class Cards(work.ToySource):
    """Rows of one host, of which those named card lead to one picture."""

    def __init__(self, *names: str, **changes: Any) -> None:
        super().__init__((len(names),))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "changes", changes)

    def read(self, unit):
        for number, name in enumerate(self.names):
            yield Row(
                key=f"{unit.id}/{number:08d}",
                url=f"http://shop.test/{name}/{number}",
                caption=f"caption {number}",
                **self.changes,
            )


@dataclasses.dataclass
class CardWeb:
    """Answers in an order of its own; until it is healed, "late" fails."""

    healed: bool = False
    seed: int = 0
    asked: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, items):
        mixed = list(items)
        random.Random(self.seed).shuffle(mixed)
        for key, url in mixed:
            self.asked.append(url)
            kind, number = url.split("/")[-2:]
            if kind == "late" and not self.healed:
                yield key, Fetched("timeout", None, "late")
            else:
                yield key, Fetched("ok", work.picture(int(number)) if kind == "good" else CARD)


def prepare(out: Path, source: Any, web: Any = None, **more: Any):
    settings = {"filters": OPEN, "fetch": web or CardWeb(), "decode": work.decode_here} | more
    return prepare_images(source.units()[0], source, out, **settings)


def statuses(out: Path, record) -> list[str]:
    path = out / "outcomes" / record.files["outcomes"].name
    return [outcome.status for outcome in read_outcomes(path)]


def test_a_picture_of_many_urls_of_a_host_is_a_placeholder(tmp_path):
    names = ("card", "good", "card", "card", "good", "card", "card")
    record = prepare(tmp_path, Cards(*names))
    assert statuses(tmp_path, record) == [
        "ok" if name == "good" else "placeholder" for name in names
    ]
    assert record.counts == {"ok": 2, "placeholder": 5}
    assert record.measured["examples"] == {"placeholder": "http://shop.test/card/0"}
    path = tmp_path / "outcomes" / record.files["outcomes"].name
    assert {o.detail for o in read_outcomes(path) if o.status == "placeholder"} == {
        "5 rows of shop.test have this picture"
    }
    ((reason, caption, jpeg),) = read_previews(tmp_path)
    assert reason == "placeholder" and jpeg.startswith(b"\xff\xd8")
    assert caption == "5 rows of shop.test have this picture: caption 0"
    prepare(tmp_path / "none", Cards(*names), previews=0)
    assert list(read_previews(tmp_path / "none")) == []


def test_up_to_the_limit_or_without_one_the_pictures_stay(tmp_path):
    assert prepare(tmp_path / "a", Cards(*["card"] * 4)).counts == {"ok": 4}
    assert prepare(tmp_path / "b", Cards(*["card"] * 9), max_repeats=0).counts == {"ok": 9}
    assert prepare(tmp_path / "c", Cards(*["card"] * 3), max_repeats=2).counts == {"placeholder": 3}


def test_the_order_of_the_answers_decides_nothing(tmp_path):
    source = Cards(*(["card", "good"] * 6))
    one = prepare(tmp_path / "a", source, CardWeb(seed=1))
    two = prepare(tmp_path / "b", source, CardWeb(seed=2))
    assert one.files == two.files and one.measured == two.measured


@pytest.mark.parametrize("late", [(0,), (3,), (6,), (0, 1, 2, 3, 4), (0, 6), range(7)])
def test_a_retry_comes_to_the_same_as_a_run_that_never_failed(tmp_path, late):
    names = ["card", "good", "card", "card", "good", "card", "card"]
    for number in late:
        names[number] = "late" if names[number] == "card" else names[number]
    source = Cards(*names)
    first = prepare(tmp_path / "a", source)
    count = names.count("late")
    if count:
        assert first.counts["timeout"] == count and "placeholder" not in first.counts
    again = prepare(tmp_path / "a", source, CardWeb(healed=True), retry=True)
    fresh = prepare(tmp_path / "b", source, CardWeb(healed=True))
    assert again.counts == fresh.counts == {"ok": 2, "placeholder": 5}
    assert [i.sha256 for i in again.files.values()] == [i.sha256 for i in fresh.files.values()]
    assert again.measured == fresh.measured


def test_a_retry_joins_placeholders_that_were_found_before(tmp_path):
    source = Cards(*["card"] * 5, "late", "good")
    assert prepare(tmp_path, source).counts == {"ok": 1, "placeholder": 5, "timeout": 1}
    again = prepare(tmp_path, source, CardWeb(healed=True), retry=True)
    assert again.counts == {"ok": 1, "placeholder": 6}
    fresh = prepare(tmp_path / "b", source, CardWeb(healed=True))
    assert [i.sha256 for i in again.files.values()] == [i.sha256 for i in fresh.files.values()]


def test_a_unit_of_an_older_version_is_retried_without_hashes(tmp_path):
    source = Cards(*["card"] * 4, "late")
    record = prepare(tmp_path, source)
    path = tmp_path / "outcomes" / record.files["outcomes"].name
    table = pq.read_table(path).drop_columns(["body", "look"])
    old = tmp_path / "old.parquet"
    pq.write_table(table, old)
    assert read_prints(old) == {} and len(read_prints(path)) == 4
    assert [o.status for o in read_outcomes(old)] == ["ok"] * 4 + ["timeout"]


def rows(*described: tuple[str, str, str]) -> tuple[dict[str, Row], dict[str, Fingerprint]]:
    """Rows of (URL, caption, picture)."""
    listed = {str(n): Row(str(n), url or None, text) for n, (url, text, _) in enumerate(described)}
    prints = {str(n): Fingerprint(*look.split("+")) for n, (_, _, look) in enumerate(described)}
    return listed, prints


def test_which_rows_are_one_picture():
    def found(*described: tuple[str, str, str], most: int = 2) -> list[tuple[str, ...]]:
        return [one.keys for one in find_placeholders(*rows(*described), most)]

    same = [(f"http://a.test/{n}", f"text {n}", "body+look") for n in range(3)]
    assert found(*same) == [("0", "1", "2")]
    # many hosts, one caption, one URL, or no URL: no placeholder
    assert found(*((f"http://a{n}.test/", f"{n}", "body+look") for n in range(9))) == []
    assert found(*((f"http://a.test/{n}", "text", "body+look") for n in range(9))) == []
    assert found(*(("http://a.test/", f"{n}", "body+look") for n in range(9))) == []
    assert found(*(("", f"{n}", "body+look") for n in range(9))) == []
    # encoded again, each time with other bytes
    again = [(f"http://a.test/{n}", f"{n}", f"body{n}+look") for n in range(3)]
    assert found(*again) == [("0", "1", "2")]
    assert found(*((url, text, f"{look}{n}") for n, (url, text, look) in enumerate(again))) == []


# --- previews ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [{"nsfw": 0.9}, {"nsfw": 0.9, "watermark": 0.9}])
def test_unsafe_rows_are_never_looked_at_whatever_they_were_dropped_for(tmp_path, scores):
    web = CardWeb()
    strict = dataclasses.replace(OPEN, max_watermark=0.5, max_nsfw=0.5, min_words=3, min_side=500)
    source = Cards(*["good"] * 6, scores=scores, width=24, height=20)
    record = prepare(tmp_path, source, web, filters=strict)
    assert record.counts == {"filtered_side": 6}
    assert web.asked == [] and list(read_previews(tmp_path)) == []
    safe = Cards(*["good"] * 6, scores={"nsfw": 0.1}, width=24, height=20)
    prepare(tmp_path / "safe", safe, web, filters=strict)
    assert len(web.asked) == 2 == len(list(read_previews(tmp_path / "safe")))


def test_rows_of_blocked_domains_are_never_requested(tmp_path):
    strict = dataclasses.replace(OPEN, min_words=3)
    source = Cards(*["good"] * 6)
    for blocked in (
        {"filters": dataclasses.replace(strict, blocked_domains=("shop.test",))},
        {"filters": strict, "hidden_domains": ("shop.test",)},
    ):
        web, out = CardWeb(), tmp_path / str(len(blocked))
        assert prepare(out, source, web, **blocked).counts == {"filtered_words": 6}
        assert web.asked == [] and list(read_previews(out)) == []


# --- the stage --------------------------------------------------------------------------------


def test_a_stage_chooses_its_settings_and_keeps_those_of_its_folder(tmp_path):
    stage = ImageStage(Cards("good"), tmp_path, image=ImageConfig(size=512))
    assert (stage.filters.min_side, stage.filters.min_words) == (512, 3)
    assert (stage.image.blank, stage.image.max_repeats) == ("drop", 4)
    own = ImageStage(work.ToySource(has_images=True), tmp_path)
    assert own.filters.thresholds() == {} and own.image.blank == "keep"
    # a folder that an older version began
    from pinxit.prepare.ledger import Ledger

    identity = stage.identity()
    identity["filters"] |= {"min_side": 256}
    for name in ("blank", "max_repeats"):
        del identity["image"][name]
    identity["image"]["formats"] = ["JPEG", "PNG", "WEBP", "GIF", "BMP"]
    Ledger(tmp_path, "images").begin(identity)
    again = ImageStage(Cards("good"), tmp_path, image=ImageConfig(size=512))
    assert again.identity() == identity
    assert again.filters.min_side == 256 and again.image.max_repeats == 0
    Ledger(tmp_path, "images").begin(again.identity())


def test_pictures_that_are_enlarged_are_counted(tmp_path):
    small = encode_image(
        np.kron(np.eye(4, dtype=np.uint8)[..., None] * 255, np.ones((2, 2, 3))).astype(np.uint8)
    )

    class Small(CardWeb):
        def __call__(self, items):
            for key, url in items:
                yield key, Fetched("ok", small if "card" in url else work.picture(1))

    record = prepare(tmp_path, Cards("good", "card", "card"), Small())
    assert record.measured["enlarged"] == {"rows": 2, "example": "http://shop.test/card/1"}
    from pinxit.prepare.image_totals import image_totals
    from pinxit.prepare.report import enlarged_line

    assert enlarged_line(image_totals([record, record])) == (
        "4 of the images kept were enlarged to the image size "
        "(the first: http://shop.test/card/1; --filters.min_side limits it)"
    )
    assert enlarged_line(image_totals([dataclasses.replace(record, measured={})])) == ""
