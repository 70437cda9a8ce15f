"""Machines by name, and the compilers they are planned with."""

from __future__ import annotations

import pytest

from pinxit.config import UsageError
from pinxit.plan import vendor_compilers as compilers
from pinxit.plan.targets import CARDS, GIB, SLICES, get_target


@pytest.mark.parametrize(
    ("name", "devices", "topology"),
    [
        ("tpu-v3-8", 8, "v3:2x2"),
        ("TPU-v3-512", 512, "v3:16x16"),
        ("tpu-v4-256", 128, "v4:4x4x8"),
        ("v5e-256", 256, "v5e:16x16"),
        ("v5litepod-8", 8, "v5e:2x4"),
        ("v6e-256", 256, "v6e:16x16"),
        ("a100-40", 1, "a100-40"),
        ("v100-16", 1, "v100-16"),
        ("8xa100-80", 8, "a100-80"),
        ("h200", 1, "h200"),
    ],
)
def test_names(name: str, devices: int, topology: str):
    target = get_target(name)
    assert (target.devices, target.topology) == (devices, topology)
    assert target.chip.memory > 14 * GIB
    assert target.peak("bfloat16") >= target.peak("float32")


@pytest.mark.parametrize("name", ["tpu-v9-8", "tpu-v3-7", "v5e-3", "a100", "9xa100-40", "", "gpu"])
def test_unknown_machines_are_refused_with_those_that_are_known(name: str):
    with pytest.raises(UsageError, match=r"target: .*valid: .*\d"):
        get_target(name)


def test_slices_have_as_many_chips_as_their_names_say():
    for kind, shapes in SLICES.items():
        cores = 2 if kind in ("v3", "v4") else 1
        for number, shape in shapes.items():
            chips = 1
            for side in shape.split("x"):
                chips *= int(side)
            assert chips * cores == number, (kind, number)


def test_a_card_is_described_for_its_compiler():
    proto = CARDS["v100-16"].proto()
    assert "cuda_compute_capability { major: 7 minor: 0 feature_extension: NONE }" in proto
    assert proto.count("{") == proto.count("}")
    assert "device_memory_size: 16935682048" in proto


def test_versions_are_those_that_jax_asks_for():
    assert compilers.requirement("tpu").startswith("libtpu==")
    assert compilers.requirement("cuda12").startswith("jax-cuda12-plugin[with-cuda]")


def test_a_missing_compiler_is_told_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PINXIT_COMPILERS", str(tmp_path))
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(compilers.CompilerMissing, match=r"plan --install-compiler tpu"):
        compilers.find_compiler("tpu", target="tpu-v3-8")
    with pytest.raises(ValueError, match="neither pip nor uv"):
        monkeypatch.setattr(compilers.shutil, "which", lambda name: None)
        compilers.install_command("tpu")
    assert compilers.find_compiler("here", target="here") == []


def test_an_installed_compiler_goes_on_the_path_of_the_worker(monkeypatch, tmp_path):
    monkeypatch.setenv("PINXIT_COMPILERS", str(tmp_path))
    (tmp_path / "tpu" / "libtpu").mkdir(parents=True)
    assert compilers.find_compiler("tpu", target="tpu-v3-8") == [str(tmp_path / "tpu")]
    command = compilers.install_command("tpu")
    assert command[command.index("--target") + 1] == str(tmp_path / "tpu")
    with pytest.raises(UsageError, match="install_compiler: 'rocm'"):
        compilers.install("rocm")
