"""The end of a run: final grid, evaluation, curves, release and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from pinxit.config import to_json
from pinxit.model_loading import save_release
from pinxit.train.report.curves import draw_curves
from pinxit.train.report.observer import RAW, Observer, losses_in
from pinxit.train.resume_policy import SettingChange, changes_to_json
from pinxit.train.run_folder import write_values
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState

DETAILS = ("dataset", "step", "images", "ema", "accuracy", "probe")
"""The results that the release's config.json contains."""


def finish(
    observer: Observer,
    state: TrainState,
    watch: Callable[[str, Callable[[], Any]], Any],
    *,
    chosen: str,
    values: dict[str, float],
    rows: Sequence[dict[str, Any]],
    seconds: float,
    data: dict[str, Any],
    warnings: Callable[[], list[dict[str, Any]]],
    changes: Sequence[SettingChange],
    send: Callable[[Path], None],
    write_page: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Writes the final grid, curves, release and report of a run, and returns its results.

    `watch` runs what may fail: the grid, the curves and the report. `values` are the evaluators'
    results, and `rows` those of metrics.jsonl. `chosen` is the name of the parameters to release.
    `warnings` returns those of the whole run, `send` sends the grid to trackers, and `write_page`
    writes the report with the results.
    """
    config, folder = observer.config, observer.folder
    names, final = [RAW, *state.ema], folder.samples / "final.png"
    watch("the final sample grid", lambda: observer.sheet(state, final, names))
    if final.is_file():
        send(final)
    watch("drawing the curves", lambda: draw_curves(rows, folder.curves))
    results = _results(config, state, chosen, values, seconds) | {
        "protocol": observer.protocol,
        "data": data,
        "warnings": warnings(),
        **({"changes": changes_to_json(changes)} if changes else {}),
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
    watch("writing the report", lambda: write_page(results))
    results["warnings"] = warnings()
    write_values(folder.results, results)
    return results


def _results(
    config: TrainConfig, state: TrainState, chosen: str, values: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Returns the results that follow from the state, its time and the evaluators' values."""
    step = int(state.step)
    return {
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
    }


def _of(values: Mapping[str, float], *groups: str) -> dict[str, float]:
    """Returns the values of some groups, under their full names."""
    return {name: value for name, value in values.items() if name.partition("/")[0] in groups}
