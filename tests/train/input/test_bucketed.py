"""Training on images of several sizes: prepared and streamed, stopped and resumed."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import prepare_work as work
import prepared_toys as toys
import pytest
from pictures import write_captioned
from rich.console import Console
from toys import assert_trees_equal

from pinxit.cli.prepare import prepare_command
from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.images.decode import ImageConfig, encode_image
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.prepared.shards import ShardReader, unpack
from pinxit.data.row import Row, Unit
from pinxit.model_loading import load_checkpoint
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.stages import run_images
from pinxit.train.build import build
from pinxit.train.display import Display
from pinxit.train.input.attempt_order import Attempts
from pinxit.train.input.feed import Feed
from pinxit.train.input.image_stream import Stream
from pinxit.train.input.open import open_feed
from pinxit.train.input.streamed_loader import StreamedLoader
from pinxit.train.metric_rows import read_rows
from pinxit.train.run import RunResult, run
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import (
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
)

SIZES = ((24, 20), (30, 18), (18, 30), (26, 24))
"""By number: half of the pictures are nearly square, a quarter wide, a quarter high."""
ROWS = 64


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_captioned(tmp_path_factory.mktemp("pictures"), ROWS, SIZES)


@pytest.fixture(scope="module")
def dataset(pictures: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "set"
    words = ["folder", "--dataset_path", pictures, "--out", out, "--vae", bundle, "--engine"]
    words += ["inline", "--image_size", 16, "--unit_rows", 24, "--images.workers", 1]
    words += ["--images.bucket_step", 4, "--encode_batch", 8]
    assert prepare_command([str(word) for word in words]) == 0
    return out


@pytest.fixture
def config(dataset: Path, bundle: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        name="bucketed",
        dataset_path=str(dataset),
        image_size=16,
        batch_size=4,
        max_steps=10,
        text_encoder=str(bundle),
        vae=str(bundle),
        log_interval=1,
        save_interval=5,
        sample_interval=0,
        output_dir=str(tmp_path),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=0),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("red",), seeds=(0,)),
        evaluation=EvalConfig(images=12, batch_size=5),
    )


def train(config: TrainConfig) -> tuple[RunResult, str]:
    said = io.StringIO()
    result = run(config, ["pinxit", "train"], console=Console(file=said, width=200))
    return result, said.getvalue()


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row]


def test_shards_say_which_shape_a_row_has(dataset: Path):
    manifest = Manifest.read(dataset)
    assert manifest.images is not None and manifest.latents is not None
    assert manifest.identity["image"]["buckets"] == [[12, 20], [16, 16], [20, 12]]
    for kind, about in (("images", manifest.images), ("latents", manifest.latents)):
        total: Counter[str] = Counter()
        for info, shapes in zip(manifest.files[kind], about["shapes"], strict=True):
            assert info is not None
            with ShardReader(dataset / kind / info.name) as reader:
                records = [unpack(record) for record in reader]
            keys = [meta["key"] for _, meta in records]
            if kind == "latents":
                found = ["x".join(map(str, arrays["latents"].shape)) for arrays, _ in records]
                assert found == sorted(found) and Counter(found) == shapes
            starts = np.cumsum([0, *shapes.values()])
            for low, high in itertools.pairwise(starts):
                assert keys[low:high] == sorted(keys[low:high])
            total.update(shapes)
        assert sorted(total.values()) == [ROWS // 4, ROWS // 4, ROWS // 2]
    rows = PreparedRows(dataset, kind="images")
    for bucket in rows.buckets:
        assert rows.take(np.arange(bucket.start, bucket.stop))["images"].shape[1:] == bucket.shape


def test_a_retry_keeps_the_shapes(pictures: Path, tmp_path: Path):
    """The images of a unit that is taken up again are sorted in among the new ones."""
    image = dataclasses.replace(work.IMAGE, buckets=((16, 16), (20, 12), (24, 8)))
    healed = work.ToyWeb(healed=True)

    def run_on(out: Path, **more: Any) -> Manifest:
        ended = run_images(work.stage(out, image=image, **more), InlineEngine())
        assert ended.manifest is not None
        return ended.manifest

    run_on(tmp_path / "a")
    retried = run_on(tmp_path / "a", web=healed, retry=True)
    once = run_on(tmp_path / "b", web=healed)
    assert retried.images == once.images and retried.kept == once.kept
    named = (
        [i.name for i in retried.files["images"] if i],
        [i.name for i in once.files["images"] if i],
    )
    for one, two in zip(*named, strict=True):
        a, b = tmp_path / "a" / "images" / one, tmp_path / "b" / "images" / two
        keys = [[meta["key"] for _, meta in toys.records(path)] for path in (a, b)]
        assert keys[0] == keys[1]


def opened(config: TrainConfig, position: Any = None) -> tuple[Feed, str]:
    """The feed of a run, and what was said."""
    said = io.StringIO()
    display = Display("x", max_steps=1, console=Console(file=said, width=300))
    settings = config.resolved()
    folder = RunFolder(Path(config.output_dir) / config.name)
    feed = open_feed(settings, build(settings), folder, display, source=None, position=position)
    return feed, said.getvalue()


def test_a_feed_has_batches_of_one_size_and_held_out_rows_of_all(config: TrainConfig):
    feed, said = opened(config)
    assert "52 rows to train on, 12 held out" in said
    sizes = "12 x 20 (13), 16 x 16 (26), 20 x 12 (13)"
    assert f"3 image sizes (the step compiles once for each): {sizes}" in said
    shapes = Counter(raw["latents"].shape for raw in feed.loader.batches(0, 26))
    assert set(shapes) == {(4, 10, 6, 2), (4, 8, 8, 2), (4, 6, 10, 2)}
    assert shapes[4, 8, 8, 2] == 13  # two epochs of 52 rows
    examples = feed.held_out()
    found = Counter(example.image.shape for example in examples)
    assert found == {(20, 12, 3): 3, (16, 16, 3): 6, (12, 20, 3): 3}
    assert all(example.caption.startswith("red light") for example in examples)
    kept = feed.position(7)
    assert (kept["step"], kept["held_out"]) == (7, 12)
    # the number of rows held out decides the order of the others: a resumed run keeps its own
    more = dataclasses.replace(config, evaluation=EvalConfig(images=16))
    resumed, said = opened(more, kept)
    assert "12 held out" in said
    one, two = (next(feed.loader.batches(7, 8)) for feed in (feed, resumed))
    np.testing.assert_array_equal(one["latents"], two["latents"])


def test_pixels_of_several_sizes(config: TrainConfig):
    model = dataclasses.replace(config.model, use_stable_vae=False, patch_size=4)
    feed, said = opened(dataclasses.replace(config, model=model))
    assert "12 x 20 (13), 16 x 16 (26), 20 x 12 (13)" in said
    shapes = {raw["images"].shape for raw in feed.loader.batches(0, 13)}
    assert shapes == {(4, 20, 12, 3), (4, 16, 16, 3), (4, 12, 20, 3)}
    assert len(feed.held_out()) == 12


@pytest.mark.slow
def test_a_resumed_run_equals_the_whole_one(config: TrainConfig):
    lowered = list[str]()

    def note(event: str, seconds: float, **more: Any) -> None:
        if event.endswith("jaxpr_to_mlir_module_duration"):
            lowered.append(str(more.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        whole, said = train(config)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert whole.status == "finished" and whole.results["validation"], said
    assert lowered.count("jit(step)") == 3
    half = dataclasses.replace(config, name="half", max_steps=4)
    train(half)
    more = dataclasses.replace(half, max_steps=10, evaluation=EvalConfig(images=16, batch_size=5))
    resumed, said = train(more)
    assert resumed.status == "finished" and "12 held out" in said, said
    assert losses(resumed.folder) == losses(whole.folder)
    one, two = (load_checkpoint(run.folder, ema="raw").params for run in (resumed, whole))
    assert_trees_equal(one, two)


def streamed(config: TrainConfig, pictures: Path, **more: Any) -> TrainConfig:
    return dataclasses.replace(
        config,
        dataset_name="folder",
        dataset_path=str(pictures),
        images=ImageConfig(workers=1, bucket_step=4),
        **more,
    )


@pytest.mark.slow
def test_streams_fill_a_batch_for_each_size(config: TrainConfig, pictures: Path):
    """Three epochs over two stops: each row is trained on as often as it was tried to its end."""
    for steps in (3, 20, 30):
        result, said = train(streamed(config, pictures, max_steps=steps, save_interval=99))
        assert result.status == "finished", said
    assert "3 image sizes (the step compiles once for each): 12 x 20, 16 x 16, 20 x 12" in said
    lines = [json.loads(s) for s in (result.folder / "outcomes.jsonl").read_text().splitlines()]
    keys = [line["key"] for line in lines]
    assert {line["status"] for line in lines} == {"ok"} and len(keys) == 12 + 30 * 4
    times = Counter(keys[12:])
    assert not set(times) & set(keys[:12])
    # 52 rows, 120 samples: between two and three epochs, and what waits for its batch
    assert set(times.values()) <= {1, 2, 3, 4} and len(times) == ROWS - 12
    assert result.results["validation"]


@dataclasses.dataclass(frozen=True)
class Sized(work.ToySource):
    """Pictures of three sizes, one of them rare."""

    has_images: bool = True

    def read(self, unit: Unit) -> Iterator[Row]:
        for row in super().read(unit):
            number = int(row.caption.split()[-1]) if row.caption != "one" else 0
            size = (20, 20) if number % 5 else (30, 18) if number % 10 else (18, 30)
            pixels = np.full((*size, 3), number, np.uint8)
            yield dataclasses.replace(row, image=encode_image(pixels))


def test_a_stream_of_sizes_loses_no_row_over_stops():
    """Batches of one size; whatever waits at a stop is fetched again, and nothing else is."""
    image = ImageConfig(size=16, workers=1, bucket_step=4)
    position, used = None, Counter[str]()
    for steps in (3, 1, 6, 2, 8):
        stream = Stream(
            Sized(), filters=work.FILTERS, fetch=FetchConfig(), images=image, start=position
        )

        def encode(found: Any) -> list[dict[str, np.ndarray]]:
            assert len({one.image.shape for one in found}) == 1
            keys = [np.array(one.attempt.row.key) for one in found]
            return [{"images": f.image, "key": k} for f, k in zip(found, keys, strict=True)]

        loader = StreamedLoader(stream, encode, batch_size=4, chunk=2)
        for batch in loader.batches(0, steps):
            assert batch["images"].shape[0] == 4
            used.update(batch["key"].tolist())
        position = stream.position([loader.progress(steps)])
    assert used.total() == 80 and position is not None and position.waiting
    # what was used and what is left from here on are the order of attempts, each once
    rest = itertools.islice(Attempts(Sized(), work.FILTERS, start=position), 3 * 58 - 80)
    whole = itertools.islice(Attempts(Sized(), work.FILTERS), 3 * 58)
    assert used + Counter(map(str, rest)) == Counter(map(str, whole))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"images": ImageConfig(bucket_step=4)},
            "images.bucket_step: 4 is not applicable: .* has the image sizes that it was prepared",
        ),
        ({"image_size": 32}, "image_size: 32 is different from that of .*; valid: 16"),
        (
            {
                "dataset_path": None,
                "dataset_name": "mock",
                "images": ImageConfig(buckets=((8, 8),)),
            },
            "images.buckets: .* not applicable: mock has images of one size",
        ),
    ],
)
def test_what_does_not_fit_is_refused(config: TrainConfig, changes: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        opened(dataclasses.replace(config, **changes))


def test_drawn_images_have_one_size():
    with pytest.raises(ValueError, match=r"images.buckets: .* not applicable: mock has images"):
        TrainConfig(dataset_name="mock", images=ImageConfig(buckets=((8, 8),)))


def test_sizes_must_be_whole_tokens(config: TrainConfig, pictures: Path):
    odd = ImageConfig(workers=1, buckets=((16, 16), (18, 14)))
    with pytest.raises(ValueError, match=r"images.buckets: '18 x 14' is not divisible into tokens"):
        train(dataclasses.replace(streamed(config, pictures), images=odd))
    step = ImageConfig(workers=1, bucket_step=5)
    with pytest.raises(ValueError, match="size: 16 is not a bucket size; valid: a multiple of 5"):
        train(dataclasses.replace(streamed(config, pictures), images=step))
