import jax
import numpy as np
import pytest

from pinxit.evaluate.judge import (
    JudgeConfig,
    apply_judge,
    encode_labels,
    init_judge,
    judge_loss,
    load_judge,
    save_judge,
)

CONFIG = JudgeConfig(
    attributes={"ground": ("red", "blue"), "side": ("left", "right", "middle")},
    image_size=16,
    channels=(8, 16),
    hidden=16,
    accuracy={"ground": 0.99, "side": 0.98},
)


def test_logits_have_one_column_per_value():
    params = init_judge(CONFIG, jax.random.key(0))
    logits = apply_judge(params, CONFIG, np.zeros((3, 16, 16, 3), np.float32))
    shapes = {name: value.shape for name, value in logits.items()}
    assert shapes == {"ground": (3, 2), "side": (3, 3)}


def test_a_saved_judge_reads_the_same(tmp_path):
    params = init_judge(CONFIG, jax.random.key(0))
    save_judge(tmp_path, params, CONFIG)
    judge = load_judge(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    logits = judge.logits(images)
    expected = apply_judge(params, CONFIG, images.astype(np.float32) / 127.5 - 1)
    np.testing.assert_allclose(logits["side"], expected["side"], atol=1e-5)
    assert judge.config == CONFIG
    assert set(judge(images)[0]) == {"ground", "side"}


def test_it_learns_colour_and_place():
    rng = np.random.default_rng(1)
    rows, images = [], rng.uniform(-0.1, 0.1, (48, 16, 16, 3)).astype(np.float32)
    for i in range(48):
        colour, side = i % 2, (i // 2) % 3
        images[i, :, side * 5 : side * 5 + 5, 0 if colour == 0 else 2] = 1.0
        rows.append({"ground": ("red", "blue")[colour], "side": ("left", "middle", "right")[side]})
    labels = encode_labels(CONFIG, rows)
    params = init_judge(CONFIG, jax.random.key(0))

    @jax.jit
    def step(params):
        (_, accuracy), grads = jax.value_and_grad(
            lambda p: judge_loss(p, CONFIG, images, labels), has_aux=True
        )(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), accuracy

    for _ in range(60):
        params, accuracy = step(params)
    assert accuracy["ground"] > 0.95
    assert accuracy["side"] > 0.95


def test_unstated_attributes_are_not_counted():
    params = init_judge(CONFIG, jax.random.key(0))
    labels = encode_labels(CONFIG, [{"ground": "blue"}, {"ground": "red"}])
    assert labels["side"].tolist() == [-1, -1]
    loss, _ = judge_loss(params, CONFIG, np.zeros((2, 16, 16, 3), np.float32), labels)
    assert np.isfinite(loss)


def test_a_directory_without_a_judge_is_named(tmp_path):
    with pytest.raises(ValueError, match="contains no judge"):
        load_judge(tmp_path)


def test_image_size_must_fit_the_stages():
    with pytest.raises(ValueError, match="image_size"):
        JudgeConfig(attributes={"a": ("x", "y")}, image_size=60)
