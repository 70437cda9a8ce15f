"""The routes below ``/studio/datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response

from pinxit.config import UsageError
from pinxit.data.outcome import is_status
from pinxit.data.prepared.shards import SUFFIX, DamagedShard
from pinxit.extras import check_data_extra
from pinxit.prepare.ledger import SAFE
from pinxit.prepare.rejected_previews import FOLDER as PREVIEWS
from pinxit.serve.datasets.catalogue import DatasetCatalogue
from pinxit.serve.datasets.folders import DatasetFolder, missing_folders
from pinxit.serve.datasets.outcome_tables import RowFilter, find_row
from pinxit.serve.datasets.overview import describe_dataset, list_entry
from pinxit.serve.datasets.search import (
    RowPage,
    all_rows,
    kept_pictures,
    kept_row,
    rejected_previews,
)
from pinxit.serve.datasets.shard_pictures import checked_jpeg
from pinxit.serve.datasets.unit_totals import UnitEntry
from pinxit.serve.studio import Studio

router = APIRouter(prefix="/studio/datasets", tags=["datasets"])

Start = Annotated[int, Query(ge=0, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=200)]
Text = Annotated[str, Query(max_length=500)]
MAX_AGE = {"Cache-Control": "private, max-age=3600"}
"""Addresses of pictures change with their shard, so that browsers may keep them for an hour."""


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes of prepared datasets."""
    catalogue = DatasetCatalogue(studio.config.data, studio.runs)
    app.state.datasets = catalogue
    studio.at_end(catalogue.pictures.close)
    app.include_router(router)


def catalogue_of(request: Request) -> DatasetCatalogue:
    """Returns the catalogue of the app."""
    return request.app.state.datasets


def _folder(request: Request, name: str) -> DatasetFolder:
    """Returns a dataset by name. Answers 404 if there is none, and 400 without the extra."""
    check_data_extra("the view of prepared datasets")
    folder = catalogue_of(request).folders().get(name)
    if folder is None:
        raise HTTPException(404, "there is no prepared dataset of this name")
    return folder


def _entry(request: Request, folder: DatasetFolder, unit: str) -> UnitEntry:
    """Returns a unit of a dataset. Answers 404 if there is none."""
    totals = catalogue_of(request).totals(folder)
    if unit not in totals.entries:
        totals.refresh()
    if unit not in totals.entries:
        raise HTTPException(404, "the dataset has no unit of this name")
    return totals.entries[unit]


@contextmanager
def _naming_damage() -> Iterator[None]:
    """Turns damage of a shard into status 404 with the reason."""
    try:
        yield
    except (DamagedShard, OSError) as error:
        raise HTTPException(404, f"the picture cannot be read: {error}") from error


@router.get("")
def list_datasets(request: Request) -> dict[str, Any]:
    """Returns all prepared datasets, and the reason if they cannot be shown."""
    catalogue = catalogue_of(request)
    about = {"data": list(catalogue.data), "missing": missing_folders(catalogue.data)}
    try:
        check_data_extra("the view of prepared datasets")
    except UsageError as error:
        return {"datasets": [], "problem": str(error), **about}
    folders = catalogue.folders().values()
    listed = [list_entry(folder, catalogue.totals(folder)) for folder in folders]
    return {"datasets": listed, "problem": None, **about}


@router.get("/{name}")
def show_dataset(request: Request, name: str) -> dict[str, Any]:
    """Returns the figures, the settings and the state of one dataset."""
    folder = _folder(request, name)
    return describe_dataset(folder, catalogue_of(request).totals(folder))


@router.get("/{name}/kept")
def list_kept(
    request: Request, name: str, start: Start = 0, limit: Limit = 60, search: Text = ""
) -> dict[str, Any]:
    """Returns kept pictures from a position on, or those whose caption or key has a text."""
    folder, catalogue = _folder(request, name), catalogue_of(request)
    entries = _entries(catalogue, folder)
    with catalogue.searching:
        answer = kept_pictures(
            folder.root, entries, catalogue.pictures, start=start, limit=limit, text=search
        )
    return answer.to_json()


@router.get("/{name}/rows")
def list_rows(
    request: Request,
    name: str,
    start: Start = 0,
    limit: Limit = 100,
    search: Text = "",
    outcome: Text = "",
) -> dict[str, Any]:
    """Returns rows of the source with their outcomes, from a position on."""
    if outcome not in ("", "rejected") and not is_status(outcome):
        valid = "rejected, or the name of an outcome such as ok or http_404"
        raise UsageError("outcome", outcome[:100], valid=valid)
    folder, catalogue = _folder(request, name), catalogue_of(request)
    row_filter = RowFilter(outcome, search)
    with catalogue.searching:
        entries = _entries(catalogue, folder)
        answer = all_rows(folder.root, entries, start=start, limit=limit, row_filter=row_filter)
    return answer.to_json()


