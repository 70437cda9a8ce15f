"""The library for products on a CPU is chosen by times that are kept, and a run keeps it."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from pinxit.cli import cpu_products
from pinxit.cli.cpu_products import (
    MARGIN,
    choose_products,
    faster,
    processor_key,
    product_times,
    slow_precision,
)
from pinxit.cli.xla_environment import AUTO, NO_YNN, PRODUCTS, YNN_PRODUCTS, tuned
from pinxit.config import UsageError, to_json
from pinxit.recipes.mock import mock
from pinxit.train.run_folder import folder_of

TIMES = {"float32 xla": 1.0, "float32 ynn": 1.1, "bfloat16 xla": 1.2, "bfloat16 ynn": 0.5}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The environment of a restarted process with its own cache, whose measurement is `TIMES`."""
    calls = []

    def process(dtypes, meanwhile):
        meanwhile()
        calls.append(list(dtypes))
        return {key: value for key, value in TIMES.items() if key.split()[0] in dtypes}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=1 {NO_YNN}")
    monkeypatch.setenv(PRODUCTS, AUTO)
    monkeypatch.setattr(cpu_products, "_measured_by_a_process", process)
    return calls


def settings(tmp_path, **changes):
    return replace(mock(), output_dir=str(tmp_path), name="run", **changes)


def test_a_run_in_half_precision_starts_with_the_faster_library(cached, tmp_path):
    lines = []
    choose_products(settings(tmp_path, use_amp=True), lines.append)
    assert os.environ["XLA_FLAGS"] == f"--xla_a=1 {YNN_PRODUCTS}"
    assert os.environ[PRODUCTS] == "ynn"
    assert len(lines) == 1 and "measuring" in lines[0]


def test_both_precisions_are_measured_once(cached, tmp_path):
    lines = []
    for _ in range(2):
        assert product_times(["float32"], lines.append).keys() == {"float32 xla", "float32 ynn"}
    for _ in range(2):
        assert product_times(["float32", "bfloat16"], lines.append) == TIMES
    assert cached == [["float32"], ["bfloat16"]] and len(lines) == 2


def test_a_damaged_file_is_written_again(cached, tmp_path):
    path = tmp_path / "times.json"
    for text in ("", "{", '[["a", 1]', '"text"'):
        path.write_text(text)
        assert product_times(["float32"], print, path)["float32 xla"] == 1.0
        assert json.loads(path.read_text())[processor_key()]["float32 ynn"] == 1.1


def test_a_cache_that_cannot_be_written_is_said(cached, tmp_path):
    (tmp_path / "file").write_text("")
    lines = []
    assert product_times(["float32"], lines.append, tmp_path / "file" / "times.json")
    assert "each start measures again" in lines[-1]


def test_noise_does_not_decide():
    assert faster({"float32 xla": 1.0, "float32 ynn": 1 - MARGIN + 0.01}, "float32") == "xla"
    assert faster({"float32 xla": 1.0, "float32 ynn": 1 - MARGIN - 0.01}, "float32") == "ynn"
    assert faster({}, "bfloat16") == "xla"


def begun(tmp_path, text, **changes):
    """A run that was started with these flags, or with what `text` is."""
    config = settings(tmp_path, **changes)
    folder = folder_of(config)
    folder.root.mkdir(exist_ok=True)
    folder.config.write_text(json.dumps(to_json(config)))
    (folder.root / "environment.json").write_text(text)


def test_a_run_goes_on_with_its_library(cached, tmp_path):
    begun(tmp_path, json.dumps({"xla_flags": f"--xla_b=2 {YNN_PRODUCTS}"}))
    choose_products(settings(tmp_path), print)
    assert os.environ["XLA_FLAGS"] == f"--xla_a=1 {YNN_PRODUCTS}" and cached == []


def test_a_run_that_changes_its_precision_chooses_again(cached, tmp_path):
    begun(tmp_path, json.dumps({"xla_flags": NO_YNN}))
    choose_products(settings(tmp_path, use_amp=True), print)
    assert os.environ[PRODUCTS] == "ynn" and cached == [["float32", "bfloat16"]]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"xla_flags": 3}', "{}"])
def test_a_run_without_a_readable_record_chooses_again(text, cached, tmp_path):
    begun(tmp_path, text)
    choose_products(settings(tmp_path), print)
    assert os.environ[PRODUCTS] == "xla" and cached == [["float32"]]


def test_a_choice_of_the_user_stays(cached, tmp_path, monkeypatch):
    for chosen in ("xla", "ynn"):
        monkeypatch.setenv(PRODUCTS, chosen)
        before = dict(os.environ)
        choose_products(settings(tmp_path, use_amp=True), print)
        assert dict(os.environ) == before and cached == []


def test_the_variable_chooses_before_the_start():
    environ = tuned({PRODUCTS: "ynn"}, platform="linux", libc="glibc")
    assert environ is not None and environ["XLA_FLAGS"] == YNN_PRODUCTS
    own = tuned({"XLA_FLAGS": YNN_PRODUCTS}, platform="linux", libc="glibc")
    assert own is not None and PRODUCTS not in own
    with pytest.raises(UsageError, match=r"PINXIT_PRODUCTS.*eigen.*auto.*xla.*ynn"):
        tuned({PRODUCTS: "eigen"}, platform="linux", libc="glibc")


def test_slow_half_precision_is_said(cached, tmp_path, monkeypatch):
    assert slow_precision(TIMES, "bfloat16") == "" == slow_precision(TIMES, "float32")
    assert slow_precision({}, "bfloat16") == ""
    slow = {"float32 xla": 1.0, "bfloat16 xla": 1.9, "bfloat16 ynn": 2.5}
    assert "1.9 times" in slow_precision(slow, "bfloat16")
    monkeypatch.setitem(TIMES, "bfloat16 ynn", 3.0)
    monkeypatch.setitem(TIMES, "bfloat16 xla", 2.0)
    lines = []
    choose_products(settings(tmp_path, use_amp=True), lines.append)
    assert "--use_amp 0" in lines[-1] and os.environ[PRODUCTS] == "xla"


def test_a_measurement_that_fails_leaves_xlas_programs(cached, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_products, "_measured_by_a_process", lambda *_: {})
    lines = []
    choose_products(settings(tmp_path, use_amp=True), lines.append)
    assert os.environ[PRODUCTS] == "xla" and "failed" in lines[-1]


def test_a_measurement_holds_for_one_processor(monkeypatch):
    amd = "model name : AMD EPYC\nflags : avx2 avx512f sse\n"
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=1 {NO_YNN}")
    key = processor_key(amd)
    assert key.startswith("AMD EPYC, avx2, avx512f, ") and key.endswith(", --xla_a=1")
    assert key != processor_key(amd.replace("avx512f", ""))


def test_the_process_measures_both_libraries():
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "pinxit.cli.product_times", "float32"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    times = json.loads(done.stdout)
    assert times.keys() == {"float32 xla", "float32 ynn"}
    assert all(0 < value < 60 for value in times.values())


def test_training_is_imported_while_the_process_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/cat")
    called = []
    assert cpu_products._measured_by_a_process(["float32"], lambda: called.append(1)) == {}
    assert called


def test_flags_that_are_set_after_the_import_count():
    code = (
        "import os, pinxit.train.run as run; os.environ['XLA_FLAGS'] = '--xla_no_such_flag=1'; "
        "run.jax.device_put(1)"
    )
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode and "xla_no_such_flag" in done.stderr
