"""The bytes that devices send, against programs whose collectives are counted by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pinxit.plan.collectives import group_size, sent_bytes
from pinxit.plan.compile_cache import worker_environment
from pinxit.plan.hlo import Instruction, Module
from pinxit.plan.targets import HERE, get_target
from pinxit.plan.vendor_compilers import CompilerMissing, find_compiler

PROGRAMS = Path(__file__).parents[1] / "stand_ins" / "collective_programs.py"
MIB = 2**20
BY_HAND = {
    # half of the 1 MiB matrix ends on each device, which has a quarter of that half already
    "gather over four": {"all-gather": 3 / 4 * MIB / 2},
    "gather over two": {"all-gather": 1 / 2 * MIB / 4},
    "gather over eight": {"all-gather": 7 / 8 * MIB},
    # 256 x 256 sums: three quarters of them are sent to be added, and again when they are added
    "sum over four": {"all-reduce": 2 * 3 / 4 * MIB / 4},
    "sum over two axes of three": {"all-reduce": 2 * 3 / 4 * MIB / 4},
    "sum over eight": {"all-reduce": 2 * 7 / 8 * MIB / 8},
    # each device keeps a quarter of its quarter
    "exchange over four": {"all-to-all": 3 / 4 * MIB / 4},
    "scatter over four": {"reduce-scatter": 3 / 4 * MIB},
    "permutation": {"collective-permute": MIB / 4},
    "sum in a loop": {"all-reduce": 5 * 2 * 7 / 8 * MIB},
}


def counted(target: str, env: dict[str, str]) -> dict[str, dict[str, float]]:
    command = [sys.executable, str(PROGRAMS), target]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_of_this_machine_send_what_is_counted_by_hand():
    flags = "--xla_force_host_platform_device_count=8"
    assert counted(HERE, {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}) == BY_HAND


@pytest.mark.parametrize("target", ["tpu-v3-8", "v5e-8", "8xa100-80"])
def test_the_programs_of_absent_machines_send_the_same(target: str):
    platform = get_target(target).platform
    try:
        env = worker_environment(platform, find_compiler(platform, target=target))
    except CompilerMissing as error:
        pytest.skip(str(error))
    assert counted(target, env) == BY_HAND


def reduced(groups: str, *, more: str = "use_global_device_ids=true") -> Instruction:
    text = f"f32[8]{{0}} all-reduce(%x), channel_id=1, replica_groups={groups}, {more}"
    return Instruction("sum", "all-reduce", text)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", 2),
        ("{{0,1,2,3,4,5},{6,7}}", 6),
        ("{}", 8),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("[1,8]<=[8]", 8),
        ("mesh['axis_0'=8] {'axis_0'}", 8),
        ("mesh['axis_0'=8,'axis_1'=1] {'axis_1'}", 1),
        ("mesh['axis_0'=2,'axis_1'=4,'axis_2'=3] {'axis_0','axis_2'}", 6),
        ("mesh['axis_0'=1,'axis_1'=4,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_1'}", 4),
        ("mesh['a'=2,'b'=4], device_ids=(7,6,5,4,3,2,1,0) {'a','b'}", 8),
        ("mesh['x'=8] {'x':(2)4}", 4),
    ],
)
def test_all_forms_of_groups_are_read(groups: str, size: int):
    assert group_size(reduced(groups), Module("main", {}, partitions=8)) == size


def test_groups_of_replicas_have_all_their_partitions():
    module = Module("main", {}, partitions=4, replicas=2)
    assert group_size(reduced("{{0},{1}}", more="to_apply=%add"), module) == 4
    assert group_size(reduced("{{0,1}}", more="to_apply=%add"), module) == 8
    assert group_size(reduced("{}", more="to_apply=%add"), module) == 8
    assert group_size(reduced("{}"), module) == 8


@pytest.mark.parametrize(
    "groups", ["mesh['axis_0'=8]", "mesh['a'=8] {'b'}", "ring(8)", "@groups.1", "[8]"]
)
def test_other_forms_are_refused_with_their_text(groups: str):
    with pytest.raises(ValueError, match=r"known form: sum = .*all-reduce") as error:
        group_size(reduced(groups), Module("main", {}, partitions=8))
    assert groups in str(error.value)


def test_a_collective_without_groups_is_refused():
    for opcode in ("all-gather", "collective-permute"):
        instruction = Instruction("x", opcode, f"f32[8]{{0}} {opcode}(%y), channel_id=1")
        with pytest.raises(ValueError, match="known form"):
            list(sent_bytes(instruction, Module("main", {}, partitions=8)))


def test_devices_that_keep_their_array_send_nothing():
    text = "f32[8]{0} collective-permute(%y), source_target_pairs={{0,1},{1,0},{2,2},{3,3}}"
    sent = list(sent_bytes(Instruction("x", "collective-permute", text), Module("main", {})))
    assert sent == [("collective-permute", 8 * 4 / 2)]
