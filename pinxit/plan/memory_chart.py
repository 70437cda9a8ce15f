"""Draws a plan's memory by part against the batch size, with the limit of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pinxit.files import whole
from pinxit.plan.plan import Plan
from pinxit.plan.targets import GIB

COLOURS = {
    "parameters": "#33658a",
    "optimiser": "#4f8fb8",
    "ema": "#86bbd8",
    "encoders": "#758e4f",
    "encoders beside the step": "#94b06b",
    "autoencoder of the stream": "#d0dfb5",
    "inputs": "#b5c99a",
    "gradients, activations, temporaries": "#f6ae2d",
}
"""Colours of the parts."""
LINES = {"none": "#d1495b", "dots": "#7b2cbf", "full": "#222222", "offload": "#118ab2"}
"""Line colours of the rematerialisation policies."""
TITLES = {"ema": "averages (EMA)", "inputs": "batches"}


def draw(plan: Plan, path: Path) -> Path:
    """Writes the picture (PNG, SVG or PDF by its suffix) and returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    remat = plan.config.model.remat
    sizes = curve(plan, remat)
    figure, axes = plt.subplots(figsize=(8.5, 5), dpi=150)
    batches = sorted(sizes)
    _stack(axes, batches, sizes)
    top = plan.memory.limit / GIB
    axes.axhline(top, color="#c1121f", linestyle="--", linewidth=1.6)
    axes.text(
        0.99, top * 1.01, f"{top:.1f} GiB: usable by a program on a {plan.target.chip.title}",
        transform=axes.get_yaxis_transform(), ha="right", va="bottom", color="#c1121f", fontsize=9,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip
    for one in plan.largest:
        peaks = {batch: float(peak) for batch, peak in one.tried.items()}
        if one.remat == remat:
            peaks[plan.config.batch_size] = float(plan.memory.peak)
        known = sorted(peaks)
        colour = LINES.get(one.remat, "#555555")
        dense = _between(known)
        axes.plot(dense, _interpolated(dense, peaks), color=colour, linewidth=1.4)
        label = f"peak, remat {one.remat} (largest {one.batch or 'none'})"
        heights = [peaks[batch] / GIB for batch in known]
        axes.plot(known, heights, "o", color=colour, markersize=4, label=label)
    axes.plot(
        [plan.config.batch_size], [plan.memory.peak / GIB], marker="*", markersize=15,
        color="#ffffff", markeredgecolor="#111111", linestyle="none",
        label=f"this plan: batch {plan.config.batch_size}, remat {remat}",
    )  # fmt: skip
    last = max([*batches, *(batch for one in plan.largest for batch in one.tried)])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(min(batches) / 1.5 ** (len(batches) == 1), last * 1.5 ** (len(batches) == 1))
    axes.set_ylim(0, top * 1.35)
    axes.set_xlabel("batch size, all devices together")
    axes.set_ylabel("peak memory of each device, GiB")
    size = f"{plan.config.image_size} x {plan.config.image_size}"
    kind = "latents" if plan.config.model.use_stable_vae else "pixels"
    axes.set_title(
        f"{plan.config.model.preset}, {size} {kind}, on {plan.target.name} "
        f"(areas: remat {remat})", fontsize=11,
    )  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize=8, loc="center left",
                bbox_to_anchor=(1.01, 0.5), frameon=False)  # fmt: skip
    with whole(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight", format=path.suffix[1:] or None)
    plt.close(figure)
    return path


def _stack(axes: Any, batches: list[int], sizes: dict[int, dict[str, int]]) -> None:
    """Draws stacked areas between the compiled batches, or a bar if there is only one."""
    names = list(sizes[batches[0]])
    bottom = 0.0
    if len(batches) == 1:
        for name in names:
            height = sizes[batches[0]][name] / GIB
            label, width = TITLES.get(name, name), batches[0] * 0.4
            axes.bar(batches, [height], width, bottom, color=COLOURS[name], label=label)
            bottom += height
        return
    dense = _between(batches)
    layers = [
        _interpolated(dense, {batch: float(sizes[batch][name]) for batch in batches})
        for name in names
    ]
    labels = [TITLES.get(name, name) for name in names]
    colours = [COLOURS[name] for name in names]
    axes.stackplot(dense, *layers, labels=labels, colors=colours, alpha=0.9, linewidth=0)


def _between(batches: list[int]) -> np.ndarray:
    """Returns many batches from first to last, so that lines are drawn right on a log axis."""
    return np.geomspace(batches[0], batches[-1], 200)


def _interpolated(dense: np.ndarray, sizes: dict[int, float]) -> np.ndarray:
    """Returns the GiB at the batches `dense`, interpolated linearly between those in `sizes`."""
    known = sorted(sizes)
    return np.interp(dense, known, [sizes[batch] / GIB for batch in known])


def curve(plan: Plan, remat: str) -> dict[int, dict[str, int]]:
    """Returns the memory by part of each batch that was compiled with the policy `remat`.

    The plan's own batch is always among them.
    """
    fixed = dict(plan.memory.parts)
    rest = "gradients, activations, temporaries"
    inputs = fixed["inputs"] / plan.config.batch_size
    peaks = {plan.config.batch_size: plan.memory.peak}
    peaks |= {b: p for one in plan.largest if one.remat == remat for b, p in one.tried.items()}
    memory = {}
    for batch, peak in peaks.items():
        parts = fixed | {"inputs": int(inputs * batch)}
        others = sum(size for name, size in parts.items() if name != rest)
        memory[batch] = parts | {rest: max(0, peak - others)}
    return memory
