"""Pictures do not depend on the number of devices that draw them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STAND_INS = Path(__file__).parents[1] / "stand_ins"


def test_eight_devices_draw_the_bytes_of_one():
    """XLA compiles with its usual optimisations here, as these decide about bytes."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": f"{STAND_INS.parents[1]}:{STAND_INS}",
    }
    command = [sys.executable, str(STAND_INS / "on_eight.py"), "drawing"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
