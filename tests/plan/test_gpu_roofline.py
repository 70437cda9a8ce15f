"""Traffic of a GPU's program: slices of stacks are slices, products are told apart."""

from __future__ import annotations

import pytest

from pinxit.plan.gpu_roofline import roofline

PROGRAM = """HloModule jit_step

%sliced (a: f32[24,8], i: s32[]) -> f32[8] {
  %a = f32[24,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,8]{1,0} dynamic-slice(%a, %i, %zero), dynamic_slice_sizes={1,8}
  ROOT %flat = f32[8]{0} bitcast(%row)
}

%stored (b: f32[24,8], v: f32[8], j: s32[]) -> f32[24,8] {
  %b = f32[24,8]{1,0} parameter(0)
  %v = f32[8]{0} parameter(1)
  %j = s32[] parameter(2)
  %nought = s32[] constant(0)
  %one = f32[1,8]{1,0} bitcast(%v)
  ROOT %changed = f32[24,8]{1,0} dynamic-update-slice(%b, %one, %j, %nought)
}

%summed (c: f32[24,8]) -> f32[8] {
  %c = f32[24,8]{1,0} parameter(0)
  ROOT %sum = f32[8]{0} reduce(%c, %c), dimensions={0}
}

%body (p: (s32[], f32[24,8], f32[24,8])) -> (s32[], f32[24,8], f32[24,8]) {
  %p = (s32[], f32[24,8]{1,0}, f32[24,8]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%p), index=0
  %from = f32[24,8]{1,0} get-tuple-element(%p), index=1
  %to = f32[24,8]{1,0} get-tuple-element(%p), index=2
  %take = f32[8]{0} fusion(%from, %n), kind=kLoop, calls=%sliced
  %gemm = f32[8]{0} custom-call(%take, %take), custom_call_target="__cublas$gemm"
  %put = f32[24,8]{1,0} fusion(%to, %gemm, %n), kind=kLoop, calls=%stored
  ROOT %t = (s32[], f32[24,8]{1,0}, f32[24,8]{1,0}) tuple(%n, %from, %put)
}

%cond (q: (s32[], f32[24,8], f32[24,8])) -> pred[] {
  %q = (s32[], f32[24,8]{1,0}, f32[24,8]{1,0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (x: f32[24,8]) -> f32[8] {
  %x = f32[24,8]{1,0} parameter(0)
  %k = s32[] constant(0)
  %start = (s32[], f32[24,8]{1,0}, f32[24,8]{1,0}) tuple(%k, %x, %x)
  %loop = (s32[], f32[24,8]{1,0}, f32[24,8]{1,0}) while(%start), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"24"}}
  %end = f32[24,8]{1,0} get-tuple-element(%loop), index=2
  ROOT %total = f32[8]{0} fusion(%end), kind=kInput, calls=%summed
}
"""  # noqa: E501


def test_a_loop_over_a_stack_moves_its_slices():
    found = roofline(PROGRAM)
    row, index = 8 * 4, 4
    take = row + row + index
    put = row + row + index
    total = 24 * row + row
    assert found.other_bytes == pytest.approx(24 * (take + put) + total)
    assert found.kernels == 24 * 3 + 1
