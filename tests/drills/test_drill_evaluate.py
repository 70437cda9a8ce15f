"""`pinxit evaluate`, killed while it draws: the same command draws only the rest, and its figures
are those of an undisturbed command to the last digit."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from drill_table import record
from killed_evaluate import PROMPTS, await_pieces, pieces, start


@pytest.mark.slow
def test_killed_evaluate_goes_on_with_the_same_figures(tmp_path: Path):
    plain, killed = tmp_path / "plain.json", tmp_path / "killed.json"
    assert start(plain, tmp_path / "one").wait() == 0
    stops = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    for number, sign in enumerate(stops, start=1):
        process = start(killed, tmp_path / "other")
        await_pieces(killed, process, count=2 * number)
        process.send_signal(sign)
        code = process.wait()
        assert code == (-sign if sign == signal.SIGKILL else 128 + sign)
    left = pieces(killed)
    assert 6 <= len(left) < PROMPTS / 64 and not killed.exists()
    log = killed.with_suffix(".log")
    text = log.read_text()
    for name in ("SIGTERM", "SIGINT"):
        assert f"pinxit: stopped by {name}; `pinxit evaluate --prompts {PROMPTS}" in text
    assert text.count("goes on from the pictures that are measured") == 2
    log.unlink()
    assert start(killed, tmp_path / "other").wait() == 0
    assert not pieces(killed)
    one, other = (json.loads(path.read_text()) for path in (plain, killed))
    assert one["values"] == other["values"] and len(one["values"]) > 20
    assert one["protocol"]["sets"] == other["protocol"]["sets"]
    record(
        drill="evaluate",
        fault="SIGKILL, SIGTERM and SIGINT while `pinxit evaluate` draws",
        times=len(stops),
        survived=len(stops),
        evidence=f"{64 * len(left)} of {PROMPTS} pictures were not drawn again; equal figures",
    )
