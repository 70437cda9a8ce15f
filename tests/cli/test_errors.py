"""What ends a command: a person's mistake is one line and 2, a bug its traceback and 1."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pinxit.cli import main as command_line
from pinxit.cli.main import guarded, main
from pinxit.config import UsageError

ROOT = Path(__file__).parents[2]

INTERNAL = {
    "pinxit/data/fetch/address_guard.py": "caught by the fetcher: the reason of one row",
    "pinxit/data/images/decode.py": "caught by the decoder: the reason of one row",
    "pinxit/data/images/metadata.py": "caught by the decoder: the reason of one row",
    "pinxit/data/images/decode_pool.py": "the protocol between two processes of ours",
    "pinxit/data/filters/histograms.py": "the figures' names are the package's own",
    "pinxit/data/loader.py": "arrays and indices in a batch are made by the package",
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
    "pinxit/evaluate/composition/facts.py": "the facts of prompts are the package's own",
    "pinxit/evaluate/distances/statistics.py": "caught where the file's name is known",
    "pinxit/evaluate/extractors/clip_features.py": "refused before, where the file's name is known",
    "pinxit/evaluate/feature_store.py": "the shapes of features are those of an extractor's code",
    "pinxit/evaluate/picture_sets.py": "evaluators make prompts and seeds together",
    "pinxit/evaluate/comparison/paired.py": "both models' scores are the package's own",
    "pinxit/fixed_batches.py": "the sizes of batches are the package's own",
    "pinxit/labelled_sheet.py": "the sizes of pictures are the package's own",
    "pinxit/models/transformer.py": "shapes inside a jitted function",
    "pinxit/picture_files.py": "a number in JSON, caught where the file's name is known",
    "pinxit/plan/collectives.py": "the text is the compiler's",
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


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """Files and folders that are not what a command expects."""
    root = tmp_path_factory.mktemp("broken")
    (root / "file").write_text("text")
    (root / "empty").mkdir()
    (root / "pictures").mkdir()
    Image.new("RGB", (64, 64), "red").save(root / "pictures" / "red.png")
    (root / "pictures" / "red.txt").write_text("a red square")
    (root / "latin1.txt").write_bytes(b"caf\xe9\n")
    (root / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (root / "damaged.tar").write_bytes(b"no tar at all" * 100)
    (root / "note.png").write_text("no picture")
    (root / "huggingface").mkdir()
    (root / "huggingface" / "config.json").write_text("{not json")
    for name, text in {"no_json": "{", "a_list": "[]", "no_object": "{}"}.items():
        for file in ("config.json", "model.json", "images.json", "latents.json", "manifest.json"):
            (root / name).mkdir(exist_ok=True)
            (root / name / file).write_text(text)
    run = root / "runs" / "old"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"batch_size": "many"')
    wrong = root / "runs" / "wrong"
    wrong.mkdir()
    (wrong / "config.json").write_text('{"no_such_setting": 1}')
    typed = root / "runs" / "typed"
    typed.mkdir()
    (typed / "config.json").write_text('{"batch_size": "many"}')
    return root


TRAIN = ["train", "--recipe", "mock", "--output_dir", "{root}/runs"]
GENERATE = ["generate", "a house", "--out", "{root}/out"]
PREPARE = ["prepare", "folder", "--out", "{root}/set"]

MISTAKES = [
    # train
    [*TRAIN, "--name", "old"],
    [*TRAIN, "--name", "wrong"],
    [*TRAIN, "--name", "typed"],
    [*TRAIN, "--optimizer.learning_rate", "-1"],
    [*TRAIN, "--objective.time.std", "0"],
    [*TRAIN, "--model.num_heads", "7"],
    [*TRAIN, "--vae", "{root}/huggingface"],
    [*TRAIN, "--vae", "{root}/file"],
    [*TRAIN, "--text_encoder", "{root}/empty"],
    [*TRAIN, "--init_from", "{root}/nowhere"],
    [*TRAIN, "--init_from", "{root}/no_json", "--name", "new"],
    ["train", "--recipe", "mock", "--output_dir", "{root}/file"],
    ["train", "--recipe", "mock", "--output_dir", "/proc/nowhere"],
    ["train", "--dataset_path", "{root}/no_json", "--output_dir", "{root}/runs"],
    ["train", "--dataset_path", "{root}/a_list", "--output_dir", "{root}/runs"],
    ["train", "--dataset_path", "{root}/no_object", "--output_dir", "{root}/runs"],
    ["train", "--dataset_name", "folder", "--dataset_path", "{root}/nowhere"],
    # generate
    [*GENERATE, "--checkpoint", "{root}/file"],
    [*GENERATE, "--checkpoint", "{root}/empty"],
    [*GENERATE, "--checkpoint", "{root}/no_json"],
    [*GENERATE, "--checkpoint", "{root}/a_list"],
    [*GENERATE, "--checkpoint", "{root}/no_object"],
    [*GENERATE, "--steps", "none", "--solver", "eular"],
    ["generate", "a house", "--steps", "1", "--out", "{root}/file"],
    ["generate", "a house", "--steps", "1", "--out", "/proc/nowhere"],
    ["generate", "--prompts_file", "{root}/empty"],
    ["generate", "--prompts_file", "{root}/latin1.txt", "--out", "{root}/out"],
    # evaluate
    ["evaluate", "--checkpoint", "{root}/no_json"],
    ["evaluate", "--checkpoint", "{root}/nowhere"],
    ["evaluate", "--prompts", "-1"],
    ["evaluate", "--prompts", "0", "--images", "3"],
    ["evaluate", "--prompts", "0", "--images", "0", "--out", "{root}/empty"],
    # plan
    ["plan", "--recipe", "mock", "--target", "nowhere"],
    ["plan", "--recipe", "mock", "--batch_size", "x"],
    ["plan", "--recipe", "mock", "--vae", "{root}/huggingface"],
    ["plan", "--recipe", "mock", "--picture", "plan.txt"],
    # prepare
    ["prepare", "nowhere", "--out", "{root}/set"],
    ["prepare", "folder"],
    [*PREPARE, "--dataset_path", "{root}/nowhere"],
    [*PREPARE, "--dataset_path", "{root}/empty"],
    [*PREPARE, "--dataset_path", "{root}/file"],
    ["prepare", "cc12m", "--dataset_path", "{root}/damaged.parquet", "--out", "{root}/set"],
    ["prepare", "cc12m", "--dataset_path", "{root}/note.png", "--out", "{root}/file"],
    [*PREPARE, "--dataset_path", "{root}/pictures", "--vae", "{root}/huggingface"],
    ["prepare", "--stage", "latents", "--out", "{root}/no_json"],
    ["prepare", "--stage", "latents", "--out", "{root}/a_list"],
    ["prepare", "--stage", "latents", "--out", "{root}/no_object"],
    ["prepare", "--stage", "latents", "--out", "{root}/nowhere"],
    ["prepare", "folder", "--dataset_path", "{root}/pictures", "--out", "/proc/nowhere"],
    # doctor
    ["doctor", "nowhere"],
    ["doctor", "one", "two"],
    ["doctor", "--timeout", "soon"],
    # any
    ["trane"],
    ["train", "--no_such_setting", "1"],
    ["generate", "--extensions", "{root}/nowhere.py", "a house"],
]
"""Command lines with a mistake in them, of every command."""


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_persons_mistake_is_one_line(broken: Path, capsys, monkeypatch, words: list[str]):
    monkeypatch.delenv("PINXIT_EXTENSIONS", raising=False)
    code = main([word.format(root=broken) for word in words])
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("pinxit: error: ")]
    assert (code, errors) == (2, lines[-1:]), lines
    assert not any("Traceback" in line for line in lines)
