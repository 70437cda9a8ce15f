"""Computes a plan and describes it for the page."""

from __future__ import annotations

import dataclasses
from typing import Any

from pinxit.plan.compile_cache import OnProgress
from pinxit.plan.memory_chart import TITLES, curve
from pinxit.plan.plan import Plan, make_plan
from pinxit.plan.terminal_report import computed, notes
from pinxit.serve.plans.settings import PlanRequest


def _quiet(what: str, seconds: float) -> None:
    """Ignores progress."""


def compute_plan(
    request: PlanRequest, on_progress: OnProgress = _quiet, *, only_cached: bool = False
) -> dict[str, Any]:
    """Returns a plan as plain values.

    Raises `UsageError`, and with `only_cached`, `NotCached` if it has to be computed.
    """
    plan = make_plan(
        request.config(),
        request.target,
        recipe=request.recipe,
        policies=request.policies,
        price=request.price,
        on_progress=on_progress,
        only_cached=only_cached,
    )
    return described_plan(plan, request)


def described_plan(plan: Plan, request: PlanRequest) -> dict[str, Any]:
    """Returns a plan with what the page shows besides its figures: sentences, curves, commands."""
    config, remat = plan.config, plan.config.model.remat
    peaks = {one.remat: {str(b): peak for b, peak in one.tried.items()} for one in plan.largest}
    peaks.setdefault(remat, {})[str(config.batch_size)] = plan.memory.peak
    areas = {str(batch): parts for batch, parts in sorted(curve(plan, remat).items())}
    return {
        **plan.to_json(),
        "verdict": plan.verdict(),
        "fits": plan.memory.fits,
        "preset": config.model.preset,
        "image_size": config.image_size,
        "on_pixels": not config.model.use_stable_vae,
        "max_steps": config.max_steps,
        "computed": computed(config),
        "titles": TITLES,
        "areas": areas,
        "peaks": peaks,
        "largest": [
            {
                "remat": one.remat,
                "batch": one.batch,
                "peak": one.memory.peak if one.memory else None,
                "images_per_second": plan.rate(one),
            }
            for one in plan.largest
        ],
        "prepared_time": dataclasses.asdict(plan.prepared_time) if plan.prepared_time else None,
        "notes": notes(plan),
        "plan_command": request.plan_command(),
        "train_command": request.train_command(),
        "cached": plan.compiled.cached,
    }
