"""What follows the last step of a run: final grid, accuracy, curves, release and report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from pinxit.config import to_json
from pinxit.pipeline import save_release
from pinxit.train.metric_writers import read_rows
from pinxit.train.report.curves import draw_curves
from pinxit.train.report.observer import RAW, Observer
from pinxit.train.report.page import write_run_report
from pinxit.train.run_folder import environment, write_values
from pinxit.train.state import TrainState


def best(losses: dict[str, float], state: TrainState) -> str:
    """Which parameters to keep: of lowest validation loss; unmeasured, the middle average."""
    if losses:
        return min(losses, key=lambda name: losses[name])
    names = sorted(state.ema)
    return names[len(names) // 2] if names else RAW


def finish(
    observer: Observer,
    state: TrainState,
    *,
    chosen: str,
    validation: dict[str, float],
    command: Sequence[str],
    seconds: float,
    data: dict[str, Any],
    noticed: dict[str, Any],
) -> dict[str, Any]:
    """All that follows the last step: grid, accuracy, curves, release, report; the results."""
    config, folder = observer.config, observer.folder
    params = observer.candidates(state)[chosen]
    names = [RAW, *state.ema]
    observer.sheet(state, folder.samples / "final.png", names)
    accuracy = observer.accuracy(params)
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
        "validation": validation,
        "accuracy": accuracy,
        "data": data,
        **noticed,
    }
    save_release(
        folder.model,
        observer.model(params),
        text_encoder=config.text_encoder,
        vae=config.vae if config.model.use_stable_vae else "none",
        caption_cleaning=config.caption_cleaning,
        text_max_tokens=config.text_max_tokens,
        details={name: results[name] for name in ("step", "images", "ema", "accuracy", "probe")},
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
