"""Validation loss: the same whatever is computed together."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Conditioning, Example
from pinxit.evaluate import validation_loss as validation
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.encoded_rows import EncodedRows
from pinxit.evaluate.validation_loss import spread_times, validation_loss
from pinxit.models.transformer import preset
from pinxit.pipeline import TextToImage

ROWS = 23


class Toy(TextToImage):
    """Predicts zeros, so that a row's loss is the mean square of its velocity."""

    def __init__(self) -> None:
        self.autoencoder: Any = SimpleNamespace(encode=lambda params, images: images, params=None)
        self.params = None
        self.config = preset("debug", in_channels=3, context_dim=1)

    def encode(self, captions: Sequence[str]) -> Conditioning:
        return Conditioning(np.zeros((len(captions), 1, 1)), np.ones((len(captions), 1), bool))


def rows(wide: Sequence[int] = ()) -> list[Example]:
    return [
        Example(np.full((4, 8 if i in wide else 4, 3), 11 * i, np.uint8), f"row {i}")
        for i in range(ROWS)
    ]


@pytest.fixture(autouse=True)
def zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = lambda config, params, x_t, t, conditioning: jnp.zeros_like(x_t)  # noqa: E731
    monkeypatch.setattr(validation, "apply", apply)
    jax.clear_caches()


def measured(examples: Sequence[Example], batch_size: int = 32) -> dict[str, float]:
    context = EvaluationContext(Toy(), examples, batch_size=batch_size)
    return dict(validation_loss(context, bins=5))


def by_hand(examples: Sequence[Example]) -> np.ndarray:
    losses = []
    for i, row in enumerate(examples):
        latents = row.image.astype(np.float32) / 127.5 - 1
        key = jax.random.fold_in(jax.random.key(0), i)
        noise = np.asarray(jax.random.normal(key, latents.shape))
        losses.append(np.square(noise - latents).mean())
    return np.array(losses)


@pytest.mark.parametrize("wide", [(), (0, 3, 4, 9, 22)], ids=["one size", "two sizes"])
def test_rows_are_seen_once_each_in_batches_of_one_size(wide: Sequence[int]):
    examples, wanted = rows(wide), by_hand(rows(wide))
    found = [measured(examples, batch_size=size) for size in (4, 32)]
    for values in found:
        assert values["validation/loss"] == pytest.approx(wanted.mean(), rel=1e-5)
        for i in range(5):
            name = f"validation/loss_t_{(i + 0.5) / 5:.2f}"
            assert values[name] == pytest.approx(wanted[np.arange(ROWS) % 5 == i].mean(), rel=1e-5)


def test_times_are_spread_over_the_bins():
    times = spread_times(ROWS, bins=5, seed=0)
    np.testing.assert_array_equal((times * 5).astype(int), np.arange(ROWS) % 5)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="images: 4 rows for 5 bins"):
        measured(rows()[:4])


def test_rows_are_encoded_once_and_give_the_same_bytes():
    calls: list[int] = []

    class Counted(Toy):
        """Counts the batches of captions that are encoded."""

        def encode(self, captions: Sequence[str]) -> Conditioning:
            calls.append(len(captions))
            return super().encode(captions)

    plain = measured(rows((0, 3)), batch_size=4)
    for most, encodings in ((2**30, 1), (100, 3)):
        calls.clear()
        encoded = EncodedRows(most)
        for _ in range(3):
            context = EvaluationContext(Counted(), rows((0, 3)), batch_size=4, encoded=encoded)
            assert dict(validation_loss(context, bins=5)) == plain
        assert len(calls) == 7 * encodings, "batches of four: six of one size and one of two rows"


def test_a_check_between_batches_ends_it():
    def check() -> None:
        raise TimeoutError

    context = EvaluationContext(Toy(), rows(), batch_size=4, check=check)
    with pytest.raises(TimeoutError):
        dict(validation_loss(context, bins=5))
