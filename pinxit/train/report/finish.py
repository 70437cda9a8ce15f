"""The end of a run: final grid, evaluation, curves, release and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from pinxit.config import to_json
from pinxit.pipeline import save_release
from pinxit.train.metric_writers import read_rows
from pinxit.train.report.curves import draw_curves
from pinxit.train.report.observer import RAW, Observer, losses_in
from pinxit.train.report.page import write_run_report
from pinxit.train.run_folder import environment, write_values
from pinxit.train.state import TrainState

DETAILS = ("dataset", "step", "images", "ema", "accuracy", "probe")
"""The results that the release's config.json contains."""


def finish(
    observer: Observer,
    state: TrainState,
    *,
    chosen: str,
    values: dict[str, float],
    command: Sequence[str],
    seconds: float,
    data: dict[str, Any],
    warnings: list[dict[str, Any]],
) -> dict[str, Any]:
    """Writes the final grid, curves, release and report of a run, and returns its results.

    `values` are the evaluators' results. `chosen` is the name of the parameters to release.
    """
    config, folder = observer.config, observer.folder
    names = [RAW, *state.ema]
    observer.sheet(state, folder.samples / "final.png", names)
    draw_curves(read_rows(folder.metrics), folder.curves)
    step = int(state.step)
    results = {
        "status": "finished",
        "step": step,
        "images": step * config.batch_size,
        "train_seconds": round(seconds, 1),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "skipped": int(state.skipped),
        "ema": chosen,
        "dataset": config.dataset_name,
        "validation": losses_in(values),
        "accuracy": _of(values, "prompts"),
        "probe": _of(values, "conditioning", "latents"),
        "evaluation": values,
        "data": data,
        "warnings": warnings,
    }
    save_release(
        folder.model,
        observer.model(observer.candidates(state)[chosen]),
        text_encoder=config.text_encoder,
        vae=config.autoencoder,
        caption_cleaning=config.caption_cleaning,
        text_max_tokens=config.text_max_tokens,
        objective=to_json(config)["objective"],
        details={name: results[name] for name in DETAILS},
    )
    write_run_report(
        folder.report,
        name=config.name,
        results=results,
        config=to_json(config),
        environment=environment(),
        command=command,
        pictures={
            "Fixed prompts, all averages": folder.samples / "final.png",
            "Curves": folder.curves,
        },
    )
    write_values(folder.results, results)
    return results


def _of(values: Mapping[str, float], *groups: str) -> dict[str, float]:
    """Returns the values of some groups, under their full names."""
    return {name: value for name, value in values.items() if name.partition("/")[0] in groups}
