#!/usr/bin/env python3
"""Takes the place of the compiler's process in the tests of plans: quick, and told what to do.

It waits while its cache folder holds a file called ``hold``, fails if there is one called ``fail``,
and says in ``started`` that it has begun. The memory grows with the batch.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GIB = 2**30
EACH = 120 * 2**20
"""The bytes of one sample."""


def result_of(job: dict[str, Any]) -> dict[str, Any]:
    """The result of a job, as the real compiler's process writes it."""
    config, target = job["config"], job["target"]
    batch, remat = config["batch_size"], config["model"]["remat"]
    share = {"dots": 0.6, "full": 0.3}.get(remat, 1.0)
    parts = {"parameters": GIB, "optimiser": 2 * GIB, "ema": GIB // 2, "inputs": batch * 2**20}
    peak = sum(parts.values()) + int(share * batch * EACH)
    cycles = {"by_part": {"forward": 2e8, "backward": 4e8}, "collective_bytes": {"all-reduce": 1e8}}
    return {
        "devices": 1 if target == "here" else 8,
        "device": "cpu cpu" if target == "here" else "tpu TPU v3",
        "device_memory": 16 * GIB,
        "mesh": {"data": 1 if target == "here" else 8, "fsdp": 1, "tensor": 1},
        "dtype": "float32",
        "bytes_by_part": parts,
        "unread_bytes": 0,
        "parameters": 12_345_678,
        "flops": 1e12,
        "flops_run": {"float32": 1e12},
        "stored_width": 0,
        "latent": [8, 8, 4],
        "chosen": {"settings": {"model.remat": "none"} if remat == "auto" else {}},
        "jax": "0",
        "fits": True,
        "memory": {"peak": peak},
        "compile_seconds": 1.0,
        "program": "",
        **({} if target == "here" else {"cycles": {**cycles, "unresolved": []}}),
    }


def install(patch: Any, folder: Path) -> Path:
    """Makes the planner use this file as its compiler, with a cache and compilers in `folder`.

    Only the compiler for TPUs counts as installed. Returns the cache folder.
    """
    from pinxit.plan import compile_cache

    script = folder / "compiler.py"
    text = Path(__file__).read_text().replace("#!/usr/bin/env python3", f"#!{sys.executable}", 1)
    script.write_text(text)
    script.chmod(0o755)
    (folder / "compilers" / "tpu" / "libtpu").mkdir(parents=True)
    (folder / "plans").mkdir()
    patch.setenv("PINXIT_COMPILERS", str(folder / "compilers"))
    patch.setenv("PINXIT_PLANS", str(folder / "plans"))
    fake = SimpleNamespace(executable=str(script), path=sys.path)
    patch.setattr(compile_cache, "sys", fake)
    return folder / "plans"


def clear(plans: Path) -> None:
    """Empties the cache."""
    shutil.rmtree(plans)
    plans.mkdir()


def main(job: Path, result: Path) -> int:
    folder = result.parent
    (folder / "started").write_text(str(os.getpid()))
    while (folder / "hold").exists():
        time.sleep(0.02)
    if (folder / "fail").exists():
        print("mistake: " + (folder / "fail").read_text(), file=sys.stderr)
        return 2
    result.write_text(json.dumps(result_of(json.loads(job.read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[-2]), Path(sys.argv[-1])))
