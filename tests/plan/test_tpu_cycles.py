"""Cycles of a compiled program: loops turn, parts are told apart, collectives are counted."""

from __future__ import annotations

import pytest
from toy_hlo import TOY

from pinxit.plan import tpu_cycles as cycles
from pinxit.plan.hlo import parse_hlo, sizes
from pinxit.plan.tpu_cycles import estimate, part_of


def test_loops_count_as_often_as_they_turn():
    found = estimate(TOY)
    # the third loop has no bound that can be read, so its body counts once
    assert found.by_part == {
        "encoders": 50,
        "forward": 24 * 100,
        "backward": 25 * 200,
        "recomputed": 25 * 100,
        "optimizer": 70,
        "ema": 30,
    }
    assert found.unresolved == ["loop.3"]
    assert found.uncounted == {"copy": 1}
    assert found.total == sum(found.by_part.values())
    assert found.seconds(1e3) == pytest.approx(found.total / 1e3)
    assert next(iter(found.by_operation)) == "backward: checkpoint/dot_general"


def test_collectives_are_bytes_on_a_ring():
    found = estimate(TOY)
    whole, part = 32 * 16 * 4, 8 * 16 * 4
    assert found.collective_bytes == {
        "all-gather": pytest.approx(24 * whole * 3 / 4),
        "all-reduce": pytest.approx(2 * part * 3 / 4),
    }
    assert found.collective_seconds(1e6) == pytest.approx((24 * whole + 2 * part) * 0.75 / 1e6)


def test_a_bound_inside_a_fusion_of_the_condition_is_found():
    text = TOY.replace(
        "  ROOT %less = pred[] compare(%j, %bound), direction=LT",
        "  ROOT %less = pred[] fusion(%j), kind=kLoop, calls=%compared",
    ).replace("  %bound = s32[] constant(24)\n", "")
    compared = "%compared (r: s32[]) -> pred[] {\n  %n = s32[] constant(7)\n}\n\n%body ("
    module = parse_hlo(text.replace("%body (", compared, 1))
    loops = [x for x, _ in module.walk() if x.opcode == "while"]
    assert module.trip_count(loops[0]) == 7


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("jit(step)/jvp(while)/body/dot_general", "forward"),
        ("jit(step)/transpose(jvp(while))/body/mul", "backward"),
        ("jit(step)/transpose(jvp())/checkpoint/rematted_computation/exp", "recomputed"),
        ("jit(step)/encode/vae_encode/conv", "encoders"),
        ("jit(step)/optimizer/add", "optimizer"),
        ("jit(step)/ema/sub", "ema"),
        ("jit(step)/threefry2x32", "other"),
        ("", "other"),
    ],
)
def test_parts(name: str, part: str):
    assert part_of(name) == part


def test_what_has_no_name_belongs_to_its_loop():
    nameless = 'fusion(%again), kind=kOutput, calls=%inner, backend_config={"flag_configs"'
    named = 'fusion(%again), kind=kOutput, calls=%inner, metadata={op_name="jit(step)/transpose'
    assert named in TOY
    text = TOY.replace(
        'metadata={op_name="jit(step)/transpose(jvp(while))/body/checkpoint/dot_general"}, ', ""
    )
    assert nameless in text
    found = estimate(text)
    assert "backward" not in found.by_part
    assert found.by_part["recomputed"] == 25 * 300
    assert found.by_operation["recomputed: copies and layouts"] == 25 * 200


def test_sizes_of_types():
    assert sizes("bf16[2,3]{1,0:T(8,128)(2,1)}") == [12]
    assert sizes("(s32[], pred[5]{0}, f32[4]{0:S(1)})") == [4, 5, 16]


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        estimate("HloModule nothing")


def test_the_command_prints_the_parts(tmp_path, capsys):
    path = tmp_path / "step.hlo"
    path.write_text(TOY)
    assert cycles.main([str(path), "--clock_ghz", "0.94"]) == 0
    said = capsys.readouterr().out
    assert "recomputed" in said and "loop.3" in said
