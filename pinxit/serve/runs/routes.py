"""Routes of training runs: their list, their data, their events, and starting and stopping them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt, StrictStr

from pinxit.config import UsageError
from pinxit.serve.errors import RefusedRequest
from pinxit.serve.runs.followed_run import FollowedRun
from pinxit.serve.runs.run_listing import NoSuchRun, RunListing
from pinxit.serve.runs.start_settings import FIELDS, default_settings, new_run, resumed_run
from pinxit.serve.runs.trainings import Busy, Trainings
from pinxit.serve.server_events import CONTENT, events_response
from pinxit.serve.studio import Studio
from pinxit.train.report.run_samples import grid_file

MOST_FOLLOWED = 24
"""Number of runs whose rows stay in memory."""
Name = Annotated[str, Path(max_length=255)]
Number = StrictInt | StrictFloat


class StartRequest(BaseModel):
    """A request to start a run of scenes."""

    model_config = ConfigDict(extra="forbid")
    name: StrictStr
    settings: dict[StrictStr, Number] = {}


class ResumeRequest(BaseModel):
    """A request to resume a run, with more steps if they are given."""

    model_config = ConfigDict(extra="forbid")
    steps: StrictInt | None = None


@dataclass
class Runs:
    """The runs of a studio: the list, those that are followed, and those that it trains."""

    listing: RunListing
    trainings: Trainings
    _followed: OrderedDict[str, FollowedRun] = field(default_factory=OrderedDict)

    def folder(self, name: str) -> Any:
        """Returns the folder of a run, or answers 404."""
        try:
            return self.listing.find(name)
        except NoSuchRun as error:
            raise RefusedRequest(404, str(error), param="name") from error

    def followed(self, name: str) -> FollowedRun:
        """Returns the reader of a run, which all listeners share."""
        folder = self.folder(name)
        run = self._followed.pop(name, None)
        if run is None:
            log = lambda: self.trainings.log(folder.root)  # noqa: E731
            run = FollowedRun(folder, self.listing.state, log)
        self._followed[name] = run
        while len(self._followed) > MOST_FOLLOWED:
            self._followed.popitem(last=False)
        return run

    def active(self) -> int:
        """Returns the number of runs that train on this machine."""
        folders = self.listing.folders()
        return sum(self.trainings.process(folder.root) is not None for folder in folders)

    def start(self, name: str, words: list[str]) -> None:
        """Starts or resumes a run, or answers 409 if too many train."""
        try:
            self.trainings.start(name, words, self.active())
        except Busy as error:
            raise RefusedRequest(409, str(error), code="busy") from error


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes of runs."""
    trainings = Trainings(studio.runs, studio.config.max_trainings)
    runs = app.state.runs = Runs(RunListing(studio.runs, trainings), trainings)
    _add_reading(app, runs)
    _add_training(app, runs)


def _add_reading(app: FastAPI, runs: Runs) -> None:
    """Adds the routes that change nothing."""

    @app.get("/studio/runs", tags=["runs"])
    def list_runs() -> dict[str, Any]:
        """Returns the runs in the folder, with what a new one may be given."""
        limits = {name: {"min": low, "max": high} for name, (_, _, low, high) in FIELDS.items()}
        return {
            "runs": runs.listing.summaries(),
            "defaults": default_settings(),
            "limits": limits,
            "max_trainings": runs.trainings.most,
        }

    @app.get("/studio/runs/{name}", tags=["runs"])
    def read_run(name: Name) -> dict[str, Any]:
        """Returns everything that the page of a run shows."""
        return runs.followed(name).view()

    @app.get("/studio/runs/{name}/curves", tags=["runs"])
    def read_curves(
        name: Name,
        start: Annotated[int, Query(ge=0, le=2**53)] = 0,
        end: Annotated[int, Query(ge=0, le=2**53)] = 2**53,
    ) -> dict[str, Any]:
        """Returns the curves of a run between two steps."""
        return runs.followed(name).curves(start, end)

    @app.get("/studio/runs/{name}/samples/{file}", tags=["runs"], response_class=FileResponse)
    def read_sample(name: Name, file: Name) -> FileResponse:
        """Returns a sample grid of a run."""
        path = grid_file(runs.folder(name), file)
        if path is not None:
            headers = {"Cache-Control": "no-cache"}
            return FileResponse(path, media_type="image/png", headers=headers)
        raise RefusedRequest(404, "there is no such sample grid", param="file")

    @app.get(
        "/studio/runs/{name}/events",
        tags=["runs"],
        response_class=StreamingResponse,
        responses={200: {"content": CONTENT}},
    )
    async def follow_run(
        request: Request, name: Name, after: Annotated[str, Query(max_length=64)] = ""
    ) -> StreamingResponse:
        """Returns server-sent events: rows, samples and state of a run after a position."""
        position = request.headers.get("last-event-id") or after
        return events_response(runs.followed(name).events(position))


def _add_training(app: FastAPI, runs: Runs) -> None:
    """Adds the routes that start and stop trainings."""

    @app.post("/studio/runs", status_code=201, tags=["runs"])
    def start_run(body: StartRequest) -> dict[str, Any]:
        """Starts a run of scenes in a process of its own."""
        config, words = new_run(runs.listing.root, body.name, body.settings)
        runs.start(config.name, words)
        return {"name": config.name, "command": ["pinxit", "train", *words]}

    @app.post("/studio/runs/{name}/stop", tags=["runs"])
    def stop_run(name: Name) -> dict[str, Any]:
        """Asks a run to write a checkpoint and end."""
        return {"name": name, "asked": runs.trainings.stop(runs.folder(name).root)}

    @app.post("/studio/runs/{name}/resume", tags=["runs"])
    def resume_run(name: Name, body: ResumeRequest | None = None) -> dict[str, Any]:
        """Resumes a run with the same command, and with more steps if they are given."""
        folder = runs.folder(name)
        steps = body.steps if body is not None else None
        if folder.config.is_file():
            config, words = resumed_run(runs.listing.root, name, steps)
        else:
            raise UsageError("name", name, problem="without settings to resume", valid="a new run")
        runs.start(config.name, words)
        return {"name": config.name, "command": ["pinxit", "train", *words]}
