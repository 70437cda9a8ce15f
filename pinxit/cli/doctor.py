"""`pinxit doctor`: examines this machine and a run, and prints problems with their solutions."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pinxit.cli.arguments import parse
from pinxit.config import UsageError, positive
from pinxit.doctor.guard import Check, guarded_check
from pinxit.doctor.report_line import Line
from pinxit.output_paths import check_local

MARKS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `pinxit doctor`."""

    run: tuple[str, ...] = ()
    """A run's folder or its name in output_dir, with or without --run: pinxit doctor scenes."""
    output_dir: str = "runs"
    """The folder that contains the runs."""
    full: bool = False
    """Hash and read every file, whatever its size."""
    machine: bool = True
    """Check the machine; if off, only the run is checked."""
    network: bool = True
    """Check the connections to the Hub and to the DNS resolver; if off, no request is sent."""
    timeout: float = 3.0
    """Seconds to wait for a reply from the network."""
    json: bool = False
    """Print the results as JSON."""

    def __post_init__(self) -> None:
        check_local("output_dir", self.output_dir)

    def folder(self) -> Path | None:
        """Returns the folder of the run to check, or None. Raises `UsageError` if it is missing."""
        if not self.run:
            return None
        if len(self.run) > 1:
            raise UsageError("run", " ".join(self.run), problem="more than one run")
        for path in (Path(self.run[0]), Path(self.output_dir) / self.run[0]):
            if path.is_dir():
                return path
        known = sorted(p.parent.name for p in Path(self.output_dir).glob("*/config.json"))
        valid = ", ".join(known) or f"a folder such as {self.output_dir}/scenes"
        raise UsageError("run", self.run[0], problem="not a folder", valid=valid)


def machine_checks(options: DoctorOptions) -> list[Check]:
    """Returns the checks of the machine, in the order of the report."""
    from pinxit.doctor import machine, network, software

    folder = options.folder()
    directory = folder.parent if folder is not None else Path(options.output_dir)
    checks: list[Check] = [
        software.python,
        software.jax_versions,
        software.requirements,
        machine.devices,
        machine.processors,
        machine.memory,
        partial(machine.disk, directory),
        machine.caches,
        machine.limits,
        machine.huge_pages,
        network.encoders,
    ]
    if options.network:
        checks += [partial(network.hub, options.timeout), partial(network.names, options.timeout)]
    return checks


def examine(options: DoctorOptions) -> Iterator[Line]:
    """Yields all lines of the report in a fixed order. The machine's checks run concurrently."""
    checks = machine_checks(options) if options.machine else []
    with ThreadPoolExecutor(max(1, len(checks))) as pool:
        waiting = [pool.submit(lambda check=check: list(_safely(check))) for check in checks]
        for future in waiting:
            yield from future.result()
    folder = options.folder()
    if folder is not None:
        from pinxit.doctor.run_folder import RunReport

        report = RunReport(folder, full=options.full)
        advice = f"look at the files in {folder}, and report this as a bug"
        yield from guarded_check("run", report.lines, read=folder, advice=advice)


def _safely(check: Check) -> Iterator[Line]:
    """Yields the lines of a check of the machine, and a problem line if it raises."""
    name = getattr(check, "func", check).__name__.replace("_", " ")
    advice = "report this as a bug, with the output of `pinxit doctor --json`"
    return guarded_check(name, check, read=f"the machine's {name}", advice=advice)


def doctor_command(argv: Sequence[str]) -> int:
    """Checks a machine and a run; returns 0 if there is no problem, else 1."""
    options = parse(
        DoctorOptions,
        argv,
        prog="pinxit doctor",
        description="Checks this machine and, if one is named, a run: pinxit doctor, "
        "pinxit doctor scenes. The exit code is 0 if there is no problem.",
        positional="run",
    )
    positive("timeout", options.timeout, minimum=0.01)
    options.folder()
    started, lines = time.perf_counter(), []
    for line in examine(options):
        lines.append(line)
        if not options.json:
            show_lines(line)
    problems, warnings = (
        sum(line.status == kind for line in lines) for kind in ("problem", "warning")
    )
    if options.json:
        counts = {"problems": problems, "warnings": warnings}
        print(json.dumps({**counts, "lines": [line.to_json() for line in lines]}, indent=2))
    else:
        seconds = time.perf_counter() - started
        print(f"{problems} problems, {warnings} warnings ({seconds:.1f} s)", flush=True)
    return 1 if problems else 0


def show_lines(line: Line) -> None:
    """Prints a line, with its advice below it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, soft_wrap=True)
    text = Text()
    text.append(f"{line.status:<8} ", MARKS[line.status])
    text.append(f"{line.name}: {line.message}")
    console.print(text, highlight=False)
    if line.advice:
        console.print(Text(f"         -> {line.advice}"), highlight=False)
