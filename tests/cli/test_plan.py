"""The command: what it says, as text, JSON and picture; wrong inputs; the devices that are here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pinxit.cli.main import main
from pinxit.devices import hardware
from pinxit.plan import plan as planning
from pinxit.plan.compile_cache import Compiled
from pinxit.plan.targets import GIB
from pinxit.recipes import coyo_256
from pinxit.train.settings import TrainConfig

SLOPES = {"none": 0.05, "dots": 0.02, "full": 0.003}


def invented(config: TrainConfig, target: str, **_: Any) -> Compiled:
    """What a compiler might say."""
    batch, remat = config.batch_size, config.model.remat or "none"
    peak = int((2 + SLOPES[remat] * batch) * GIB)
    result: dict[str, Any] = {
        "devices": 8,
        "device": "tpu TPU v3",
        "mesh": {"data": 1, "fsdp": 8, "tensor": 1},
        "dtype": "bfloat16",
        "parameters": 559_000_000,
        "flops": 3e11 * batch,
        "flops_run": {"bfloat16": 4e11 * batch},
        "compile_seconds": 1.0,
        "stored_width": 0,
        "latent": [32, 32, 4],
        "program": "x.hlo.gz",
        "bytes_by_part": {
            "parameters": 300 << 20,
            "optimiser": 600 << 20,
            "ema": 600 << 20,
            "encoders": 100 << 20,
            "encoders beside the step": 50 << 20,
            "inputs": batch << 12,
        },
        "unread_bytes": 0,
    }
    if peak > 15.48 * GIB:
        result |= {"fits": False, "needed": peak, "available": int(15.48 * GIB)}
    else:
        cycles = {"forward": 1e6 * batch, "backward": 2e6 * batch}
        arguments = sum(result["bytes_by_part"].values())
        result |= {
            "fits": True,
            "memory": {"peak": peak, "arguments": arguments},
            "cycles": {
                "by_part": cycles,
                "by_operation": {},
                "collective_bytes": {"all-gather": 1e9},
                "uncounted": {},
                "unresolved": [],
            },
        }
    return Compiled(config, target, result, cached=False)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "compile_step", invented)


PLAN = ["plan", "--recipe", "coyo_256", "--target", "tpu-v3-8"]


def test_it_says_everything(compiler: None, capsys: pytest.CaptureFixture[str]):
    assert main([*PLAN, "--price", "1.5", "--model.remat", "full"]) == 0
    said = capsys.readouterr().out
    for words in ("It fits", "parameters", "optimiser", "peak", "images per second",
                  "days", "cost", "FLOPs per image", "fetched", "cycles"):  # fmt: skip
        assert words in said, words


def test_json_adds_up(compiler: None, capsys: pytest.CaptureFixture[str]):
    words = ["--json", "-", "--price", "2", "--batch_size", "512", "--model.remat", "full"]
    assert main([*PLAN, *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["memory"]["parts"].values()) == found["memory"]["peak"]
    assert found["largest_batch"]["full"]["batch"] == 4096
    assert found["largest_batch"]["none"]["batch"] == 256
    time = found["time"]
    assert time["device"] == pytest.approx(512 * 3e6 / 0.94e9)
    assert time["low"] <= time["middle"] <= time["high"]
    assert time["images_per_second"] == pytest.approx(512 / time["middle"])
    assert time["hours"][1] == pytest.approx(500_000 * time["middle"] / 3600)
    assert time["cost"][1] == pytest.approx(time["hours"][1] * 2 * 8)
    assert found["flops_per_image"] == pytest.approx(3e11)


def test_what_does_not_fit_is_told_with_what_would(compiler: None, capsys, tmp_path):
    words = ["--batch_size", "8192", "--model.remat", "dots", "--json", str(tmp_path / "p.json")]
    assert main([*PLAN, *words]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "It does not fit" in said and "that fits is 4096, with remat full" in said
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["time"] is None and found["memory"]["free"] < 0


@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_outputs_are_checked_before_the_compiler_runs(option: str, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(planning, "compile_step", pytest.fail)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path, problem in (("file/plan.png", "not a folder"), ("folder.png", "a folder")):
        assert main([*PLAN, option, str(tmp_path / path)]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and option[2:] in message and problem in message


def test_missing_folders_are_made(compiler: None, tmp_path):
    path = tmp_path / "new" / "folder" / "plan.json"
    assert main([*PLAN, "--policies", "--model.remat", "full", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["recipe"] == "coyo_256"


def test_here_is_as_large_as_the_container(monkeypatch):
    monkeypatch.setattr(hardware, "cgroup_number", lambda name: 3 * GIB)
    facts = {"device": "cpu cpu", "devices": 2}
    found = planning._here(Compiled(coyo_256(), "here", facts, cached=False))
    assert found.chip.memory == 3 * GIB // 2
    monkeypatch.setattr(hardware, "cgroup_number", lambda name: None)
    assert planning._here(Compiled(coyo_256(), "here", facts, cached=False)).chip.memory > 0


@pytest.mark.parametrize("policies", [["--policies"], ["--policies", "full", "dots"]])
def test_pictures(compiler: None, tmp_path, policies: list[str]):
    path = tmp_path / "memory.svg"
    assert main([*PLAN, *policies, "--picture", str(path), "--model.remat", "full"]) == 0
    text = path.read_text()
    assert text.startswith("<?xml") and len(text) > 10_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "tpu-v9-8"], "target: 'tpu-v9-8' is unknown; valid: tpu-v3-8"),
        (["--policies", "some"], "policies: 'some' is unknown"),
        (["--price", "-1"], "price: -1.0 is too small"),
        (["--picture", "plan.txt"], "picture: 'plan.txt' is not a picture"),
        (["--install_compiler", "rocm"], "install_compiler: 'rocm' is unknown; valid: tpu"),
        (["--batch_sise", "4"], "setting: 'batch_sise' is unknown; valid: batch_size"),
        (["--recipe", "coyo_257"], "recipe: 'coyo_257' is unknown"),
        (["--batch_size", "0"], "batch_size: 0 is too small"),
    ],
)
def test_wrong_inputs(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_compiler_that_is_not_there(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PINXIT_COMPILERS", str(tmp_path))
    monkeypatch.setenv("PINXIT_PLANS", str(tmp_path))
    assert main([*PLAN]) == 2
    assert "pinxit plan --install-compiler tpu" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--target" in said and "--install_compiler" in said and "pinxit train --help" in said


def test_the_devices_that_are_here(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PINXIT_PLANS", str(tmp_path))
    words = ["--recipe", "mock", "--policies", "--json", "-"]
    assert main(["plan", *words]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["parameters"] == 210_176
    parts = found["memory"]["parts"]
    assert parts["optimiser"] == 2 * parts["parameters"] + 4 * 2
    assert 1e6 < found["memory"]["peak"] == sum(parts.values())
    assert found["flops_per_image"] == pytest.approx(721461248 / 8, rel=0.2)
    assert found["time"] is None
