"""Rows that are encoded while the run trains: which images first, the same bytes, and failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pinxit.arrays import Example
from pinxit.data.loader import ArrayRows, Loader, first_epoch
from pinxit.data.scenes.dataset import Scenes
from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.text_columns import TextColumns
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.train.input.encoding_rows import EncodingRows
from pinxit.train.input.in_memory import prepare_rows

ROWS, CHUNK = 40, 4


class Numbers:
    """Rows whose images contain their own number."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> Example:
        return Example(np.full((2, 2, 3), row, np.uint8), self.caption(row))

    def caption(self, row: int) -> str:
        return f"row {row}"


class Encoder:
    """An encoder that notes the rows of its chunks, and waits for permission if asked to."""

    def __init__(self) -> None:
        self.chunks: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.go.wait(20)
        self.chunks.append([int(image[0, 0, 0]) for image in images])
        return images[:, :1, :1].astype(np.float32)


def rows_of(
    encode: Callable[[np.ndarray], np.ndarray], *, captions: list[str] | None = None, **more
) -> EncodingRows:
    return EncodingRows(
        Numbers(),
        captions or [f"row {row}" for row in range(ROWS)],
        {"token_ids": np.arange(ROWS)[:, None]},
        encode,
        shape=(1, 1, 3),
        order=first_epoch(ROWS, seed=3),
        chunk=CHUNK,
        **more,
    )


def test_batches_are_those_of_rows_that_were_encoded_before():
    latents = np.stack([np.full((1, 1, 3), row, np.float32) for row in range(ROWS)])
    whole = ArrayRows({"latents": latents, "token_ids": np.arange(ROWS)[:, None]})
    rows = rows_of(Encoder())
    rows.begin()
    loaders = [Loader(each, batch_size=6, seed=3) for each in (whole, rows)]
    for step in (0, 1, 5, 20, 2):
        expected, actual = (loader.batch(step) for loader in loaders)
        assert list(actual) == list(expected)
        for name, column in expected.items():
            np.testing.assert_array_equal(actual[name], column)
            assert actual[name].dtype == column.dtype
    rows.close()


def test_the_first_batch_needs_one_chunk_and_the_rest_follow_in_the_order_of_the_epoch():
    encoder, order = Encoder(), first_epoch(ROWS, seed=3)
    done: list[np.ndarray] = []
    rows = rows_of(encoder, completed=done.append)
    rows.begin()
    rows.take(order[:CHUNK])
    rows._thread.join(20)
    assert [row for chunk in encoder.chunks for row in chunk] == order.tolist()
    assert [latents[:, 0, 0, 0].tolist() for latents in done] == [list(range(ROWS))]


def test_what_a_batch_waits_for_comes_first_in_the_same_chunks():
    encoder, order = Encoder(), first_epoch(ROWS, seed=3)
    encoder.go.clear()
    rows = rows_of(encoder)
    rows.begin()
    reader = threading.Thread(target=rows.take, args=(order[30:31],))
    reader.start()
    while not rows._awaited:
        pass
    encoder.go.set()
    reader.join(20)
    rows._thread.join(20)
    chunks = [order[start : start + CHUNK].tolist() for start in range(0, ROWS, CHUNK)]
    assert sorted(encoder.chunks) == sorted(chunks)
    assert encoder.chunks.index(chunks[30 // CHUNK]) <= 2  # two were begun before


def test_without_going_ahead_only_what_is_read_is_encoded():
    encoder, order = Encoder(), first_epoch(ROWS, seed=3)
    done: list[np.ndarray] = []
    rows = rows_of(encoder, completed=done.append)
    chunks = [order[start : start + CHUNK].tolist() for start in range(0, ROWS, CHUNK)]
    rows.begin(first=order[:2])
    while encoder.chunks != chunks[:1]:
        time.sleep(0.01)
    for number in (0, 2):
        rows.take(order[number * CHUNK : number * CHUNK + 1])
        rows.take(np.array(chunks[0]))
    rows._thread.join(0.2)
    assert encoder.chunks == [chunks[0], chunks[2]] and rows._thread.is_alive()
    rows.go_ahead()
    rows._thread.join(20)
    assert sorted(encoder.chunks) == sorted(chunks) and len(done) == 1


def test_rows_that_do_not_go_ahead_can_be_closed():
    rows = rows_of(Encoder())
    rows.begin(first=np.array([], int))
    rows.close()
    assert not rows._thread.is_alive()


def test_an_error_of_the_dataset_reaches_the_reader():
    def broken(images: np.ndarray) -> np.ndarray:
        raise MemoryError("no room")

    rows = rows_of(broken)
    rows.begin()
    with pytest.raises(MemoryError, match="no room"):
        rows.take(np.array([5]))
    wrong = rows_of(Encoder(), captions=["another"] * ROWS)
    wrong.begin()
    with pytest.raises(ValueError, match=r"caption\(\) returns 'another'"):
        wrong.take(np.array([5]))


def test_closed_rows_stop_and_store_nothing():
    encoder, done = Encoder(), []
    encoder.go.clear()
    rows = rows_of(encoder, completed=done.append)
    rows.begin()
    threading.Timer(0.1, encoder.go.set).start()
    rows.close()
    assert not rows._thread.is_alive()
    assert len(encoder.chunks) <= 2 and not done
    with pytest.raises(RuntimeError, match="stopped"):
        rows.take(np.arange(ROWS))


def test_encoding_beside_training_gives_the_bytes_and_the_cache_of_encoding_before(
    tmp_path: Path,
):
    scenes, autoencoder = Scenes(70, seed=1), load_autoencoder("tiny")
    text = TextColumns(load_text_encoder("tiny"))
    lines: list[str] = []

    def prepared(name: str, **more) -> ArrayRows | EncodingRows:
        return prepare_rows(
            scenes,
            about={"seed": 1},
            autoencoder=autoencoder,
            text=text,
            cache=tmp_path / name,
            track=lambda items, text, total: iter(items),
            say=lines.append,
            **more,
        )

    before, order = prepared("before"), first_epoch(70, seed=1)
    beside = prepared("beside", order=order)
    assert isinstance(beside, EncodingRows) and isinstance(before, ArrayRows)
    beside.begin()
    everything = np.arange(70)
    expected, actual = before.take(everything), beside.take(everything)
    assert list(expected) == list(actual)
    assert all(expected[name].tobytes() == actual[name].tobytes() for name in expected)
    beside._thread.join(20)
    files = [next((tmp_path / name).rglob("array.npy")) for name in ("before", "beside")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].parent.name == files[1].parent.name
    assert isinstance(prepared("beside", order=order), ArrayRows)
    assert lines[0] == "encoding 70 images with the VAE while training"
    assert lines[1].startswith("encoded 70 images with the VAE in")
