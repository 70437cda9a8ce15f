"""Opens sources of captions and images by name.

A source is a list of units and a way to read each unit (`pinxit.data.row.Source`). `open_source`
takes a name of `SOURCES` and a path: a file, a folder, a glob, an fsspec URL, or a dataset on the
Hugging Face hub (``owner/name``), which is pinned to a commit. The published datasets have known
column names. The formats (`parquet`, `csv`, `tsv`, `jsonl`) look for the usual ones. Both accept
explicit column names instead. To add a source, write a function like those below and add it to
`SOURCES`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pinxit.config import UsageError, choice, positive
from pinxit.data.row import Source, Unit
from pinxit.data.sources.columns import Columns
from pinxit.data.sources.files import File, Listing, list_files, without_held_out
from pinxit.data.sources.hub import SCHEME, parse_hub_path
from pinxit.data.sources.samples.image_folder import FolderSource, list_folder, read_folder
from pinxit.data.sources.samples.webdataset import ArchiveSource
from pinxit.data.sources.tables.parquet import ParquetSource
from pinxit.data.sources.tables.text_lines import LinesSource
from pinxit.data.sources.unused_lines import other_files_lines, unused_line
from pinxit.text_decoding import known_encoding

__all__ = ["SOURCES", "Source", "SourceRequest", "Unit", "open_source"]

COYO = Columns(
    {
        "url": ("url",),
        "caption": ("text",),
        "width": ("width",),
        "height": ("height",),
        "phash": ("image_phash",),
        "watermark": ("watermark_score",),
        "nsfw": ("nsfw_score_opennsfw2", "nsfw_score_gantman"),
        "aesthetic": ("aesthetic_score_laion_v2",),
        "clip_similarity": ("clip_similarity_vitl14",),
    },
    required=(
        *("url", "caption", "width", "height", "phash"),
        *("watermark", "nsfw", "aesthetic", "clip_similarity"),
    ),
)
"""The column names of the COYO release. Its authors' preparation script spells some differently,
but no file does."""

LAION = Columns(
    {
        "url": ("url",),
        "caption": ("caption", "text"),
        "width": ("width",),
        "height": ("height",),
        "watermark": ("pwatermark",),
        "nsfw": ("punsafe",),
        "aesthetic": ("aesthetic",),
        "clip_similarity": ("similarity",),
    },
    required=("url", "caption"),
)
"""The column names of Re-LAION (url, caption, in lower case) and of the older sets (URL, TEXT).

Their ``hash`` column is a hash of the text, not of the image. Their aesthetic score comes from
version 1 of the predictor (0 to 10), which is not comparable with COYO's version 2.
"""

USUAL = Columns(
    {
        "url": ("url", "image_url", "img_url", "link"),
        "caption": ("caption", "text", "alt_text", "alt", "prompt", "caption_original", "title"),
        "image": ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes"),
        "width": ("width", "image_width", "original_width"),
        "height": ("height", "image_height", "original_height"),
        "phash": ("phash", "image_phash"),
        "watermark": ("watermark", "watermark_score", "pwatermark"),
        "nsfw": ("nsfw", "nsfw_score", "punsafe", "nsfw_score_opennsfw2", "nsfw_score_gantman"),
        "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
        "clip_similarity": ("clip_similarity", "similarity", "clip_similarity_vitl14"),
    },
)
"""The usual column names. Only a caption and either a URL or an image are required."""

POSITIONS = {"url": "0", "caption": "1"}
"""The columns of CC12M's TSV, which has no header: each line is a URL, a tab and a caption."""

COYO_REPO = "kakaobrain/coyo-700m"
LAION_REPO = "laion/relaion2B-en-research-safe"
LAION_ART_REPO = "laion/relaion-art"
CC12M_REPO = "pixparse/cc12m-wds"
MONET_REPO = "jasperai/monet"


@dataclasses.dataclass(frozen=True)
class SourceRequest:
    """The arguments of `open_source`."""

    name: str
    path: str | None = None
    revision: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unit_rows: int = 10_000
    text_encoding: str | None = None
    """The encoding of texts that are not Unicode; none means that their rows are bad_text."""

    unused: list[str] = dataclasses.field(default_factory=list)
    """The lines about files that are not read. Each selection of files adds to them."""

    def needed_path(self) -> str:
        """Returns the path, or raises UsageError if none is set."""
        if self.path is None:
            raise UsageError(
                "dataset_path", None, problem="missing", valid=f"the path of the {self.name} data"
            )
        return self.path

    def find(self, home: str, *, suffixes: Sequence[str], form: str) -> Listing:
        """Lists the files at the path (default: `home`, on the hub), without held-out splits."""
        listing = list_files(
            self.path or home, suffixes=suffixes, form=form, revision=self.revision
        )
        listing = without_held_out(listing)
        self.unused.extend((*other_files_lines(listing.others), *listing.unused))
        return listing

    def skip(self, files: Sequence[File], chosen: Sequence[File], *, which: str = "") -> None:
        """Adds the line about the `files` that are not among the `chosen` ones."""
        names = {file.name for file in chosen}
        rest = [file.name for file in files if file.name not in names]
        which = which or f"the .{chosen[0].name.rpartition('.')[2]} files are"
        one, many = (f"{what} not read, since {which}" for what in ("file is", "files are"))
        self.unused.extend(unused_line(rest, one, many))


