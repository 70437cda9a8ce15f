"""`pinxit generate`, killed at random moments: every picture that it leaves is whole, and the same
command draws the others, with the bytes of an undisturbed command."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from drill_table import record
from killed_generate import await_pictures, pictures, start

N = 200
"""Number of pictures for each of two prompts."""


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_generate_leaves_whole_pictures_and_goes_on(tmp_path: Path, sign: signal.Signals):
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    assert start(plain, n=N).wait() == 0
    expected = pictures(plain)
    assert len(expected) == 2 * N
    chance, kills, left = random.Random(int(sign)), 0, []
    while len(left) < 10:
        process = start(killed, n=N)
        await_pictures(killed, process, count=len(pictures(killed)) + chance.randint(1, 40))
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(sign)
        ended = process.wait()
        remaining = pictures(killed)
        assert remaining.items() <= expected.items()
        left.append(len(remaining))
        if ended == 0:
            break
        kills += 1
        assert ended == (130 if sign == signal.SIGINT else -sign)
    assert kills >= 5
    assert start(killed, n=N).wait() == 0
    assert pictures(killed) == expected
    record(
        drill="generate",
        fault=f"{sign.name} at a random moment of `pinxit generate`, {2 * N} pictures",
        times=kills,
        survived=kills,
        evidence=f"whole pictures after each: {left}; the same command gave the same {2 * N} files",
    )
