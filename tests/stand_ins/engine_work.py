"""Work for the engines' tests; workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(unit: int) -> int:
    return unit * unit


class Together:
    """Gives the process, once two of them are at work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, unit: int) -> int:
        (self.folder / str(os.getpid())).touch()
        end = time.monotonic() + 60
        while len(list(self.folder.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        return os.getpid()


def picky(unit: int) -> int:
    """Fails at 3, at 4 without words, and interrupts nothing."""
    if unit == 3:
        raise ValueError("three is\nnot liked")
    if unit == 4:
        raise OSError
    return unit


class Mortal:
    """Kills its own process at the units of `deadly`, as often as `times` says."""

    def __init__(self, folder: Path, deadly: tuple[int, ...], times: int) -> None:
        self.folder, self.deadly, self.times = folder, deadly, times

    def __call__(self, unit: int) -> int:
        if unit in self.deadly:
            deaths = len(list(self.folder.glob(f"death-{unit}-*")))
            if deaths < self.times:
                (self.folder / f"death-{unit}-{deaths}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return unit


class Sleeper:
    """Never ends at unit 1."""

    def __call__(self, unit: int) -> int:
        time.sleep(600 if unit == 1 else 0)
        return unit


class Closing:
    """Notes what it did and that it was closed."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def note(self, word: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{word}\n")

    def __call__(self, unit: int) -> int:
        self.note("unit")
        return unit

    def close(self) -> None:
        self.note("closed")


def orphan(folder: str) -> None:
    """Starts a map whose workers write their process ids, and never ends."""
    from pinxit.prepare.engines.local import LocalEngine

    for _ in LocalEngine().map(Endless(Path(folder)), [0, 1], workers=2):
        pass


class Endless:
    """Writes its process id, and sleeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, unit: int) -> None:
        (self.folder / f"pid-{os.getpid()}").touch()
        time.sleep(600)


class Stragglers:
    """Is drained at once; a unit of `waits` ends only after the units that it names have ended.

    Writes a file for the beginning and the end of each unit.
    """

    def __init__(self, folder: Path, waits: dict[int, tuple[int, ...]], open_units: int) -> None:
        self.folder, self.waits, self.open_units = folder, waits, open_units

    def note(self, word: str, unit: int) -> None:
        (self.folder / f"{word}-{unit}").write_text(str(os.getpid()))

    def ended(self, unit: int) -> bool:
        return (self.folder / f"ended-{unit}").exists()

    def __call__(self, unit: int, drained) -> int:
        self.note("begun", unit)
        drained()
        end = time.monotonic() + 60
        while not all(self.ended(other) for other in self.waits.get(unit, ())):
            if time.monotonic() > end:
                raise TimeoutError(f"unit {unit} waited in vain")
            time.sleep(0.01)
        self.note("ended", unit)
        return os.getpid()


class MortalStragglers(Stragglers):
    """Kills its process at unit 0, once the other units of its process have begun."""

    def __call__(self, unit: int, drained) -> int:
        (self.folder / f"try-{unit}-{time.monotonic_ns()}").touch()
        drained()
        tries = [len(list(self.folder.glob(f"try-{other}-*"))) for other in range(3)]
        if unit == 0 and (tries[0] > 1 or self.begun(1, 2)):
            os.kill(os.getpid(), signal.SIGKILL)
        if tries[unit] == 1:
            time.sleep(60)
        return unit

    def begun(self, *units: int) -> bool:
        """Waits until units have begun."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if all(list(self.folder.glob(f"try-{unit}-*")) for unit in units):
                return True
            time.sleep(0.01)
        return False


class Ordered:
    """Fails if a unit begins before another one of its process is drained."""

    open_units = 3

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reading = 0
        self.most = 0

    def __call__(self, unit: int, drained) -> int:
        self.reading += 1
        assert self.reading == 1
        time.sleep(0.01)
        self.reading -= 1
        drained()
        time.sleep(0.05)
        if unit == 2:
            raise ValueError("two")
        return unit
