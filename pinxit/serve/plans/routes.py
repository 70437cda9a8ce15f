"""The routes below ``/studio/plans``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from pinxit.config import UsageError
from pinxit.plan.compile_cache import CompilerFailed, NotCached
from pinxit.serve.plans.choices import plan_choices
from pinxit.serve.plans.queue import PlanQueue, QueueIsFull, described_error
from pinxit.serve.plans.result import compute_plan
from pinxit.serve.plans.settings import PlanRequest, plan_request
from pinxit.serve.studio import Studio

router = APIRouter(prefix="/studio/plans", tags=["plans"])

Short = Annotated[str, Field(max_length=200)]
Setting = bool | int | float | Short | list[int | float] | None


class PlanBody(BaseModel):
    """A request for a plan."""

    model_config = ConfigDict(extra="forbid")

    recipe: Short = "scenes"
    """The name of a recipe."""
    target: Short = "here"
    """The machine to plan for."""
    settings: Annotated[dict[Short, Setting], Field(max_length=60)] = Field(default_factory=dict)
    """Settings that differ from the recipe, by their dotted names."""
    policies: Annotated[list[Short], Field(max_length=8)] = Field(default_factory=list)
    """The rematerialisation policies whose largest batch is searched."""
    price: Annotated[float | None, Field(ge=0, le=1e9, allow_inf_nan=False)] = None
    """The price of one device for an hour."""
    compute: bool = True
    """Whether to compute the plan if it is not in the cache."""


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes of plans."""
    queue = PlanQueue(compute_plan)
    app.state.plans = queue
    studio.at_end(queue.close)
    app.include_router(router)


def queue_of(request: Request) -> PlanQueue:
    """Returns the queue of the app."""
    return request.app.state.plans


@router.get("/choices")
def list_choices() -> dict[str, Any]:
    """Returns the recipes, machines, policies and presets to choose from."""
    return plan_choices()


@router.get("")
def list_plans(request: Request) -> dict[str, Any]:
    """Returns the plans that were asked for since the server started, without their results."""
    return {"plans": queue_of(request).all_described()}


@router.post("")
def request_plan(request: Request, body: PlanBody) -> dict[str, Any]:
    """Returns a plan from the cache, or the job that computes it."""
    plan = plan_request(
        body.recipe, body.target, body.settings, policies=body.policies, price=body.price
    )
    commands = {"plan_command": plan.plan_command(), "train_command": plan.train_command()}
    try:
        result = compute_plan(plan, only_cached=True)
        return {**_answer(plan, "done"), "result": result, **commands}
    except NotCached:
        if not body.compute:
            return {**_answer(plan, "absent"), **commands}
    except (UsageError, CompilerFailed) as error:
        return {**_answer(plan, "failed"), "error": described_error(error), **commands}
    try:
        job = queue_of(request).submit(plan)
    except QueueIsFull as error:
        raise HTTPException(429, str(error), headers={"Retry-After": "30"}) from error
    return {**queue_of(request).described(job.id), **commands}


@router.get("/{id}")
def show_plan_job(request: Request, id: str) -> dict[str, Any]:
    """Returns a plan that was asked for: its progress, its result, or its error."""
    try:
        return queue_of(request).described(id)
    except KeyError as error:
        raise HTTPException(404, "there is no such plan") from error


@router.delete("/{id}")
def cancel_plan(request: Request, id: str) -> dict[str, Any]:
    """Cancels a plan. Its compiler ends at once."""
    try:
        queue_of(request).cancel(id)
        return queue_of(request).described(id)
    except KeyError as error:
        raise HTTPException(404, "there is no such plan") from error


def _answer(plan: PlanRequest, state: str) -> dict[str, Any]:
    """Returns the answer to a request that needs no job."""
    return {
        "id": None,
        "state": state,
        "recipe": plan.recipe,
        "target": plan.target,
        "result": None,
        "error": None,
    }
