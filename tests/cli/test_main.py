from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import killed_generate
import pytest
from PIL import Image

import pinxit
from pinxit import picture_files
from pinxit.cli.main import main
from pinxit.model_loading import load_checkpoint
from pinxit.picture_files import picture_bytes, read_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def release_dir(bundle, tmp_path_factory) -> Path:
    """A release of an untrained model, 16 pixels wide."""
    from pinxit.encoders.autoencoder import load_autoencoder
    from pinxit.encoders.text_encoder_catalogue import load_text_encoder
    from pinxit.model_loading import save_release
    from pinxit.models.transformer import init_params, preset
    from pinxit.pipeline import Sampling, TextToImage

    autoencoder, text_encoder = load_autoencoder(bundle), load_text_encoder(bundle)
    config = preset(
        "debug",
        hidden_size=16,
        depth=1,
        in_channels=autoencoder.stats.channels,
        context_dim=text_encoder.width,
    )
    model = TextToImage(
        init_params(config, jax.random.key(0)),
        config,
        text_encoder=text_encoder,
        autoencoder=autoencoder,
        image_size=16,
        sampling=Sampling(steps=2),
        name="toy",
    )
    directory = tmp_path_factory.mktemp("release")
    return save_release(directory, model, text_encoder=str(bundle), vae=str(bundle))


