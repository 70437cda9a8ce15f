"""Out of memory: what errors say, what is tried, and what is advised."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import pytest
from rich.console import Console

from pinxit.cli.arguments import parse
from pinxit.config import UsageError
from pinxit.train.run import run
from pinxit.train.settings import (
    EmaConfig,
    EvalConfig,
    ModelConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
)
from pinxit.train.watch import out_of_memory as advice
from pinxit.train.watch.memory_savings import Change, ladder
from pinxit.train.watch.out_of_memory import (
    advise,
    is_out_of_memory,
    memory_advice,
    message,
    shortage,
)

GIB = 2**30
TPU = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory on HBM, the total "
    "memory required for HLO temporaries (22.65G) exceeds available HBM (15.48G)"
)
CONFIG = TrainConfig(
    batch_size=16, model=ModelConfig(preset="debug"), ema=EmaConfig(lengths=(0.1,)), use_amp=True
)


def out_of_memory(said: str) -> jax.errors.JaxRuntimeError:
    return jax.errors.JaxRuntimeError(said)


@pytest.mark.parametrize(
    ("said", "needed", "available", "asked"),
    [
        (TPU, 22.65, 15.48, None),
        ("Ran out of memory in memory space hbm. Used 17.50G of 15.48G hbm. Exceeded by 2G", 17.5,
         15.48, None),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12884901888 bytes.", None,
         None, 12.0),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9.5GiB.", None, None, 9.5),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 3221225472 bytes.", None, None, 3.0),
        ("RESOURCE_EXHAUSTED: Failed to allocate request for 2.00GiB (2147483648B) on device "
         "ordinal 0", None, None, 2.0),
        ("RESOURCE_EXHAUSTED: something else", None, None, None),
    ],
)  # fmt: skip
def test_errors_are_read(said: str, needed: Any, available: Any, asked: Any):
    found = shortage(said)
    for value, expected in zip(
        (found.needed, found.available, found.asked), (needed, available, asked), strict=True
    ):
        assert value == (None if expected is None else pytest.approx(expected * GIB, rel=1e-3))


def test_what_is_a_want_of_memory():
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(out_of_memory(TPU))
    assert not is_out_of_memory(out_of_memory("INVALID_ARGUMENT: shapes differ"))
    assert not is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))


def test_the_ladder_is_climbed_from_the_cheapest():
    changes = list(ladder(CONFIG, devices=1))
    first = [change.settings for change in changes[:3]]
    assert first[:2] == [{"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 4}]
    assert first[2] == {"model.remat": "dots"}
    kinds = [change.same_run for change in changes]
    assert kinds == sorted(kinds, reverse=True), "what needs another run comes last"
    assert {"model.remat": "full", "gradient_accumulation_steps": 16} in [
        change.settings for change in changes
    ]
    assert changes[-1].settings["batch_size"] == 1
    for devices in (1, 4, 8):
        for change in ladder(CONFIG, devices=devices, remat="dots"):
            changed = advice.configuration.replace(CONFIG, change.settings)
            assert changed.batch_size % (changed.gradient_accumulation_steps * devices) == 0
            assert changed.model.remat != "none"


def test_chunks_of_the_encoders_divide_the_batch():
    inside = dataclasses.replace(
        CONFIG, model=ModelConfig(preset="debug"), encode_in_step=True, batch_size=12
    )
    for change in ladder(inside, devices=8):
        advice.configuration.replace(inside, change.settings)


def test_advice_that_cannot_be_had_does_not_hide_the_error():
    def unknown(config: TrainConfig) -> int:
        raise UsageError("text_encoder", "owner/repo", problem="neither a known name nor a file")

    said = memory_advice(out_of_memory(TPU), CONFIG, measure=unknown, estimate=unknown)
    assert said.startswith("out of memory: RESOURCE_EXHAUSTED") and "(22.65G)" in said
    assert "cannot determine which settings would fit: text_encoder: 'owner/repo'" in said


def test_encoders_in_the_step_take_fewer_rows_at_once():
    inside = dataclasses.replace(
        CONFIG, model=ModelConfig(preset="debug"), encode_in_step=True, encoder_chunk=8
    )
    changes = [change.settings for change in ladder(inside, devices=1)]
    assert changes[:2] == [{"encoder_chunk": 2}, {"encoder_chunk": 1}]
    assert {"gradient_accumulation_steps": 2} in changes
    assert {"gradient_accumulation_steps": 4, "encoder_chunk": 4} in changes, "8 would not divide"
    for settings in changes:
        advice.configuration.replace(inside, settings)


def test_flags_are_those_of_the_command_line():
    change = Change({"model.remat": "full", "use_amp": True, "ema.lengths": (0.1, 0.2)}, "")
    assert change.flags == "--model.remat full --use_amp 1 --ema.lengths 0.1 0.2"


def pretended(config: TrainConfig) -> int:
    """A step whose memory goes with the piece of a batch, by policy."""
    each = {"auto": 3, "none": 3, "dots": 2, "full": 0.5}[config.model.remat] * GIB
    return int(GIB + each * config.batch_size // config.pieces)


def test_what_fits_is_found_and_said():
    lines: list[str] = []
    found = advise(
        out_of_memory(TPU), CONFIG, measure=pretended, estimate=pretended, say=lines.append
    )
    assert found.limit == pytest.approx(15.48 * GIB, rel=1e-3)
    assert found.peak == pytest.approx(22.65 * GIB, rel=1e-3)
    fitting = [one.change.settings for one in found.fitting]
    assert fitting == [
        {"gradient_accumulation_steps": 4},
        {"model.remat": "dots", "gradient_accumulation_steps": 4},
    ]
    assert lines[1:3] == [
        "  compiling the step with --gradient_accumulation_steps 4",
        "  --gradient_accumulation_steps 4: 13.00 GiB (fits)",
    ]
    said = message(found)
    assert said.startswith("out of memory: the step needs 22.65 GiB on each device, 15.48 GiB")
    assert "add --gradient_accumulation_steps 4   (13.00 GiB" in said and "pinxit plan" in said


def test_nothing_fits():
    def large(config: TrainConfig) -> int:
        return 9 * GIB

    found = advise(MemoryError(), CONFIG, measure=large, estimate=large, limit=GIB)
    assert not found.fitting and "no settings that were tried fit" in message(found)
    assert "more devices" in message(found)


def test_a_smaller_batch_is_another_run():
    def by_batch(config: TrainConfig) -> int:
        return config.batch_size * GIB

    said = message(
        advise(MemoryError(), CONFIG, measure=by_batch, estimate=by_batch, limit=6 * GIB)
    )
    assert "--batch_size 4" in said and "--name NEW" in said


def test_a_compiler_that_was_too_hopeful_is_held_to_less():
    error = out_of_memory("RESOURCE_EXHAUSTED: Out of memory allocating 1024 bytes.")
    found = advise(error, CONFIG, measure=pretended, estimate=pretended, limit=60 * GIB)
    assert found.peak == 49 * GIB and found.fitting
    assert all(one.peak is not None and one.peak < 49 * GIB for one in found.fitting)


def test_compilers_that_refuse_are_no_answer():
    def refusing(config: TrainConfig) -> int:
        if config.model.remat != "full":
            raise out_of_memory(TPU)
        return 2 * GIB

    def hopeful(config: TrainConfig) -> int:
        return {"dots": 9, "full": 2}.get(config.model.remat, 20) * GIB

    found = advise(out_of_memory(TPU), CONFIG, measure=refusing, estimate=hopeful)
    assert [trial.peak for trial in found.trials if trial.compiled] == [int(22.65 * GIB)] * 2
    assert found.fitting[-1].change.settings["model.remat"] == "full"
    assert "not compiled, on each device" in message(found), "the compilations are used up"
    broken = out_of_memory("INTERNAL: a bug")
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        advise(
            MemoryError(),
            CONFIG,
            measure=lambda config: (_ for _ in ()).throw(broken),
            estimate=hopeful,
        )


def test_many_unrolled_blocks_are_never_compiled_for_advice():
    deep = dataclasses.replace(
        CONFIG, model=ModelConfig(preset="debug", depth=24, scan_blocks=False, remat="none")
    )
    compiled: list[TrainConfig] = []

    def measure(config: TrainConfig) -> int:
        compiled.append(config)
        return pretended(config)

    found = advise(out_of_memory(TPU), deep, measure=measure, estimate=pretended)
    first, second = (trial.change.flags for trial in found.fitting)
    assert first == "--model.remat full --model.scan_blocks 1", "what compiles fast comes first"
    assert second == "--gradient_accumulation_steps 4"
    assert [config.model.scan_blocks for config in compiled] == [True]
    assert "about 13.00 GiB, not compiled, on each device" in message(found)


@pytest.mark.slow
def test_a_run_out_of_memory_ends_with_advice(bundle: Path, tmp_path: Path, monkeypatch):
    """The real compiler, a limit that is pretended, a device that refuses the first step."""
    config = TrainConfig(
        name="large", dataset_name="mock", dataset_size=16, image_size=16, batch_size=8,
        max_steps=4, text_encoder=str(bundle), vae=str(bundle), output_dir=str(tmp_path),
        model=ModelConfig(preset="debug", hidden_size=16, depth=2, num_heads=2),
        sampling=Sampling(steps=1), samples=SampleGridConfig(prompts=("red",), seeds=(0,)),
        evaluation=EvalConfig(images=0),
    )  # fmt: skip

    class Refuses:
        """A step that cannot be compiled."""

        def __init__(self, *_: Any) -> None:
            return

        def lower(self, *_: Any) -> Any:
            raise out_of_memory("RESOURCE_EXHAUSTED: Out of memory allocating 99999999 bytes.")

    whole = advice.step_measure(config)
    small = advice.step_measure(
        dataclasses.replace(config, gradient_accumulation_steps=4, model=dataclasses.replace(
            config.model, remat="full"))
    )  # fmt: skip
    assert 0 < small < whole
    monkeypatch.setattr("pinxit.train.run.build_step", Refuses)
    monkeypatch.setattr(advice, "device_limit", lambda: whole - 1)
    monkeypatch.setattr(advice, "ROOM", 1.0)
    monkeypatch.setattr(advice, "step_guess", advice.step_measure)
    said = io.StringIO()
    result = run(config, ["pinxit", "train"], console=Console(file=said, width=200))
    assert (result.status, result.exit_code) == ("failed", 1)
    assert "out of memory: the step needs" in result.reason and "  add --" in result.reason
    assert result.reason in said.getvalue()
    monkeypatch.undo()
    flags = result.reason.partition("  add ")[2].partition("   (")[0].split()
    changed = parse(TrainConfig, flags, default=config)
    result = run(changed, ["pinxit", "train"], console=Console(file=io.StringIO()))
    assert result.status == "finished", "the advice is taken by the same run"


def test_pictures_that_do_not_fit_are_told_apart(monkeypatch):
    monkeypatch.setattr(advice, "_where", lambda error: "sampling or evaluating")
    error = out_of_memory("RESOURCE_EXHAUSTED: Out of memory allocating 1024 bytes.")
    said = memory_advice(
        error, CONFIG, measure=pretended, estimate=lambda config: GIB, limit=8 * GIB
    )
    assert "the training step fits" in said and "--evaluation.batch_size" in said
