"""The text encoder that docs/extending.md adds works wherever the name of one does."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from pinxit import extensions
from pinxit.arrays import TextEncoder
from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.data.prepared.manifest import Manifest
from pinxit.encoders.text_encoder_catalogue import (
    TEXT_ENCODERS,
    abstract_text_encoder,
    load_text_encoder,
)

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## A text encoder") :]
BLOCK, COMMANDS = (
    "\n".join(re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL))
    for language in ("python", "bash")
)
ALONE, JOINED = (shlex.split(line)[1:] for line in COMMANDS.splitlines())
"""The page's two commands."""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The words that load the page's block from a file; it is taken back afterwards."""
    monkeypatch.setenv(extensions.VARIABLE, "")
    monkeypatch.setattr(extensions, "_loaded", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PINXIT_PLANS", str(tmp_path / "plans"))
    monkeypatch.chdir(tmp_path)
    before = dict(TEXT_ENCODERS)
    path = tmp_path / "words.py"
    path.write_text(BLOCK, encoding="utf-8")
    yield ["--extensions", str(path)]
    TEXT_ENCODERS.clear()
    TEXT_ENCODERS.update(before)
    sys.modules.pop("words", None)


@pytest.fixture
def words(added: list[str]) -> None:
    """The block is loaded into this process."""
    extensions.take(added)
    extensions.load()


def settings(bundle: Path, **more: object) -> list[str]:
    """Words that make a command of the page small."""
    named = {
        "vae": bundle, "image_size": 16, "dataset_size": 8, "batch_size": 4, "max_steps": 2,
        "log_interval": 1, "sample_interval": 0, "evaluation.prompts": 0, "evaluation.images": 0,
        "sampling.steps": 1, "use_amp": 0,
    }  # fmt: skip
    return [str(word) for name, value in (named | more).items() for word in (f"--{name}", value)]


def steps(run: str) -> list[int]:
    rows = (Path("runs") / run / "metrics.jsonl").read_text().splitlines()
    return [row["step"] for row in map(json.loads, rows) if "loss" in row]


def test_the_addition_is_one_definition_and_one_line():
    tree = ast.parse(BLOCK).body
    rest = [node for node in tree if not isinstance(node, ast.Import | ast.ImportFrom)]
    definition, line = rest
    assert isinstance(definition, ast.ClassDef)
    assert ast.unparse(line) == f"TEXT_ENCODERS['words'] = {definition.name}"


def test_a_run_from_its_start_to_its_pictures(added: list[str], bundle: Path, capsys):
    given = [*ALONE, *settings(bundle)]
    assert main(given) == 0
    assert main([*given, "--max_steps", "4"]) == 0
    assert steps("words") == [1, 2, 3, 4]
    capsys.readouterr()
    assert main([*added, "doctor", "words", "--machine", "0", "--network", "0", "--full", "1"]) == 0
    assert "words" in next(x for x in capsys.readouterr().out.splitlines() if "encoders" in x)
    asked = ["--checkpoint", "runs/words", "--steps", "1"]
    assert main([*added, "generate", "red light", *asked, "--n", "1", "--out", "pictures"]) == 0
    (picture,) = Path("pictures").glob("*.png")
    with Image.open(picture) as drawn:
        assert drawn.size == (16, 16)


def test_its_step_is_planned(added: list[str], bundle: Path, capsys):
    given = ["plan" if word == "train" else word for word in JOINED]
    given += [*settings(bundle, text_max_tokens=8), "--target", "here", "--json", "-", "--policies"]
    assert main(given) == 0
    plan = json.loads(capsys.readouterr().out)
    words = 1024 * 32 * 4
    tiny = sum(leaf.nbytes for leaf in jax.tree.leaves(load_text_encoder("tiny").params))
    planned = plan["memory"]["parts"]["encoders"]
    # with the encoded empty prompt, and without what of the CLIP is not read
    assert abs(planned - tiny - words) < words / 2


def test_a_run_with_a_joined_one(added: list[str], bundle: Path):
    assert main([*JOINED, *settings(bundle)]) == 0
    assert steps("both") == [1, 2]
    model = json.loads(Path("runs/both/model/config.json").read_text())
    assert (model["text_encoder"], model["model"]["context_dim"]) == ("tiny+words", 128 + 32)


def test_its_embeddings_are_stored(added: list[str], bundle: Path):
    Path("pictures").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(f"pictures/{i}.png")
        Path(f"pictures/{i}.txt").write_text(f"a picture called {i}")
    prepare = ["prepare", "folder", "--dataset_path", "pictures", "--out", "set", "--vae", bundle]
    prepare += ["--image_size", 16, "--images.workers", 1, "--store_text", 1]
    prepare += ["--filters.min_side", 1, "--text_encoder", "words"]
    assert main([*added, *map(str, prepare)]) == 0
    text = Manifest.read(Path("set")).identity["encoders"]["text"]
    assert (text["name"], text["max_tokens"], text["cleaning"]) == ("words", 16, "stock")
    assert Manifest.read(Path("set")).text


def test_it_reads_words(words: None):
    encoder = load_text_encoder("words", clean=lambda caption: caption.replace("_", " "))
    assert isinstance(encoder, TextEncoder) and encoder.parts == (encoder,)
    ids = encoder.tokenize(["a red_house", "A Red House", ""])
    assert (ids[0] == ids[1]).all() and (ids > 0).sum(axis=1).tolist() == [4, 4, 1]
    assert encoder.truncated(["word " * 15, "word " * 16]).tolist() == [False, True]
    out = encoder(["red", ""])
    assert out.tokens.shape == (2, 16, 32) and out.mask.sum(axis=1).tolist() == [2, 1]
    assert encoder(["a", "b"]).tokens.dtype == np.float32
    assert load_text_encoder("words", dtype="bfloat16")([""]).tokens.dtype == jax.numpy.bfloat16


def test_of_two_those_that_can_choose_get_the_length(words: None, bundle: Path):
    joint = load_text_encoder(f"{bundle}+words", max_tokens=5)
    assert (joint.kind, joint.max_tokens, joint.width) == ("clip+words", 16 + 5, 16 + 32)
    assert [part.kind for part in joint.parts] == ["clip", "words"]


def test_shapes_stand_in_for_its_weights(words: None):
    encoder = abstract_text_encoder("words+tiny", max_tokens=8)
    leaves = jax.tree.leaves(encoder.params)
    assert {type(leaf) for leaf in leaves} == {jax.ShapeDtypeStruct}
    ids = jax.ShapeDtypeStruct((2, encoder.max_tokens), np.int32)
    out = jax.eval_shape(encoder.apply, encoder.params, ids)
    assert out.tokens.shape == (2, 8 + 48, 32 + 128)


def test_an_entry_may_be_a_pair_with_it(words: None, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "pair", "tiny+words")
    assert load_text_encoder("pair").kind == "clip+words"


def test_what_does_not_fit_is_named(monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "odd", lambda: dict(params={}))
    with pytest.raises(UsageError, match=r"text_encoder: 'odd' is not a text encoder: dict lacks"):
        load_text_encoder("odd")
    with pytest.raises(
        UsageError, match="max_tokens: 5 is not a setting of the text encoder 'odd'"
    ):
        load_text_encoder("odd", max_tokens=5)
