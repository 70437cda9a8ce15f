"""The words that a diverging run is told to add to its command."""

from pinxit.cli.arguments import parse
from pinxit.train.resume_policy import check_config
from pinxit.train.settings import ModelConfig, OptimizerConfig, TrainConfig
from pinxit.train.watch.rescue import rescue_message, step_to_return_to, ways_out

CONFIG = TrainConfig(
    name="run", use_amp=True, optimizer=OptimizerConfig(learning_rate=1e-4, clip_norm=None)
)


def test_every_way_out_is_accepted_as_it_stands():
    """Each line is a part of a command, and a resumed run takes its settings."""
    lines = ways_out(CONFIG, "bfloat16", 8000)
    assert lines[0] == (
        "--resume_step 8000 --change 1 --optimizer.learning_rate 5e-05   (half the learning rate)"
    )
    assert [line.split()[4] for line in lines[1:]] == [
        "--optimizer.warmup_steps",
        "--optimizer.clip_norm",
        "--use_amp",
    ]
    for line in lines:
        words = line.partition("   ")[0].split()
        config = parse(TrainConfig, words, default=CONFIG)
        assert config.resume_step == 8000
        check_config(CONFIG, config, change=config.change)


def test_a_dtype_of_the_model_is_named_as_such():
    config = TrainConfig(model=ModelConfig(dtype="float16"))
    assert "--model.dtype float32 " in ways_out(config, "float16", 8)[-1]
    assert len(ways_out(TrainConfig(), "float32", 8)) == 2


def test_which_checkpoint_to_return_to():
    steps = [9000, 8000, 7500]
    assert step_to_return_to(steps) == 9000
    assert step_to_return_to(steps, best=8200) == 8000, "the loss was best before the newest"
    assert step_to_return_to(steps, best=100) == 7500, "else the oldest"
    assert step_to_return_to(steps, tried=[9000]) == 8000
    assert step_to_return_to(steps, tried=steps) == 9000
    assert step_to_return_to([]) is None


def test_without_a_checkpoint_a_new_run_is_named():
    message = rescue_message(CONFIG, "float32", None)
    assert "There is no checkpoint to go back to." in message
    assert "\n  --name run_2 --optimizer.learning_rate 5e-05   (half" in message
