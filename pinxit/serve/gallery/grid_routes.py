"""Routes of comparison grids: what a grid would take, its start, its progress, and its cells."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from pinxit.comparison_grid.axes import Axis
from pinxit.comparison_grid.grid import Grid
from pinxit.config import UsageError, to_json
from pinxit.serve.gallery.chosen_entry import loaded_entry
from pinxit.serve.gallery.folder import Gallery
from pinxit.serve.gallery.grid_jobs import GridDesk, GridJob
from pinxit.serve.gallery.grid_request import GridPlan, planned_grid
from pinxit.serve.request_body import read_json_body
from pinxit.serve.server_events import events_response, server_event
from pinxit.serve.studio import Studio

LOOK = 0.1
"""Seconds between looks at a grid that is followed."""


def add_grids(app: FastAPI, studio: Studio, gallery: Gallery) -> None:
    """Adds the routes of comparison grids."""
    desk = GridDesk(studio.engine, gallery)
    studio.at_end(desk.close)

    @app.post("/studio/grids/check", tags=["studio"])
    async def check(request: Request) -> dict[str, Any]:
        """Returns the cells of a grid, the size of its sheet and its command, without drawing.

        Forms ask while a person types, so a wrong value is no error but the answer `problem`.
        """
        return await run_in_threadpool(_checked, studio, await read_json_body(request))

    @app.post("/studio/grids", status_code=202, tags=["studio"])
    async def start(request: Request) -> dict[str, Any]:
        """Begins to draw a grid, whose sheet is stored in the gallery."""
        plan = await run_in_threadpool(_plan, studio, await read_json_body(request))
        await run_in_threadpool(_sheet_size, plan)
        return described_grid_job(desk.start(plan))

    @app.get("/studio/grids", tags=["studio"])
    def grids() -> dict[str, Any]:
        """Lists the grids that are drawn, and those that have ended lately, the newest last."""
        return {"data": [described_grid_job(job) for job in desk.jobs()]}

    @app.get("/studio/grids/{id}", tags=["studio"])
    def grid(id: str) -> dict[str, Any]:
        """Returns a grid and how far it is."""
        return described_grid_job(_known(desk, id))

    @app.delete("/studio/grids/{id}", tags=["studio"])
    def cancel(id: str) -> dict[str, Any]:
        """Stops drawing a grid."""
        job = _known(desk, id)
        job.cancel()
        return described_grid_job(job)

    @app.get("/studio/grids/{id}/events", tags=["studio"], response_class=Response)
    async def events(id: str) -> Response:
        """Follows a grid with server-sent events: a `cell` for each picture, then `ended`."""
        return events_response(_events(_known(desk, id)))

    @app.get("/studio/grids/{id}/cells/{number}", tags=["studio"], response_class=Response)
    def cell(id: str, number: int) -> Response:
        """Returns the picture of a cell while the grid is drawn."""
        picture = _known(desk, id).cell(number)
        if picture is None:
            raise HTTPException(404, "there is no such picture; the finished sheet has all cells")
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        return Response(buffer.getvalue(), media_type="image/png")


def _known(desk: GridDesk, id: str) -> GridJob:
    """Returns the grid of an id, or answers with status 404."""
    try:
        return desk.job(id)
    except KeyError as error:
        raise HTTPException(404, "there is no such comparison") from error


def _plan(studio: Studio, data: dict[str, Any]) -> GridPlan:
    """Returns the checked grid of a request. Loads the models that it names."""
    entries = studio.engine.models()
    find = functools.partial(loaded_entry, studio.engine, entries)
    return planned_grid(data, find, studio.config)


def _checked(studio: Studio, data: dict[str, Any]) -> dict[str, Any]:
    """Returns what a grid would take, or the problem of a request that is not finished."""
    try:
        plan = _plan(studio, data)
        return described_grid(plan) | {"sheet": _sheet_size(plan), "problem": None}
    except UsageError as error:
        return {"problem": {"message": str(error), "param": error.field}}


def _sheet_size(plan: GridPlan) -> dict[str, int]:
    width, height = plan.sheet_size
    return {"width": width, "height": height}


def described_axis(axis: Axis) -> dict[str, Any]:
    """Returns an axis with the labels of its values."""
    return {"name": axis.name, "title": axis.title, "labels": axis.labels, "written": axis.written}


def described_grid(plan: GridPlan) -> dict[str, Any]:
    """Returns the axes, the command, and the settings that decide how long each cell takes."""
    grid: Grid = plan.grid
    return {
        "axes": [described_axis(axis) for axis in grid.axes],
        "prompt": grid.settings.get("prompt", ""),
        "total": len(grid),
        "command": grid.command,
        "cells": [
            {"size": list(size), **_speed(to_json(settings))}
            for settings, size in zip(plan.settings, plan.sizes, strict=True)
        ],
    }


def _speed(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("steps", "solver", "guidance_scale")}


def described_grid_job(job: GridJob) -> dict[str, Any]:
    """Returns a grid that is drawn or has ended."""
    return {
        "id": job.id,
        "created": job.created,
        "state": job.state,
        "error": job.error,
        "stored": job.stored,
        "finished": list(job.finished),
        "warnings": list(job.warnings),
        **described_grid(job.plan),
    }


async def _events(job: GridJob) -> AsyncIterator[bytes]:
    """Yields the events of a grid: those so far, then the next ones until it has ended."""
    sent = 0
    while True:
        state, finished = job.state, list(job.finished)
        for number in finished[sent:]:
            yield server_event("cell", {"cell": number, "total": len(job.plan.grid)})
        sent = len(finished)
        if state != "drawing":
            ended = {"state": state, "error": job.error, "stored": job.stored}
            yield server_event("ended", ended | {"warnings": list(job.warnings)})
            return
        await asyncio.sleep(LOOK)
