"""Neither pictures nor losses depend on the number of devices that compute them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STAND_INS = Path(__file__).parents[1] / "stand_ins"


@pytest.mark.parametrize("task", ["drawing", pytest.param("measuring", marks=pytest.mark.slow)])
def test_eight_devices_compute_the_bytes_of_one(task: str):
    """XLA compiles with its usual optimisations here, as these decide about bytes."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": f"{STAND_INS.parents[1]}:{STAND_INS}",
    }
    command = [sys.executable, str(STAND_INS / "on_eight.py"), task]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
