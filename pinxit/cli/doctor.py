"""The command: options, the order of the checks, and how they are shown."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pinxit.cli.arguments import parse
from pinxit.config import UsageError, positive
from pinxit.doctor.report_line import Line

MARKS = {"ok": "green", "warning": "yellow", "problem": "bold red"}

Check = Callable[[], Iterable[Line]]


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `pinxit doctor`."""

    run: tuple[str, ...] = ()
    """A run's folder, or its name in output_dir; also as a plain word: pinxit doctor scenes."""
    output_dir: str = "runs"
    """Where runs are written."""
    full: bool = False
    """Hash and read everything, whatever its size."""
    machine: bool = True
    """Look at the machine; off: at the run alone."""
    network: bool = True
    """Ask the hub and the resolver; off: nothing leaves this machine."""
    timeout: float = 3.0
    """Seconds to wait for an answer from the network."""
    json: bool = False
    """Print JSON."""

    def folder(self) -> Path | None:
        """The run that is looked at."""
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
    """What is looked at on a machine, in the order of the report."""
    from pinxit.doctor import machine, network, software

    folder = options.folder()
    where = folder.parent if folder is not None else Path(options.output_dir)
    checks: list[Check] = [
        software.python,
        software.jax_versions,
        software.requirements,
        machine.devices,
        machine.processors,
        machine.memory,
        partial(machine.disk, where),
        machine.caches,
        machine.limits,
        machine.huge_pages,
        network.encoders,
    ]
    if options.network:
        checks += [partial(network.hub, options.timeout), partial(network.names, options.timeout)]
    return checks


def examine(options: DoctorOptions) -> Iterator[Line]:
    """All lines; the machine's checks run side by side, and are told in their order."""
    checks = machine_checks(options) if options.machine else []
    with ThreadPoolExecutor(max(1, len(checks))) as pool:
        waiting = [pool.submit(lambda check=check: list(check())) for check in checks]
        for future in waiting:
            yield from future.result()
    folder = options.folder()
    if folder is not None:
        from pinxit.doctor.run_folder import RunReport

        yield from RunReport(folder, full=options.full).lines()


def doctor_command(argv: Sequence[str]) -> int:
    """Looks at a machine and a run; 0 where there is no problem, else 1."""
    options = parse(
        DoctorOptions,
        argv,
        prog="pinxit doctor",
        description="Looks at this machine, and at a run: pinxit doctor, pinxit doctor scenes. "
        "Ends with 0 where there is no problem.",
        positional="run",
    )
    positive("timeout", options.timeout, minimum=0.01)
    options.folder()
    begun, lines = time.perf_counter(), []
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
        seconds = time.perf_counter() - begun
        print(f"{problems} problems, {warnings} warnings ({seconds:.1f} s)", flush=True)
    return 1 if problems else 0


def show_lines(line: Line) -> None:
    """Prints a line, and what to do below it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, soft_wrap=True)
    text = Text()
    text.append(f"{line.status:<8} ", MARKS[line.status])
    text.append(f"{line.name}: {line.message}")
    console.print(text, highlight=False)
    if line.advice:
        console.print(Text(f"         -> {line.advice}"), highlight=False)
