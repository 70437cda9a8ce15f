"""Batches are a pure function of the step."""

import threading

import numpy as np
import pytest

from pinxit.data.loader import ArrayRows, Loader
from pinxit.data.mock import MockImages


def loader(rows: int = 50, batch_size: int = 8, seed: int = 1) -> Loader:
    values = np.arange(rows, dtype=np.float32)
    return Loader(ArrayRows({"value": values}), batch_size=batch_size, seed=seed)


def test_every_row_once_per_epoch_in_a_new_order():
    order = np.concatenate([loader().row_numbers(step) for step in range(25)])
    epochs = order.reshape(4, 50)
    assert all(set(epoch) == set(range(50)) for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_position_is_exact_at_every_step():
    full = [batch["value"] for batch in loader().batches(0, 12)]
    for start in range(12):
        resumed = [batch["value"] for batch in loader().batches(start, 12)]
        np.testing.assert_array_equal(np.array(resumed), np.array(full[start:]))


def test_index_counts_samples_and_seed_changes_the_order():
    batches = [loader().batch(step) for step in (0, 1, 2)]
    assert [int(i) for batch in batches for i in batch["index"]] == list(range(24))
    assert (loader(seed=2).row_numbers(0) != loader(seed=1).row_numbers(0)).any()


@pytest.mark.parametrize("readers", [1, 2, 4, 8])
@pytest.mark.parametrize("strided", [False, True])
def test_any_number_of_readers_read_the_order_of_one(readers: int, strided: bool):
    places = np.arange(16)
    parts = [
        places[i::readers] if strided else np.split(places, readers)[i] for i in range(readers)
    ]
    values = ArrayRows({"value": np.arange(50, dtype=np.float32)})
    several = [Loader(values, batch_size=16, seed=1, part=part) for part in parts]
    alone = loader(batch_size=16)
    for step in (0, 3, 7):  # over the end of an epoch, too
        batches = [one.batch(step) for one in several]
        whole = alone.batch(step)
        for name in ("value", "index"):
            found = np.empty_like(whole[name])
            for part, batch in zip(parts, batches, strict=True):
                found[part] = batch[name]
            np.testing.assert_array_equal(found, whole[name])


def test_more_rows_in_a_batch_than_in_the_dataset():
    assert sorted(loader(rows=3, batch_size=6).row_numbers(0)) == [0, 0, 1, 1, 2, 2]


def test_closing_ends_the_thread_and_errors_reach_the_consumer():
    batches = loader().batches(0, 100)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name == "pinxit-loader"]

    class Broken(ArrayRows):
        def take(self, rows):
            raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        next(Loader(Broken({"value": np.zeros(4)}), batch_size=2).batches(0, 2))


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="batch_size"):
        loader(batch_size=0)
    with pytest.raises(ValueError, match="empty"):
        loader(rows=0)
    with pytest.raises(ValueError, match="indices in a batch of 4"):
        Loader(ArrayRows({"a": np.zeros(3)}), batch_size=4, part=np.array([3, 4]))
    with pytest.raises(ValueError, match="differ"):
        ArrayRows({"a": np.zeros(3), "b": np.zeros(4)})


def test_mock_images_are_deterministic():
    images = MockImages(10, 16)
    np.testing.assert_array_equal(images[3].image, MockImages(10, 16)[3].image)
    assert images[3].image.shape == (16, 16, 3)
    assert images[3].attributes["colour"] in images[3].caption
    with pytest.raises(IndexError):
        images[10]
