"""Measures how time and memory grow with batches, tokens, depth, devices, rows, units, runs, files.

Each point is a process of its own: CPU time (user and system) of what is measured, without imports
and inputs, and the memory that it adds at most (VmHWM). For training steps, memory is that of one
device by the compiled program. Points of data and of runs are forked from a process that has only
imported what they need. The least of a few repeats counts, since other programs only add.

    python benchmarks/growth.py --results growth.json              all axes, about 40 minutes
    python benchmarks/growth.py --results growth.json --only csv   those whose name contains a word
    python benchmarks/growth.py --results growth.json --write      the table and picture of the docs

The power with which a figure grows is told from its last four sizes, apart from a constant: the
smallest one that fits within their noise. Above 1.1 is more than linear: the last column says why,
or that it is a fault.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from growth_axes import Axis, exponent
from growth_data import DATA
from growth_runs import RUNS
from growth_training import TRAINING
from marked_table import write_table
from PIL import Image

AXES = {axis.name: axis for axis in (*TRAINING, *DATA, *RUNS)}
MODULES = (
    *("numpy.random", "pyarrow.parquet", "pinxit.data.loader", "pinxit.recipes"),
    *("pinxit.data.prepared.prepared_rows", "pinxit.data.sources.catalogue"),
    *("pinxit.prepare.stages", "pinxit.prepare.report", "pinxit.prepare.find_duplicates"),
    *("pinxit.data.images.decode_pool", "pinxit.evaluate.distances.evaluator"),
    *("pinxit.serve.datasets.unit_totals", "pinxit.serve.gallery.folder"),
    *("pinxit.serve.runs.followed_run", "pinxit.serve.runs.run_listing"),
    *("pinxit.train.report.page", "pinxit.train.checkpoint", "matplotlib.figure"),
    "pinxit.train.metric_writers.json_lines",
)
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "growth.md", DOCS / "images" / "growth.webp"
BEGIN, END = "<!-- growth table -->\n", "<!-- end of the growth table -->"
OWN_PROCESS = ("training", "processes")
"""Groups whose points start a process of their own, because JAX cannot be forked."""
LINEAR = 1.1
"""The largest power that counts as linear."""
LEAST_MIB = 1.0
"""Memory below this is not told apart."""
COLUMNS = 5
GREY, BLUE, ORANGE = "#999999", "#2a6fb0", "#d9822b"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("growth.json"), help="the figures")
    parser.add_argument("--only", help="only the axes whose name contains this word")
    parser.add_argument("--most", type=int, help="leave out sizes above this one")
    parser.add_argument("--write", action="store_true", help="write the page's table and picture")
    parser.add_argument("--point", nargs=2, metavar=("AXIS", "SIZE"), help="a training step")
    return parser.parse_args()


# --- one point --------------------------------------------------------------------------------


def status(name: str) -> float:
    """Returns a figure of memory of this process in MiB, such as VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}")


def children_seconds() -> float:
    """Returns the CPU time of the processes that this one has started and waited for."""
    times = os.times()
    return times.children_user + times.children_system


def point(axis: Axis, size: int, folder: Path) -> dict[str, float]:
    """Returns CPU time and peak memory of one size."""
    act = axis.prepare(folder, size)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again at what is in use now
    before, children = status("VmRSS"), children_seconds()
    started = time.process_time()
    extras = act() or {}
    seconds = time.process_time() - started + children_seconds() - children
    peak = status("VmHWM")
    memory = extras.get("device_mib", max(LEAST_MIB, peak - before))
    return {"seconds": seconds, **extras, "mib": memory}


