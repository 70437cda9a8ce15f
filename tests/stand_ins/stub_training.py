"""Behaves like `pinxit train` without any training: writes a run's files step by step, and ends
with a checkpoint's words on SIGTERM. Needs no JAX, so that it starts at once.

    python pinxit train --name NAME --output_dir RUNS --max_steps N ...

The variable STUB_CONFIG is a file with the settings of the recipe.
"""

SCRIPT = r"""
import json, os, signal, socket, sys, time
from pathlib import Path

import psutil

words = sys.argv[2:]
options = {words[i][2:]: words[i + 1] for i in range(0, len(words), 2)}
root = Path(options["output_dir"]) / options["name"]
print("encoding \x1b[1m16,000\x1b[0m images", flush=True)
config = json.loads(Path(os.environ["STUB_CONFIG"]).read_text())
most = int(options.get("max_steps", config["max_steps"]))
if most == 13:
    sys.exit("pinxit: error: thirteen steps are bad luck <b>&</b>")
config |= {"name": options["name"], "output_dir": options["output_dir"], "max_steps": most}
config["seed"] = int(options.get("seed", 0))
root.mkdir(exist_ok=True)
(root / "config.json").write_text(json.dumps(config))
metrics, starts = root / "metrics.jsonl", root / "starts.json"
step = len(metrics.read_text().splitlines()) * 10 if metrics.exists() else 0
entries = json.loads(starts.read_text())["starts"] if starts.exists() else []
process = psutil.Process()
entry = {"step": step, "time": time.time(), "host": socket.gethostname(), "pid": process.pid,
         "created": process.create_time()}

def record(**end):
    text = json.dumps({"starts": [*entries, {**entry, **end}]})
    starts.with_suffix(".new").write_text(text)
    os.replace(starts.with_suffix(".new"), starts)

record()
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
while step < most and not asked:
    step += 10
    line = json.dumps({"step": step, "loss": 100 / step, "seconds_per_step": 0.1}) + "\n"
    with metrics.open("a") as file:
        file.write(line[:9])
        file.flush()
        time.sleep(0.01)
        file.write(line[9:])
    time.sleep(0.05)
status = "stopped" if asked else "finished"
reason = f"SIGTERM after step {step}" if asked else ""
record(end={"status": status, "step": step, "reason": reason, "time": time.time()})
"""


def write_stub(folder) -> str:
    """Writes the script under the name of the real command, and returns its path."""
    path = folder / "pinxit"
    path.write_text(SCRIPT)
    return str(path)
