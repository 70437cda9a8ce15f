"""docs/data_formats.md: its tables are those of the program."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from pinxit.data.filters.resolve import MAX_REPEATS, PUBLISHED, resolved_filters, resolved_images
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.images.formats import SUFFIXES
from pinxit.data.outcome import STATUSES, UNUSABLE
from pinxit.data.sources.catalogue import SOURCES
from pinxit.data.sources.samples.metadata_files import METADATA, NAMED
from pinxit.data.sources.samples.sample_names import CAPTION_SUFFIXES, MASKS

PAGE = (Path(__file__).parents[2] / "docs" / "data_formats.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """The first two cells of each line of the first table below a text."""
    table = re.search(r"(\|.*\n)+", PAGE[PAGE.index(heading) :])
    assert table is not None
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]
    ]
    return {first: second for first, second, *_ in cells}


def test_every_status_of_a_source_is_there_with_its_meaning():
    listed = rows("The statuses of rows that a source cannot use")
    assert listed == {f"`{s}`": STATUSES[s] for s in STATUSES if s in UNUSABLE}


def test_every_status_of_a_decoder_is_there_with_its_meaning():
    names = list(STATUSES)
    decoding = [name for name in names[names.index("not_image") :]]
    assert rows("Statuses of pictures") == {f"`{name}`": STATUSES[name] for name in decoding}


def test_suffixes_and_names():
    files = rows("Folders and tar files follow")
    assert files["pictures"].strip("`").split() == [f".{s}" for x in SUFFIXES.values() for s in x]
    assert files["captions"].partition("`;")[0].strip("`").split() == [
        f".{suffix}" for suffix in CAPTION_SUFFIXES
    ]
    for name in NAMED:
        assert f"`{name}`" in PAGE
    for suffix in {name.rpartition(".")[2] for name in METADATA}:
        assert f"`.{suffix}`" in PAGE
    assert {f".{word}" for word in MASKS} >= set(re.findall(r"`(\.(?:mask|seg|tri|mat)\w*)`", PAGE))


def test_every_source_is_there():
    listed = {name for cell in rows("| SOURCE |") for name in re.findall(r"`(.*?)`", cell)}
    assert listed == set(SOURCES)
    assert all(f"`{name}`" in PAGE for name in PUBLISHED)


def test_settings_that_depend_on_the_source():
    listed = {}
    for line in re.search(r"\| setting \|.*\n(\|.*\n)+", PAGE)[0].splitlines()[2:]:  # type: ignore[index]
        name, web, own, _ = (cell.strip() for cell in line.strip("|").split("|"))
        listed[name.strip("`").removeprefix("--")] = (web, own)
    values = {}
    for web in (True, False):
        filters = resolved_filters(FilterConfig(), web=web, targets=[(512, 512)])
        images = resolved_images(ImageConfig(), web=web)
        for group, config in (("filters", filters), ("images", images)):
            values[group, web] = dataclasses.asdict(config)
    assert values["filters", True]["min_side"] == 512 and listed["filters.min_side"] == (
        "the image size",
        "none",
    )
    for name, (web_cell, own_cell) in listed.items():
        group, _, field = name.partition(".")
        if field != "min_side":
            assert _cell(values[group, True][field]) == web_cell, name
        assert _cell(values[group, False][field]) == own_cell, name
    assert MAX_REPEATS == 4


def _cell(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
