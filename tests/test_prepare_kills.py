"""`pinxit prepare`, killed at random points of both stages and given again: the set is the same as
that of one uninterrupted command, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))

from coyo_files import write_coyo
from hostile_server import LOOPBACK, HostileServer
from prepared_toys import content

from pinxit.data.manifest import Manifest
from pinxit.data.prepare import read_outcomes

ROOT = Path(__file__).parents[1]
KINDS = ("good", "404", "png", "good", "500", "html", "good", "noai", "redirected", "slow")
ROWS, UNIT = 480, 40
KILLS = 20


def command(table: Path, out: Path) -> list[str]:
    given = [sys.executable, "-m", "pinxit.prepare_cli", "coyo", "--dataset_path", table, "--out"]
    given += [out, "--vae", "tiny", "--image_size", 32, "--unit_rows", UNIT, "--encode_batch", 8]
    given += ["--images.workers", 1, "--workers", 2, "--fetch.allow_networks", LOOPBACK]
    return [str(word) for word in [*given, "--fetch.retries", 0, "--fetch.timeout", 20]]


def compared(root: Path) -> dict[str, object]:
    """The whole set, with each row's end in place of the files that also say it in words; what names
    the folder, or the time, is left out."""
    manifest = Manifest.read(root)
    apart = ("outcomes/", "report", "manifest.json")
    files = {name: data for name, data in content(root).items() if not name.startswith(apart)}
    ends = {
        path.name: [(outcome.key, outcome.status) for outcome in read_outcomes(path)]
        for path in sorted((root / "outcomes").iterdir())
    }
    kept = {name: infos for name, infos in manifest.files.items() if name != "outcomes"}
    told = (manifest.fingerprint(), manifest.counts, manifest.latents, manifest.units, kept)
    return {**files, "ends": ends, "manifest": told}


@pytest.mark.slow
def test_kill_9_at_20_points_of_the_command(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    rng = np.random.default_rng(0)
    with HostileServer(process=True) as server:
        urls = [server.url(KINDS[i % len(KINDS)], i) for i in range(ROWS)]
        table = write_coyo(tmp_path / "part.parquet", ROWS, group=UNIT, url=urls)
        plain, killed = tmp_path / "plain", tmp_path / "killed"

        def run(out: Path, *, seconds: float | None = None, stage: str = "images") -> int | None:
            """The exit code; None if it was killed, so long after the stage had begun."""
            log = (tmp_path / "log").open("ab")
            process = subprocess.Popen(command(table, out), env=environment, stderr=log)
            begun, about = time.monotonic(), out / f"{stage}.json"
            stamp = about.stat().st_mtime_ns if about.is_file() else 0
            while seconds is not None and process.poll() is None:
                now = about.stat().st_mtime_ns if about.is_file() else 0
                if now == stamp:  # the stage has not begun in this command
                    begun = time.monotonic()
                if time.monotonic() - begun >= seconds:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return None
                time.sleep(0.01)
            return process.wait()

        begun = time.monotonic()
        assert run(plain) == 0, (tmp_path / "log").read_text()
        whole = time.monotonic() - begun
        hit = {"images": 0, "latents": 0}
        for number in range(KILLS):
            done = len(list(killed.glob("units/images/*.json"))) == ROWS // UNIT
            stage = "latents" if done else "images"
            # within the fetching of one or two units, then within the encoding of some
            longest = 2 * whole / (ROWS // UNIT) if stage == "images" else whole / 4
            seconds = float(rng.uniform(0, longest))
            if run(killed, seconds=seconds, stage=stage) is None:
                hit[stage] += 1
            elif number < KILLS - 1:  # it came to its end: the rest is taken from another place
                last = sorted((killed / "latents").glob("*"))[number % 3]
                last.unlink()
        assert run(killed) == 0, (tmp_path / "log").read_text()
    assert hit["images"] and hit["latents"] and sum(hit.values()) >= KILLS * 3 // 4, hit
    assert compared(killed) == compared(plain)
    assert not list(killed.rglob("*.partial"))
