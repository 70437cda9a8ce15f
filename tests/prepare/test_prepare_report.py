"""The report shows what became of the rows, and lets nothing of strangers act."""

import dataclasses
import io
from html.parser import HTMLParser

import numpy as np
import prepare_work as work  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest
from PIL import Image

from pinxit.prepare.engines.base import UnitResult
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.report import write_preparation_report
from pinxit.prepare.report_pictures import sheet
from pinxit.prepare.stages import run_images


class Page(HTMLParser):
    """Tags, and text by line."""

    def __init__(self, path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            assert dict(attrs)["src"].startswith("data:image/png;base64,")

    def handle_data(self, data):
        self.words.append(data)


class Hostile(work.ToySource):
    def read(self, unit):
        for row in super().read(unit):
            yield dataclasses.replace(row, caption=f"{row.caption} <script>alert(1)</script> \0 é")


def test_the_page_has_figures_pictures_and_settings(tmp_path):
    source = Hostile((30, 20), has_images=True)
    run_images(work.stage(tmp_path, source=source), InlineEngine())
    failed = [UnitResult(source.units()[0], kind="OSError", reason="OSError: <b>gone</b>")]
    path = write_preparation_report(tmp_path, command=["pinxit", "prepare", "<i>"], failed=failed)
    page = Page(path)
    text = " ".join(page.words)
    assert not {"script", "b", "i"} & set(page.tags)
    captions = page.tags.count("figcaption")  # of images kept and rejected, beside the scores
    assert captions >= 20 and page.tags.count("img") == captions + 1
    for part in ("50 rows in 2 units", "filtered_watermark", "probably watermarked", "<b>gone</b>"):
        assert part in text
    for name, least in (("kept", 60), ("rejected", 60), ("scores", 200)):
        with Image.open(io.BytesIO((tmp_path / "report" / f"{name}.png").read_bytes())) as picture:
            assert picture.format == "PNG" and min(picture.size) >= least
            assert len(np.unique(np.asarray(picture))) > 20
    assert "not finished" not in text


FOREIGN = ("红色的房子", "京都の寺院と桜", "แมวสีส้มนอน", "بيت أحمر صغير", "빨간 집 앞")


class Foreign(work.ToySource):
    def read(self, unit):
        captions = (
            "红色的房子",
            "京都の寺院と桜",
            "แมวสีส้มนอนบนโซฟา",
            "بيت أحمر صغير",
            "빨간 집 앞",
        )
        for number, row in enumerate(super().read(unit)):
            yield dataclasses.replace(row, caption=captions[number % len(captions)])


def test_captions_of_every_script_are_text_below_their_images(tmp_path):
    source = Foreign((30,), has_images=True)
    run_images(work.stage(tmp_path, source=source), InlineEngine())
    html = write_preparation_report(tmp_path).read_text("utf-8")
    for caption in (
        "红色的房子",
        "京都の寺院と桜",
        "แมวสีส้มนอนบนโซฟา",
        "بيت أحمر صغير",
        "빨간 집 앞",
    ):
        assert f'"><figcaption dir="auto">{caption}</figcaption></figure>' in html
    assert (tmp_path / "report" / "kept.png").is_file()


@pytest.mark.parametrize("side", [128, 40])
def test_a_caption_is_nearer_to_its_image_than_to_the_next_row(side: int):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "black").save(buffer, "JPEG")
    cells = [(buffer.getvalue(), "a small red house under a full moon beside a lake")] * 11
    columns = np.asarray(sheet([("reason", cells)]).convert("L"))
    images = np.flatnonzero(columns[:, :side].max(axis=1) < 20)  # of both rows
    end, second = images[side - 1], images[side]
    text = np.flatnonzero(columns[end + 1 : second, :128].min(axis=1) < 200)
    assert second - end > 30 and len(text) > 8
    above, below = text[0], second - end - 1 - text[-1]
    assert above <= 5 and below >= 15


def test_the_limits_are_drawn_where_they_are(tmp_path):
    wide, narrow = tmp_path / "wide", tmp_path / "narrow"
    for out, limit in ((wide, 0.95), (narrow, 0.5)):
        filters = dataclasses.replace(work.FILTERS, max_watermark=limit)
        run_images(work.stage(out, filters=filters, previews=0), InlineEngine())
        write_preparation_report(out)
    pictures = [(out / "report" / "scores.png").read_bytes() for out in (wide, narrow)]
    assert pictures[0] != pictures[1]
    assert not (wide / "report" / "rejected.png").exists()


def test_what_the_network_settings_opened_is_remarked_on(tmp_path):
    toys.image_dataset(tmp_path)
    ledger = Ledger(tmp_path, "images")
    notes = {"fetch": {"allow_networks": ["10.0.0.0/8"], "honour_opt_out": False}}
    ledger.begin({k: v for k, v in ledger.identity().items() if k != "format"}, notes=notes)
    text = " ".join(Page(write_preparation_report(tmp_path)).words)
    assert "not public were allowed on request: 10.0.0.0/8" in text and "were not respected" in text


@pytest.mark.parametrize("begun", [True, False])
def test_a_preparation_that_has_hardly_begun_has_a_report(tmp_path, begun):
    if begun:
        source = work.ToySource((3, 30), kinds=("404",))
        web = work.ToyWeb(offline=True)
        run_images(work.stage(tmp_path, source=source, web=web), InlineEngine())
    text = " ".join(Page(write_preparation_report(tmp_path)).words)
    assert ("not finished" in text) == begun and "img" not in Page(
        write_preparation_report(tmp_path)
    ).words


def test_latents_are_told_of(tmp_path):
    toys.latent_dataset(tmp_path, (4, 3))
    text = " ".join(Page(write_preparation_report(tmp_path)).words)
    assert "7 latents, 0 left out" in text and "standard deviation" in text