def open_source(
    name: str,
    *,
    path: str | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    unit_rows: int = 10_000,
    text_encoding: str | None = None,
) -> Source:
    """Opens the source of this name at `path` (default: the published dataset on the hub).

    `revision` pins a dataset on the hub; a branch is resolved to its current commit. `columns` maps
    fields (url, caption, image, width, ...) to the names of the source's columns. `text_encoding`
    is the encoding of texts that are not Unicode (see `pinxit.text_decoding`). Opening lists the
    files and looks at the first one that can be read. Raises one ValueError if no files are there,
    columns are missing, which it lists, or the file holds something else.
    """
    choice("dataset_name", name, SOURCES)
    positive("unit_rows", unit_rows)
    text_encoding = known_encoding("text_encoding", text_encoding)
    request = SourceRequest(
        name, path, revision, dict(columns or {}), unit_rows, text_encoding=text_encoding
    )
    source = SOURCES[name](request)
    return _with_unused(source, request.unused) if request.unused else source


def coyo(request: SourceRequest) -> Source:
    """Opens COYO-700M: 747 M English alt texts with URLs, hashes and scores (index: CC-BY-4.0)."""
    return _urls(
        request, COYO_REPO, COYO, form="COYO-format parquet (columns url, text, width, ...)"
    )


def laion2b(request: SourceRequest) -> Source:
    """Opens Re-LAION-2B-en research-safe (gated), which replaces LAION-2B-en, withdrawn in 2023."""
    return _urls(
        request, LAION_REPO, LAION, form="LAION-format parquet (columns url, caption, ...)"
    )


def laion_art(request: SourceRequest) -> Source:
    """Opens Re-LAION-Art (gated): about 8 M images with the highest aesthetic scores."""
    return _urls(
        request, LAION_ART_REPO, LAION, form="LAION-format parquet (columns URL, TEXT, ...)"
    )


def cc12m(request: SourceRequest) -> Source:
    """Opens CC12M: WebDataset tars with images (default), or the official TSV of URLs."""
    listing = request.find(
        CC12M_REPO,
        suffixes=(".tar", ".tsv", ".tsv.gz", ".parquet"),
        form="CC12M as .tar (images), .tsv (url, tab, caption) or .parquet files",
    )
    tars = _ending(listing.files, ".tar")
    texts = _ending(listing.files, ".tsv", ".tsv.gz")
    request.skip(listing.files, tars or texts or listing.files)
    if tars:
        return _archives(request, listing.revision, tars)
    if texts:
        tsv = dataclasses.replace(request, columns=POSITIONS | dict(request.columns))
        return _lines(tsv, listing.revision, texts)
    return _table(request, listing.revision, listing.files, USUAL)


def monet(request: SourceRequest) -> Source:
    """Opens MONET: 104.9 M captioned images (Apache-2.0), hosted on the hub.

    The folder of the newest version is read.
    """
    listing = request.find(
        MONET_REPO,
        suffixes=(".tar", ".parquet"),
        form="MONET as .tar (image and json) or .parquet files",
    )
    files = newest_version(listing.files)
    request.skip(listing.files, files, which="the newest version is")
    return _images(request, dataclasses.replace(listing, files=files))


def parquet(request: SourceRequest) -> Source:
    """Opens any parquet files that have captions and either URLs or encoded images."""
    request.needed_path()
    return _urls(request, "", USUAL, form="parquet files")


def csv(request: SourceRequest) -> Source:
    """Opens CSV with a header, or without one if all columns are set by number (0, 1 ...)."""
    return _text(request, ".csv", ".csv.gz")


def tsv(request: SourceRequest) -> Source:
    """Opens TSV with a header, or without one if all columns are set by number.

    Quotes are part of the text, unless the first records show that fields stand in quotes.
    """
    return _text(request, ".tsv", ".tsv.gz")


