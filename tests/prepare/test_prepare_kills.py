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
from coyo_files import write_coyo
from hostile_server import LOOPBACK, HostileServer
from prepared_toys import committed, content

from pinxit.data.prepared.manifest import Manifest
from pinxit.prepare.outcome_files import read_outcomes

ROOT = Path(__file__).parents[2]
KINDS = ("good", "404", "png", "good", "500", "html", "good", "noai", "redirected", "slow")
ROWS, UNIT = 800, 16
KILLS = 20


def command(table: Path, out: Path) -> list[str]:
    given = [sys.executable, "-m", "pinxit", "prepare", "coyo", "--dataset_path", table, "--out"]
    given += [out, "--vae", "tiny", "--image_size", 32, "--unit_rows", UNIT, "--encode_batch", 8]
    given += ["--images.workers", 1, "--workers", 2, "--fetch.allow_networks", LOOPBACK]
    return [str(word) for word in [*given, "--fetch.retries", 0, "--fetch.timeout", 20]]


def compared(root: Path) -> dict[str, object]:
    """The whole set, with each row's end in place of the files that also say it in words."""
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


def commits(root: Path) -> dict[str, int]:
    return {stage: len(committed(root, stage)) for stage in ("images", "latents")}


@pytest.mark.slow
def test_kill_9_at_20_points_of_the_command(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    rng = np.random.default_rng(0)
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    hit = {"images": 0, "latents": 0}
    with HostileServer(process=True) as server, (tmp_path / "log").open("ab") as log:
        urls = [server.url(KINDS[i % len(KINDS)], i) for i in range(ROWS)]
        table = write_coyo(tmp_path / "part.parquet", ROWS, group=UNIT, url=urls)
        assert subprocess.run(command(table, plain), env=environment, stderr=log).returncode == 0
        for number in range(KILLS):
            process = subprocess.Popen(command(table, killed), env=environment, stderr=log)
            # a moment after so many commits of this command, or of its start (every fourth time)
            before = commits(killed)
            wanted = sum(before.values()) + int(rng.integers(1, 6))
            wanted = min(wanted, 2 * ROWS // UNIT)
            end = time.monotonic() + (rng.uniform(0, 20) if number % 4 == 3 else 300)
            while process.poll() is None and time.monotonic() < end:
                if sum(commits(killed).values()) >= wanted:
                    time.sleep(rng.uniform(0, 0.1))
                    break
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                break  # it came to its end before
            # both stages run at once: the one that was encoding has committed since the start
            hit["latents" if commits(killed)["latents"] > before["latents"] else "images"] += 1
        done = subprocess.run(command(table, killed), env=environment, stderr=log)
        assert done.returncode == 0, (tmp_path / "log").read_text()
    assert min(hit.values()) >= 3 and sum(hit.values()) == KILLS, hit
    assert compared(killed) == compared(plain)
    assert not list(killed.rglob("*.partial"))
