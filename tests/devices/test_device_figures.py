"""The peaks agree with those of the planner, and memory is reported where devices know it."""

from __future__ import annotations

import jax
import pytest

from pinxit.devices.device_figures import memory_figures, peak_flops
from pinxit.plan.targets import CARDS, TPUS

NAMES = {
    "v3": ["TPU v3"],
    "v4": ["TPU v4"],
    "v5e": ["TPU v5 lite", "TPU v5e"],
    "v6e": ["TPU v6 lite", "TPU v6e"],
}
CHIPS = [(kind, TPUS[name]) for name, kinds in NAMES.items() for kind in kinds]
CHIPS += [(card.title, card.chip()) for card in CARDS.values()]


@pytest.mark.parametrize(("kind", "chip"), CHIPS, ids=[kind for kind, _ in CHIPS])
def test_peaks_are_those_of_the_planner(kind, chip):
    for dtype in ("bfloat16", "float16", "float32"):
        assert peak_flops(kind, dtype) == pytest.approx(chip.peak[dtype])


def test_every_planned_chip_has_a_peak():
    assert NAMES.keys() == TPUS.keys()


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA H100 PCIe", "TPU v99", "AMD Instinct MI300X", ""])
def test_other_devices_have_none(kind: str):
    assert peak_flops(kind, "bfloat16") is None


class Device:
    def __init__(self, statistics):
        self.statistics = statistics

    def memory_stats(self):
        if isinstance(self.statistics, Exception):
            raise self.statistics
        return self.statistics


def test_the_fullest_device_counts():
    one = Device({"peak_bytes_in_use": 5e9, "bytes_limit": 16e9})
    two = Device({"peak_bytes_in_use": 7e9, "bytes_limit": 15e9})
    figures = memory_figures([one, two])
    assert figures == {"device_memory_gb": 7.0, "device_memory_limit_gb": 15.0}
    assert memory_figures([Device({"peak_bytes_in_use": 5e9})]) == {"device_memory_gb": 5.0}


def test_devices_that_do_not_say():
    assert memory_figures([Device(None), Device({}), Device(NotImplementedError("no"))]) == {}
    assert memory_figures(jax.devices()) == {}, "a CPU's memory is the host's"