@router.get("/{name}/rejected")
def list_rejected(
    request: Request,
    name: str,
    start: Start = 0,
    limit: Limit = 60,
    search: Text = "",
    reason: Text = "",
) -> dict[str, Any]:
    """Returns the small pictures of rejected rows that the preparation has stored."""
    folder, catalogue = _folder(request, name), catalogue_of(request)
    counts: dict[str, int] = {}

    def count(reason: str) -> None:
        counts[reason] = counts.get(reason, 0) + 1

    answer: RowPage = rejected_previews(
        folder.root,
        catalogue.pictures,
        start=start,
        limit=limit,
        reason=reason,
        text=search,
        reasons=count,
    )
    return {**answer.to_json(), "reasons": dict(sorted(counts.items()))}


@router.get("/{name}/pictures/{unit}/{number}")
def show_picture(
    request: Request, name: str, unit: str, number: int, small: bool = False
) -> Response:
    """Returns a kept picture as a JPEG."""
    folder, catalogue = _folder(request, name), catalogue_of(request)
    info = _entry(request, folder, unit).images
    if info is None:
        raise HTTPException(404, "the unit has no pictures")
    path = folder.root / "images" / info.name
    with _naming_damage():
        if small:
            jpeg = catalogue.pictures.small(path, number, info)
        else:
            jpeg = checked_jpeg(catalogue.pictures.read(path, [number], info)[0][0], path)
    return Response(jpeg, media_type="image/jpeg", headers=MAX_AGE)


@router.get("/{name}/pictures/{unit}/{number}/about")
def describe_kept_picture(request: Request, name: str, unit: str, number: int) -> dict[str, Any]:
    """Returns a kept picture's caption and sizes, and its row with URL, scores and outcome."""
    folder, catalogue = _folder(request, name), catalogue_of(request)
    entry = _entry(request, folder, unit)
    if entry.images is None:
        raise HTTPException(404, "the unit has no pictures")
    with _naming_damage():
        path = folder.root / "images" / entry.images.name
        record = catalogue.pictures.read(path, [number], entry.images)[0]
    row, problem = _row_of(folder, entry, str(record[1].get("key", "")))
    return {**kept_row(entry, number, record), "row": row, "problem": problem}


@router.get("/{name}/previews/{file}/{number}")
def show_preview(request: Request, name: str, file: str, number: int) -> Response:
    """Returns the stored small picture of a rejected row as a JPEG."""
    folder, catalogue = _folder(request, name), catalogue_of(request)
    path = _preview_path(folder, file)
    with _naming_damage():
        jpeg = checked_jpeg(catalogue.pictures.read(path, [number], None)[0][0], path)
    return Response(jpeg, media_type="image/jpeg", headers=MAX_AGE)


@router.get("/{name}/previews/{file}/{number}/about")
def describe_preview(request: Request, name: str, file: str, number: int) -> dict[str, Any]:
    """Returns a rejected picture's caption and reason, and its row with URL and scores."""
    folder, catalogue = _folder(request, name), catalogue_of(request)
    path = _preview_path(folder, file)
    with _naming_damage():
        meta = catalogue.pictures.read(path, [number], None)[0][1]
    texts = {key: str(meta.get(key, "")) for key in ("key", "caption", "reason")}
    entry = catalogue.totals(folder).entries.get(file)
    row, problem = _row_of(folder, entry, texts["key"]) if entry else (None, "")
    return {"file": file, "number": number, **texts, "row": row, "problem": problem}


def _entries(catalogue: DatasetCatalogue, folder: DatasetFolder) -> list[UnitEntry]:
    """Returns the units of a dataset that are known, after a refresh."""
    totals = catalogue.totals(folder)
    totals.refresh()
    return list(totals.entries.values())


def _preview_path(folder: DatasetFolder, file: str) -> Path:
    """Returns the path of a file with previews, which must be one of those in the folder."""
    names = {path.name: path for path in (folder.root / PREVIEWS).glob(f"*{SUFFIX}")}
    path = names.get(f"{file}{SUFFIX}") if SAFE.fullmatch(file) else None
    if path is None:
        raise HTTPException(404, "the dataset has no previews of this name")
    return path


def _row_of(folder: DatasetFolder, entry: UnitEntry, key: str) -> tuple[dict[str, Any] | None, str]:
    """Returns a row of a unit, or None and the reason if it cannot be read."""
    info = entry.outcomes
    if info is None:
        return None, "the outcomes of this unit are not stored"
    try:
        return find_row(folder.root / "outcomes" / info.name, info, key), ""
    except (DamagedShard, OSError) as error:
        return None, str(error)