def in_new_process(axis: Axis, size: int) -> dict[str, float]:
    """Returns the figures of a training step, whose process starts with its own settings of XLA."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **axis.environment(size)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, __file__, "--point", axis.name, str(size)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{axis.name} at {size}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def forked(act: Callable[[], Any]) -> Any:
    """Returns what a function returns in a copy of this process."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of its threads, of which none has begun
        process = os.fork()
    if not process:
        code = 1
        try:
            os.write(writer, json.dumps(act()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    if os.waitpid(process, 0)[1]:
        raise SystemExit("a point failed")
    return json.loads(text)


def import_all() -> None:
    """Imports what the axes of data and runs use, so that no point imports it."""
    for name in MODULES:
        importlib.import_module(name)
    Image.init()
    # a full collection in a point would copy the pages of all that is imported here
    gc.collect()
    gc.freeze()


def measured(axis: Axis, size: int) -> dict[str, float]:
    """Returns the least of each figure over the repeats."""
    if axis.group in OWN_PROCESS:
        runs = [in_new_process(axis, size) for _ in range(axis.repeats)]
    else:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            if axis.make is not None:
                forked(partial(axis.make, root, size))
            runs = [forked(partial(point, axis, size, root)) for _ in range(axis.repeats)]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def measure_all(args: argparse.Namespace) -> dict[str, Any]:
    """Measures the axes, and stores the figures after each."""
    results = json.loads(args.results.read_text()) if args.results.is_file() else {}
    import_all()
    for axis in AXES.values():
        if args.only and args.only not in axis.name:
            continue
        sizes = [size for size in axis.values if not args.most or size <= args.most]
        results[axis.name] = {str(size): measured(axis, size) for size in sizes}
        args.results.write_text(json.dumps(results, indent=1))
        for name, words in lines_of(axis, results[axis.name]):
            print(f"{name}: {'; '.join(words)}", flush=True)
    return results


# --- table and picture ------------------------------------------------------------------------


def series_of(axis: Axis, figures: dict[str, Any]) -> Iterator[tuple[str, list[int], dict]]:
    """Yields the name, the sizes and the figures of an axis: of time and memory, and once more of
    compiling if depth grows."""
    sizes = [size for size in axis.values if str(size) in figures]
    points = [figures[str(size)] for size in sizes]
    memory = [each["mib"] for each in points]
    yield axis.name, sizes, {"seconds": [each["seconds"] for each in points], "mib": memory}
    if "depth" in axis.name:
        yield f"{axis.name}: compiling", sizes, {"seconds": [each["compile"] for each in points]}


def power(sizes: list[int], values: list[float], kind: str) -> float | None:
    """Returns the power of growth, or None for figures that do not grow."""
    if len(sizes) < 3:
        return None
    if kind == "seconds":
        return exponent(sizes, values, noise=max(0.001, 0.03 * values[-1]), within=0.05)
    return exponent(sizes, values, noise=max(4.0, 0.01 * values[-1]), within=0.1)


def lines_of(axis: Axis, figures: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yields a row of the table for each series: sizes, time and memory with their powers."""
    for name, sizes, series in series_of(axis, figures):
        words = [f"{sizes[0]:,} to {sizes[-1]:,}"]
        above = False
        for kind in ("seconds", "mib"):
            values = series.get(kind)
            if values is None:
                words += ["", ""]
                continue
            grows = power(sizes, values, kind)
            above |= grows is not None and grows > LINEAR
            unit = "s" if kind == "seconds" else "MiB"
            words += [
                f"{shown(values[0])} to {shown(values[-1])} {unit}",
                "constant" if grows is None else f"{grows:.2f}",
            ]
        words.append((axis.because or "not explained") if above else "")
        yield name, words


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(results: dict[str, Any]) -> list[str]:
    """Returns the table of the page."""
    head = ("what grows", "sizes", "CPU time", "power", "memory", "power", "why more than linear")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for axis in AXES.values():
        for name, words in (
            lines_of(axis, results.get(axis.name, {})) if axis.name in results else ()
        ):
            lines.append(f"| {' | '.join((name, *words))} |")
    return lines


def draw(results: dict[str, Any]) -> None:
    """Draws one panel for each axis: time and memory relative to the smallest size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    axes = [axis for axis in AXES.values() if axis.name in results]
    rows = -(-len(axes) // COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _, sizes, series = next(series_of(axis, results[axis.name]))
        guide = [size / sizes[0] for size in sizes]
        panel.loglog(sizes, guide, color=GREY, linestyle=":", label="linear")
        for kind, colour, label in (("seconds", BLUE, "CPU time"), ("mib", ORANGE, "memory")):
            values = series[kind]
            panel.loglog(
                sizes,
                [v / values[0] for v in values],
                "o-",
                color=colour,
                markersize=3,
                label=label,
            )
        panel.set_title(axis.name, fontsize=9)
        panel.tick_params(labelsize=7)
        for axis in (panel.xaxis, panel.yaxis):  # labels of all digits would run into one another
            axis.set_major_locator(LogLocator(base=4, numticks=5))
            axis.set_major_formatter(lambda x, _: f"{x:g}" if x < 1000 else f"{x / 1000:,.0f}k")
            axis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.25)
    for panel in panels[len(axes) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize=7)
    figure.supylabel("times the figure at the smallest size", fontsize=9)
    figure.savefig(PICTURE, dpi=100, format="webp", pil_kwargs={"quality": 85})


def main() -> None:
    args = arguments()
    if args.point:
        print(json.dumps(point(AXES[args.point[0]], int(args.point[1]), Path())))
        return
    if not args.write:
        measure_all(args)
        return
    results = json.loads(args.results.read_text())
    write_table(PAGE, BEGIN, END, table(results))
    draw(results)


if __name__ == "__main__":
    main()