def refused(capsys, *argv: object) -> str:
    """The one line on stderr of a command that must end with exit code 2."""
    assert main([str(word) for word in argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pinxit: error: ")
    assert said.count("\n") == 1
    return said


def test_help_and_version_need_no_jax(capsys):
    assert main(["--help"]) == 0
    assert "generate" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pinxit {pinxit.__version__}\n"
    code = "import sys, pinxit.cli.main; sys.exit('jax' in sys.modules or 'tyro' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_command_is_named(capsys):
    said = refused(capsys, "trian")
    valid = "train, plan, prepare, pack, generate, grid, evaluate"
    assert f"command: 'trian' is unknown; valid: {valid}" in said


def test_generate_writes_pictures_with_recipes(release_dir, tmp_path, capsys):
    words = ["generate", "a red light", "--checkpoint", str(release_dir), "--out", str(tmp_path)]
    assert main([*words, "--n", "3", "--seed", "5", "--cfg_scale", "3"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    names = ["00001-5-a-red-light.png", "00002-6-a-red-light.png", "00003-7-a-red-light.png"]
    assert [path.name for path in paths] == names
    recipe = read_recipe(paths[1])
    assert (recipe["seed"], recipe["guidance_scale"], recipe["size"]) == (6, 3.0, [16, 16])

    other = [*words[:-1], str(tmp_path / "other")]
    assert main([*other, "--seed", "6", "--guidance_scale", "3"]) == 0
    again = Path(capsys.readouterr().out.strip())
    assert again.name == "00001-6-a-red-light.png"
    assert again.read_bytes() == paths[1].read_bytes()
    assert main([*words, "--seed", "9", "--guidance_scale", "3"]) == 0
    assert Path(capsys.readouterr().out.strip()).name == "00004-9-a-red-light.png"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_interrupted_generate_leaves_its_pictures_and_goes_on(
    release_dir, tmp_path, capsys, monkeypatch
):
    words = ["generate", "a red light", "--checkpoint", str(release_dir), "--n", "4"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    whole = files(tmp_path / "whole")
    capsys.readouterr()

    save = picture_files.save_picture

    def interrupted(out, image, recipe, **how):
        if recipe["seed"] == 2:
            raise KeyboardInterrupt
        return save(out, image, recipe, **how)

    out = tmp_path / "out"
    monkeypatch.setattr(picture_files, "save_picture", interrupted)
    assert main([*words, "--out", str(out)]) == 130
    shown = capsys.readouterr()
    assert files(out) == dict(list(whole.items())[:2])
    assert shown.out.splitlines() == [str(path) for path in sorted(out.iterdir())]
    command = f"pinxit generate 'a red light' --checkpoint {release_dir} --n 4 --out {out}"
    assert shown.err.splitlines()[-2:] == [
        f"pinxit: in {out}: 2 of 4 pictures; the same command draws the others: {command}",
        "pinxit: interrupted",
    ]

    monkeypatch.setattr(picture_files, "save_picture", save)
    assert main(shlex.split(command)[1:]) == 0
    shown = capsys.readouterr()
    assert f"pinxit: already in {out}: 2 of 4 pictures" in shown.err
    assert "drawing 2 pictures" in shown.err
    assert files(out) == whole
    assert shown.out.splitlines() == [str(path) for path in sorted(out.iterdir())]

    assert main(shlex.split(command)[1:]) == 0
    shown = capsys.readouterr()
    assert f"pinxit: already in {out}: 4 of 4 pictures" in shown.err
    assert "drawing" not in shown.err
    assert files(out) == whole
    assert main([*shlex.split(command)[1:], "--steps", "1"]) == 0
    assert len(files(out)) == 8 and whole.items() <= files(out).items()


@pytest.mark.slow
def test_kill_9_leaves_whole_pictures_and_the_same_command_goes_on(tmp_path):
    killed, plain = tmp_path / "killed", tmp_path / "plain"
    process = killed_generate.start(killed, n=10)
    killed_generate.await_pictures(killed, process, count=3)
    process.kill()
    process.wait()
    left = killed_generate.pictures(killed)
    assert 3 <= len(left) < 20
    assert killed_generate.start(killed, n=10).wait() == 0
    assert killed_generate.start(plain, n=10).wait() == 0
    whole = killed_generate.pictures(plain)
    assert len(whole) == 20 and left.items() <= whole.items()
    assert killed_generate.pictures(killed) == whole


def test_a_full_disk_leaves_the_pictures_and_names_the_command(
    release_dir, tmp_path, capsys, monkeypatch
):
    save = picture_files.save_picture

    def full(out, image, recipe, **how):
        if recipe["seed"] == 1:
            raise OSError(28, "No space left on device", str(out))
        return save(out, image, recipe, **how)

    monkeypatch.setattr(picture_files, "save_picture", full)
    words = ["generate", "red", "--checkpoint", str(release_dir), "--n", "2"]
    assert main([*words, "--out", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert "1 of 2 pictures; the same command" in lines[0] and "No space left" in lines[1]
    assert len(files(tmp_path)) == 1


def test_the_size_is_one_side_or_width_and_height(release_dir, tmp_path, capsys):
    words = ["generate", "red", "--checkpoint", str(release_dir), "--out", str(tmp_path)]
    for text, size in (("8", (8, 8)), ("24x8", (24, 8)), ("8X24", (8, 24)), ("8\u00d724", (8, 24))):
        assert main([*words, "--size", text]) == 0
        with Image.open(capsys.readouterr().out.strip()) as image:
            assert image.size == size


def test_a_recipe_is_all_it_takes_to_draw_again(release_dir, tmp_path, capsys):
    words = ["a red light", "--checkpoint", str(release_dir), "--out", str(tmp_path)]
    settings = ["--n", "3", "--seed", "5", "--batch_size", "2", "--shift", "1.5", "--steps", "3"]
    assert main(["generate", *words, *settings, "--negative_prompt", "fog"]) == 0
    path = Path(capsys.readouterr().out.splitlines()[2])
    recipe = read_recipe(path)
    assert "batch_size" not in recipe and recipe["seed"] == 7
    model = load_checkpoint(release_dir)
    about = ("model", "model_hash", "version")
    given = {name: value for name, value in recipe.items() if name not in about}
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    assert picture_bytes(model.generate(**options), recipe) == path.read_bytes()


def test_generate_reads_prompts_from_a_file(release_dir, tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\n two \n")
    out = tmp_path / "out"
    assert main(["generate", "--prompts_file", str(file), "--out", str(out), "--checkpoint",
                 str(release_dir)]) == 0  # fmt: skip
    assert sorted(path.name for path in out.iterdir()) == ["00001-0-one.png", "00002-1-two.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "prompt: '' is an empty list; valid: at least one prompt"),
        (["a", "--steps", "0"], "steps: 0 is too small; valid: at least 1"),
        (["a", "--n", "-1"], "n: -1 is too small"),
        (["a", "--solver", "eular"], "solver: unknown 'eular'; known: euler, heun"),
        (["a", "--size", "15"], "size: 15 is not a multiple of 4"),
        (["a", "--size", "16x15"], "size: 15 is not a multiple of 4"),
        (["a", "--size", "big"], "size: 'big' is not understood; valid: one side, or WIDTHxHEIGHT"),
        (["a", "--size", "0x8"], "size: '0x8' is too small; valid: sides of at least 1"),
        (["a", "--format", "gif"], "format: 'gif' is not understood; valid: png, webp, jpeg"),
        (["a", "--format", "jpeg", "--quality", "0"], "quality: 0 is out of range; valid: 1 to"),
        (["a", "--size", "16", "24"], "size: '16 24' is two words; valid: one side, or WIDTHxHEI"),
        (["a", "--seed", "x"], "seed: 'x' is not understood; valid: an integer"),
        (["a", "--seed", "-3"], "seed: -3 is out of range"),
        (["a", "--ema", "0.1"], "ema: '0.1' is not in a release"),
        (["a", "--guidance_interval", "0.9", "0.1"], "guidance_interval: 0.9 0.1 is not an interv"),
        (
            ["a", "--guidance_scale", "1", "--negative_prompt", "blurred"],
            "negative_prompt: 'blurred' is without effect, since guidance_scale 1 turns guidance",
        ),
        (
            ["a", "--cfg_scale", "1", "--guidance_interval", "0.1", "0.9"],
            "guidance_interval: 0.1 0.9 is without effect, since guidance_scale 1 turns guidance",
        ),
        (
            ["a", "--guidance_scale", "1", "--cfg_zero_star", "1"],
            "cfg_zero_star: 1 is without effect, since guidance_scale 1 turns guidance off",
        ),
        (["a", "--stps", "3"], "'stps' is unknown; valid: steps"),
        (["a", "--checkpoint", "nowhere"], "checkpoint: 'nowhere' is missing; valid: a run"),
        (["a", "--checkpoint", str(ROOT / "tests")], "is not a Pinxit model"),
        (["--prompts_file", "nowhere.txt"], "prompts_file: 'nowhere.txt' is not a file"),
    ],
)
def test_generate_refuses(release_dir, tmp_path, capsys, words, message):
    out = tmp_path / "out"
    checkpoint = [] if "--checkpoint" in words else ["--checkpoint", release_dir]
    assert message in refused(capsys, "generate", *words, *checkpoint, "--out", out)
    assert not out.exists()


@pytest.mark.filterwarnings("ignore:.*tokens that the text encoder reads")
def test_a_recipe_too_long_for_a_jpeg_is_refused_before_drawing(release_dir, tmp_path, capsys):
    (tmp_path / "p.txt").write_text(f"red\n{'x' * 30000}")
    out = tmp_path / "out"
    words = ["--prompts_file", tmp_path / "p.txt", "--checkpoint", release_dir, "--out", out]
    message = refused(capsys, "generate", *words, "--format", "jpeg")
    assert "p.txt, line 2: format: 'jpeg' is unable to hold the recipe of this picture" in message
    assert not out.exists()


def test_prompts_with_and_without_the_option_are_all_drawn(release_dir, tmp_path, capsys):
    words = ["a", "--checkpoint", str(release_dir), "--out", str(tmp_path), "--prompt", "b", "c"]
    assert main(["generate", *words]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["00001-0-a.png", "00002-1-b.png", "00003-2-c.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.preset", "huge"], "'huge'; known: debug, tiny, small, base, large, xlarge"),
        (["--sampling.solver", "eular"], "'eular'; known: euler, heun, midpoint, dpmpp_2m"),
        (["--dataset_name", "imagenet"], "dataset_name: 'imagenet' is unknown; valid: "),
        (["--recipe", "cats"], "recipe: 'cats' is unknown; valid: scenes, scenes_long, mock"),
        (["--model.patch", "2"], "'model.patch' is unknown; valid: model.patch_size"),
        (["--optimizer.name", "sgd"], "optimizer.name: 'sgd' is not understood; valid: adamw"),
        (["--model.num_heads", "5"], "num_heads: 5 does not divide hidden_size 64"),
        (["--samples.size", "16", "30"], "samples.size: '16 30' is not divisible into tokens"),
        (["--image_size", "30"], "image_size: 30 is not divisible into tokens; valid: multiples"),
        (["--max_steps", "0"], "max_steps: 0"),
        (["--batch_size", "-4"], "batch_size: -4"),
        (["--gradient_accumulation_steps", "3"], "gradient_accumulation_steps: 3"),
        (["--learning_rate", "fast"], "learning_rate: 'fast' is not understood; valid: a number"),
        (["--use_amp", "maybe"], "argument: 'maybe' is not an option"),
        (["--text_dropout_prob", "2"], "caption_dropout: 2"),
        (["--name", "../elsewhere"], "name: '../elsewhere'"),
        (["--vae", "nowhere"], "nowhere"),
        (["--text_encoder", "nowhere"], "nowhere"),
    ],
)
def test_train_refuses_before_anything_is_written(bundle, tmp_path, capsys, words, message):
    runs = tmp_path / "runs"
    given = ["--recipe", "mock", "--output_dir", runs, "--vae", bundle, "--text_encoder", bundle]
    assert message in refused(capsys, "train", *given, *words)
    assert not runs.exists()


@pytest.mark.filterwarnings("ignore:.*tokens that the text encoder reads")
def test_train_generate_evaluate(bundle, tmp_path, capsys):
    """The whole path, as a user walks it, on a minute network."""
    words = ["train", "--dataset_name", "mock", "--output_dir", tmp_path, "--vae", bundle]
    words += ["--text_encoder", bundle, "--image_size", 16, "--max_steps", 2, "--batch_size", 4]
    words += ["--model.hidden_size", 16, "--learning_rate", 1e-3, "--use_amp", 0]
    words += ["--evaluation.images", 10, "--sampling.steps", 1, "--name", "toy"]
    assert main([str(word) for word in words]) == 0
    run = tmp_path / "toy"
    for name in ("config.json", "metrics.jsonl", "report.html", "results.json"):
        assert (run / name).is_file(), name
    config = json.loads((run / "config.json").read_text())
    assert config["optimizer"]["learning_rate"] == 1e-3

    out = tmp_path / "out"
    checkpoints = (run, run / "model", *sorted(run.glob("checkpoints/step_*"))[-1:])
    for number, checkpoint in enumerate(checkpoints):
        generate = ["generate", "red", "--out", f"{out}/{number}", "--checkpoint", str(checkpoint)]
        assert main([*generate, "--steps", "1"]) == 0
    pictures = [path.read_bytes() for path in sorted(out.glob("*/*.png"))]
    assert len(pictures) == 3
    assert len(set(pictures)) == 1
    capsys.readouterr()

    words = ["evaluate", "--checkpoint", run, "--images", 10, "--steps", 1]
    assert main([str(word) for word in [*words, "--batch_size", 4, "--ema", "raw"]]) == 0
    shown = capsys.readouterr().out
    assert "measured on: 10 rows of mock, held out by the run" in shown
    assert "validation loss" in shown
    values = json.loads((run / "evaluation.json").read_text())["values"]
    assert "validation/loss_t_0.95" in values
    assert values["conditioning/loss_null"] > 0 and "captions reduce the loss by" in shown

    words = [*words, "--dataset_name", "scenes", "--prompts", 3, "--out", tmp_path / "scenes.json"]
    words += ["--evaluators", "prompt_accuracy", "validation_loss"]
    assert main([str(word) for word in words]) == 0
    shown = capsys.readouterr().out
    assert "held-out prompts" in shown
    values = json.loads((tmp_path / "scenes.json").read_text())["values"]
    assert 0 <= values["prompts/accuracy/mean"] <= 1
    assert values["prompts/ceiling/time"] >= values["prompts/chance/time"]
    assert values["validation/loss"] > 0


@pytest.mark.parametrize("door", ["train_coyo_vae.py", "train_text_to_image.py"])
def test_doors_refuse_in_one_line(door):
    words = ["--batch_size", "-1"]
    done = subprocess.run(
        [sys.executable, ROOT / door, *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "batch_size: -1" in done.stderr