def jsonl(request: SourceRequest) -> Source:
    """Opens files with one JSON object per line."""
    return _text(request, ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def folder(request: SourceRequest) -> Source:
    """Opens a folder of images with captions in text files, metadata files or folder names."""
    path = request.needed_path()
    listing = list_folder(path, revision=request.revision)
    columns = USUAL.override(request.columns)
    if request.columns.keys() - {"caption"}:
        raise UsageError("columns", dict(request.columns), valid="caption, for a folder of images")
    where = parse_hub_path(path) if listing.files[0].path.startswith(SCHEME) else None
    if where is not None:  # workers list the same commit again
        path = f"{SCHEME}datasets/{where.repo}@{listing.revision}/{where.inside}".rstrip("/")
    encoding = request.text_encoding
    return FolderSource(
        request.name,
        path,
        listing.revision,
        columns,
        unit_rows=request.unit_rows,
        unused=read_folder(path, listing.revision, encoding).unused,
        text_encoding=encoding,
    )


def webdataset(request: SourceRequest) -> Source:
    """Opens WebDataset tars, in the form that img2dataset writes."""
    listing = request.find(request.needed_path(), suffixes=(".tar",), form="WebDataset .tar files")
    return _archives(request, listing.revision, listing.files)


def hf(request: SourceRequest) -> Source:
    """Opens a dataset on the hub (or a copy of one) that holds its images, in parquet or tars."""
    listing = request.find(
        request.needed_path(),
        suffixes=(".parquet", ".tar"),
        form="parquet files with an image column, or WebDataset .tar files",
    )
    return _images(request, listing)


SOURCES: dict[str, Callable[[SourceRequest], Source]] = {
    "coyo": coyo,
    "laion2b": laion2b,
    "laion-art": laion_art,
    "cc12m": cc12m,
    "monet": monet,
    "parquet": parquet,
    "csv": csv,
    "tsv": tsv,
    "jsonl": jsonl,
    "folder": folder,
    "webdataset": webdataset,
    "hf": hf,
}


def newest_version(files: Sequence[File]) -> tuple[File, ...]:
    """Returns the files in the highest version folder (``v1.2.3``), or all if there is none."""

    def version(file: File) -> tuple[int, ...]:
        match = re.search(r"(?:^|/)v(\d+)\.(\d+)\.(\d+)/", file.name)
        return tuple(int(part) for part in match.groups()) if match else ()

    newest = max(version(file) for file in files)
    return tuple(file for file in files if version(file) == newest)


def _urls(request: SourceRequest, home: str, columns: Columns, *, form: str) -> Source:
    listing = request.find(home, suffixes=(".parquet",), form=form)
    return _table(request, listing.revision, listing.files, columns)


def _images(request: SourceRequest, listing: Listing) -> Source:
    tars = _ending(listing.files, ".tar")
    tables = _ending(listing.files, ".parquet") or (() if tars else listing.files)
    request.skip(listing.files, tars or tables)
    if tables and not tars:
        columns = dataclasses.replace(USUAL, required=("image", "caption"))
        return _table(request, listing.revision, tables, columns)
    return _archives(request, listing.revision, tars)


def _table(
    request: SourceRequest, revision: str, files: tuple[File, ...], columns: Columns
) -> Source:
    return ParquetSource(
        request.name,
        revision,
        files,
        columns.override(request.columns),
        unit_rows=request.unit_rows,
        text_encoding=request.text_encoding,
    ).check()


def _archives(request: SourceRequest, revision: str, files: tuple[File, ...]) -> Source:
    columns = USUAL.override(request.columns)
    return ArchiveSource(
        request.name, revision, files, columns, text_encoding=request.text_encoding
    )


def _text(request: SourceRequest, *suffixes: str) -> Source:
    listing = request.find(
        request.needed_path(), suffixes=suffixes, form=f"{request.name} files of captions and URLs"
    )
    return _lines(request, listing.revision, listing.files)


def _lines(request: SourceRequest, revision: str, files: tuple[File, ...]) -> Source:
    kind = "tsv" if request.name == "cc12m" else request.name
    names = [name for value in request.columns.values() for name in value.split(",")]
    header = not names or not all(name.strip().isdecimal() for name in names)
    columns = dataclasses.replace(USUAL, required=("url", "caption")).override(request.columns)
    return LinesSource(
        request.name,
        revision,
        files,
        columns,
        kind,
        header=header,
        unit_rows=request.unit_rows,
        text_encoding=request.text_encoding,
        quotable=request.name != "cc12m",
    ).check()


def _with_unused(source: Any, lines: Sequence[str]) -> Source:
    """Returns a source that also names the files that were left out when it was opened."""
    return dataclasses.replace(source, unused=(*lines, *source.unused))


def _ending(files: Sequence[File], *suffixes: str) -> tuple[File, ...]:
    return tuple(file for file in files if file.name.lower().endswith(suffixes))
