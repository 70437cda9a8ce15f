"""What ends a command: a person's mistake is one line and 2, a bug its traceback and 1."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pinxit.cli import main as command_line
from pinxit.cli.main import guarded, main
from pinxit.config import UsageError

ROOT = Path(__file__).parents[2]

INTERNAL = {
    "pinxit/data/fetch/address_guard.py": "caught by the fetcher: the reason of one row",
    "pinxit/data/images/decode.py": "caught by the decoder: the reason of one row",
    "pinxit/data/images/decode_pool.py": "the protocol between two processes of ours",
    "pinxit/data/filters/histograms.py": "the figures' names are the package's own",
    "pinxit/data/loader.py": "arrays and places in a batch are made by the package",
    "pinxit/data/prepared/prepared_rows.py": "the loader takes the rows of one bucket together",
    "pinxit/data/prepared/shards.py": "arrays to store are the package's own; reading is caught",
    "pinxit/data/outcome.py": "statuses are the package's own",
    "pinxit/data/scenes/attributes.py": "no setting names a split",
    "pinxit/data/scenes/dataset.py": "no setting names a split",
    "pinxit/encoders/autoencoder.py": "no setting names a tile",
    "pinxit/encoders/clip.py": "shapes inside a jitted function",
    "pinxit/encoders/t5_tokenizer.py": "the parser's signal, caught where the file's name is known",
    "pinxit/encoders/joint_text_encoder.py": "shapes inside a jitted function",
    "pinxit/encoders/tiling.py": "no setting names a tile",
    "pinxit/encoders/token_rows.py": "a string where Python code must pass a list",
    "pinxit/models/transformer.py": "shapes inside a jitted function",
    "pinxit/plan/compile_worker.py": "the compiler's own failures",
    "pinxit/plan/hlo.py": "the text is the compiler's",
}
"""Files that may raise a ValueError that is no `UsageError`: none of them is a person's mistake."""


def test_a_value_error_that_is_no_usage_error_is_a_bug_and_is_raised_in_few_files():
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "pinxit").rglob("*.py")
        if re.search(r"raise ValueError\b", path.read_text("utf-8"))
    }
    assert found == set(INTERNAL)


def numpy_error() -> int:
    np.reshape(np.zeros(3), (2, 2))
    return 0


def test_an_error_of_a_library_shows_its_traceback_and_where_to_report_it(monkeypatch, capsys):
    monkeypatch.setitem(command_line.COMMANDS, "doctor", lambda argv: numpy_error())
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any("numpy_error" in line for line in lines)
    assert lines[-2].startswith("ValueError: cannot reshape")
    assert lines[-1].startswith("pinxit: this is a bug; please report it, with the lines above, to")


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_usage_error_is_one_line_unless_asked_where(monkeypatch, capsys, debug):
    monkeypatch.setenv("PINXIT_DEBUG", debug)

    def command() -> int:
        raise UsageError("steps", 0, problem="too small", valid="at least 1")

    assert guarded(command) == 2
    said = capsys.readouterr().err
    assert said.endswith("pinxit: error: steps: 0 is too small; valid: at least 1\n")
    assert ("Traceback" in said) == (debug == "1")


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 1), (errno.EIO, 1), (errno.EACCES, 2), (errno.ENOENT, 2), (errno.EISDIR, 2)],
)
def test_what_the_system_refuses_is_one_line_with_the_path(capsys, number: int, code: int):
    def command() -> int:
        raise OSError(number, os.strerror(number), "/some/where")

    assert guarded(command) == code
    assert capsys.readouterr().err == f"pinxit: error: /some/where: {os.strerror(number)}\n"


def test_memory_interrupts_and_closed_pipes_are_no_bugs(capsys):
    def raising(error: BaseException):
        def command() -> int:
            raise error

        return command

    assert guarded(raising(MemoryError())) == 1
    assert guarded(raising(RuntimeError("RESOURCE_EXHAUSTED: of memory"))) == 1
    assert capsys.readouterr().err.count("pinxit: error: out of memory") == 2
    assert guarded(raising(KeyboardInterrupt())) == 130
    assert guarded(raising(RuntimeError("of another kind"))) == 1
    assert "this is a bug" in capsys.readouterr().err
    done = subprocess.run(
        ["bash", "-c", "python -m pinxit --help | head -1; exit ${PIPESTATUS[0]}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "")
