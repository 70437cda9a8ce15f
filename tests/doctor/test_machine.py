"""The doctor on a machine: this one, and what it would say of others."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import tomllib
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pinxit import extras
from pinxit.cli.doctor import DoctorOptions, examine
from pinxit.cli.main import main
from pinxit.doctor import machine, network, software
from pinxit.doctor.child_process import ChildFailed, ask
from pinxit.doctor.report_line import Line


def statuses(lines: Iterator[Line]) -> list[str]:
    return [line.status for line in lines]


def test_the_whole_command_on_this_machine(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main(["doctor", "--network", "0", "--json"])
    found = json.loads(capsys.readouterr().out)
    named = {line["name"]: line for line in found["lines"]}
    assert code == (1 if found["problems"] else 0)
    assert {"python", "jax", "packages", "extra", "devices", "memory", "disk"} <= named.keys()
    assert "cpu" in named["devices"]["said"] and named["devices"]["status"] == "ok"
    assert not any(tmp_path.iterdir()), "it left something behind"


def test_lines_for_people(capsys, monkeypatch):
    lines = [Line("ok", "one", "fine"), Line("problem", "two", "not [fine]", "mend it")]
    monkeypatch.setattr("pinxit.cli.doctor.examine", lambda options: iter(lines))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "problem  two: not [fine]" in shown and "-> mend it" in shown
    assert "1 problems, 0 warnings" in shown
    monkeypatch.setattr("pinxit.cli.doctor.examine", lambda options: iter(lines[:1]))
    assert main(["doctor"]) == 0


def test_a_run_that_is_not_there(tmp_path: Path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert main(["doctor", "other", "--output_dir", str(tmp_path)]) == 2
    assert "run: 'other' is not a folder; valid: mine" in capsys.readouterr().err
    options = DoctorOptions(run=("mine",), output_dir=str(tmp_path), machine=False)
    assert options.folder() == tmp_path / "mine"
    assert list(examine(options))


# --- software ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10, 2), "problem"), ((3, 12, 0), "ok"), ((3, 14, 0), "problem")]
)
def test_pythons(version: tuple[int, ...], status: str):
    assert statuses(software.python(version)) == [status]


def test_versions_that_do_not_belong_together(monkeypatch):
    versions = {"jax": "0.10.2", "jaxlib": "0.10.2", "jax-cuda12-plugin": "0.9.0"}
    monkeypatch.setattr(software, "installed_version", versions.get)
    monkeypatch.setattr(software.metadata, "requires", lambda name: ["jaxlib<=0.10.2,>=0.10.2"])
    line = next(software.jax_versions())
    assert line.status == "problem" and 'pip install -U "jax[cuda12]==0.10.2"' in line.advice
    versions["jax-cuda12-plugin"] = "0.10.2"
    assert next(software.jax_versions()).status == "ok"
    versions["jaxlib"] = versions["jax-cuda12-plugin"] = "0.9.9"
    assert next(software.jax_versions()).status == "problem"
    del versions["jaxlib"]
    assert "jaxlib is not installed" in next(software.jax_versions()).message


def test_packages_that_are_missing(monkeypatch):
    real = software.installed_version
    monkeypatch.setattr(software, "installed_version", lambda n: None if n == "optax" else real(n))
    lines = {line.name: line for line in software.requirements() if line.name != "extra"}
    assert "optax is missing" in lines["packages"].message
    assert lines["packages"].status == "problem"
    monkeypatch.setattr(
        software, "installed_version", lambda n: None if n == "aiohttp" else real(n)
    )
    extras = [line.message for line in software.requirements() if line.name == "extra"]
    assert any(said.startswith("data (streaming") and "not installed" in said for said in extras)
    assert any(said.startswith("cuda12") and "not installed" in said for said in extras)


def test_an_accelerator_without_its_package_gets_the_command(tmp_path: Path, monkeypatch):
    root = Path(extras.__file__).parents[1]
    assert software.extra_command("tpu") == f"pip install -e '{root}[tpu]'"
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "pinxit" / "extras.py"))
    assert software.extra_command("tpu") == "pip install 'pinxit[tpu]'"
    monkeypatch.setattr(software, "DEVICES", tmp_path)
    assert software.accelerators() == {}
    (tmp_path / "nvidia0").touch()
    (tmp_path / "accel0").touch()
    assert software.accelerators().keys() == {"cuda", "tpu"}
    gpu, tpu = software._hardware_without_plugin(False, False)
    assert (gpu.name, gpu.advice) == ("gpu", "pip install 'pinxit[cuda]'")
    assert (tpu.name, tpu.advice) == ("tpu", "on a TPU machine: pip install 'pinxit[tpu]'")
    assert not list(software._hardware_without_plugin(True, True))


def test_a_gpu_that_jax_leaves_idle_is_named(tmp_path: Path, monkeypatch):
    answer = {"backend": "cpu", "devices": [GPU | {"kind": "cpu", "compute_capability": None}]}
    monkeypatch.setattr(machine, "ask", lambda *args, **more: answer)
    monkeypatch.setattr(machine, "accelerators", lambda: {"cuda": "/dev/nvidia0"})
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    ok_line, idle = machine.devices()
    assert ok_line.status == "ok" and idle.status == "warning"
    assert "has /dev/nvidia0, but JAX computes on the CPU" in idle.message
    assert "[cuda]'" in idle.advice and "nvidia-smi" in idle.advice
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert statuses(machine.devices()) == ["ok"]


def test_documented_extras_exist_and_are_jaxs():
    """The commands of the docs name extras of ours, and ours name extras that JAX has."""
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    page = (root / "docs" / "devices.md").read_text() + (root / "README.md").read_text()
    named = set(re.findall(r'pip install -e "?\.\[([a-z0-9,]+)\]', page))
    assert {"tpu", "cuda", "cuda13"} <= named
    assert {part for name in named for part in name.split(",")} <= extras.keys()
    known = metadata.metadata("jax").get_all("Provides-Extra")
    for name in ("tpu", "cuda", "cuda12", "cuda13"):
        (requirement,) = map(Requirement, extras[name])
        assert requirement.name == "jax" and requirement.extras <= set(known or ())


def test_devices_of_other_makers_and_none_at_all():
    amd = GPU | {"kind": "AMD Instinct", "compute_capability": "gfx90a"}
    assert statuses(machine.judged({"backend": "gpu", "devices": [amd]})) == ["ok"]
    assert statuses(machine.judged({"backend": "cpu", "devices": []})) == ["problem"]


# --- devices ----------------------------------------------------------------------------------

GPU = {"id": 0, "kind": "Tesla V100", "platform": "gpu", "right": True, "seconds": 0.1,
       "bytes_limit": 12e9, "compute_capability": "7.0"}  # fmt: skip


def test_devices_are_judged():
    lines = list(machine.judged({"backend": "gpu", "devices": [GPU, GPU | {"id": 1}]}))
    assert "2 x Tesla V100, 12.0 GB each" in lines[0].message
    assert "float16 with loss scaling" in lines[1].message
    broken = {"backend": "gpu", "devices": [GPU, GPU | {"id": 1, "right": False}]}
    assert statuses(machine.judged(broken)) == ["problem"]


def test_children_that_fail(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "breaks.py").write_text("raise SystemExit('the device is taken')")
    (tmp_path / "hangs.py").write_text("import time; time.sleep(60)")
    (tmp_path / "answers.py").write_text("print('noise'); print('[1]')")
    assert ask("answers", timeout=20) == [1]
    with pytest.raises(ChildFailed, match="the device is taken"):
        ask("breaks", timeout=20)
    begun = time.perf_counter()
    with pytest.raises(ChildFailed, match="no answer within"):
        ask("hangs", timeout=0.5)
    assert time.perf_counter() - begun < 10

    def failing(*_: object, **__: object) -> None:
        raise ChildFailed("the device is taken")

    monkeypatch.setattr(machine, "ask", failing)
    line = next(machine.devices())
    assert line.status == "problem" and "the device is taken" in line.message


# --- memory, disks, limits --------------------------------------------------------------------


def test_a_containers_limit_counts(monkeypatch):
    memory = namedtuple("memory", "total available")
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: memory(64e9, 60e9))
    monkeypatch.setattr(machine, "cgroup_number", lambda name: None)
    assert statuses(machine.memory()) == ["ok"]
    monkeypatch.setattr(machine, "cgroup_number", lambda name: int(2e9))
    (line,) = machine.memory()
    assert line.status == "warning" and "2.0 GB free of 2.0 GB (a container's limit" in line.message


def test_disks(tmp_path: Path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(9e12, 0, 8e12))
    monkeypatch.setattr(machine, "write_speed", lambda path: 1e9)
    where = tmp_path / "not" / "there"
    (line,) = machine.disk(where)
    assert line.status == "ok" and "8.0 TB free, written at 1.0 GB/s" in line.message
    assert not where.exists()
    monkeypatch.setattr(machine, "write_speed", lambda path: 1e6)
    assert statuses(machine.disk(where)) == ["warning"]
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(9e9, 8e9, 1e9))
    assert statuses(machine.disk(where)) == ["warning"]
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    assert statuses(machine.disk(where)) == ["problem"]
    assert statuses(machine.writable("compiled programs", where)) == ["problem"]


def test_writing_is_timed_and_leaves_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(machine, "WRITTEN", 2**21)
    assert (machine.write_speed(tmp_path) or 0) > 0
    assert not list(tmp_path.iterdir())
    assert machine.write_speed(tmp_path / "absent") is None


def test_limits(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    lines = list(machine.limits())
    assert lines[0].status == "warning" and "ulimit -n 4096" in lines[0].advice
    assert lines[1].status == "warning" and "address space" in lines[1].message


# --- the network ------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[str]:
    """Something that answers as the hub does; its clock is an hour behind."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(403)
            self.send_header("Date", self.date_time_string(time.time() - 3600))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_hub_and_the_clock(hub: str, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    lines = list(network.hub(5.0))
    assert statuses(iter(lines)) == ["ok", "warning"]
    assert lines[1].name == "clock" and " s ahead" in lines[1].message


def test_no_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not asked" in next(network.hub(1.0)).message
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with socket.create_server(("127.0.0.1", 0)) as taken:  # accepts, and never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        begun = time.perf_counter()
        (line,) = network.hub(0.3)
        assert line.status == "warning" and "does not answer" in line.message
        assert time.perf_counter() - begun < 5


def test_names(monkeypatch):
    monkeypatch.setattr(network.socket, "getaddrinfo", lambda *_: [])
    assert statuses(network.names(1.0)) == ["ok"]
    monkeypatch.setattr(network, "SLOW_NAME", -1.0)
    assert "resolver" in next(network.names(1.0)).advice

    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(network.socket, "getaddrinfo", unknown)
    (line,) = network.names(1.0)
    assert line.status == "warning" and "huggingface.co" in line.message
    monkeypatch.setattr(network.socket, "getaddrinfo", lambda *_: time.sleep(5))
    begun = time.perf_counter()
    assert "no answer within 0.2 s" in next(network.names(0.2)).message
    assert time.perf_counter() - begun < 3


def test_encoders_in_the_cache(tmp_path: Path, monkeypatch):
    assert network.cached("tiny") is not None
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert network.cached(str(tmp_path)) == tmp_path
    assert network.cached("nobody/nothing") is None
    monkeypatch.setattr(network, "cached", lambda name: tmp_path if name == "clip" else None)
    (line,) = network.encoders()
    assert "clip (5 bytes)" in line.message
    assert "t5, t5gemma, sd, sdxl, dc_ae" in line.message
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_the_documented_install_commands_name_extras_of_jax():
    """The commands of docs/devices.md, in a block tagged "bash", cannot run without a network."""
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    page = (root / "docs" / "devices.md").read_text()
    names = re.findall(r'^pip install -e "\.\[(\w+)\]"', page, re.MULTILINE)
    assert names == ["tpu", "cuda", "cuda13"]
    for name in names:
        jax_extra = "cuda12" if name == "cuda" else name
        (requirement,) = extras[name]
        assert requirement.startswith((f"jax[{jax_extra}]", f"pinxit[{jax_extra}]")), requirement
