"""The planner's data figures are those of docs/coyo.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pinxit.plan import data_cost as data
from pinxit.plan.compile_worker import work
from pinxit.plan.data_cost import data_plan
from pinxit.plan.targets import HERE
from pinxit.train.settings import ModelConfig, TrainConfig

PAGE = (Path(__file__).parents[2] / "docs" / "coyo.md").read_text()


def rows(heading: str) -> list[list[str]]:
    lines = PAGE[PAGE.index(heading) :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_assumptions_are_the_pages():
    values = [
        float(re.match(r"[\d,.]+", row[1]).group().replace(",", ""))  # type: ignore[union-attr]
        for row in rows("| assumption |")
    ]
    ours = [data.PASS * 100, data.ALIVE * 100, data.FETCHED / 1e3, data.KEPT / 1e3]
    ours += [data.LATENT / 1e3, data.T5_ROW / 1e3]
    assert values[:6] == pytest.approx(ours)
    assert (values[7], values[8] * 1e9) == (data.ATTEMPTS, data.LINE)


def test_a_row_of_the_page():
    """100 M rows of the table give 13.75 M images."""
    found = data_plan(13.75e6, image_size=256, latent=(32, 32, 4), stored_width=4096)
    assert found.rows == pytest.approx(100e6)
    sizes = (found.fetched_bytes, found.image_bytes, found.latent_bytes, found.text_bytes)
    assert [f"{size / 1e9:.1f}" for size in sizes] == ["1650.0", "412.5", "115.5", "2255.0"]
    assert f"{found.fetch_seconds / 3600:.1f} h" == rows("| rows of COYO |")[2][8]
    assert found.epochs == 1


def test_a_long_run_repeats_what_there_is():
    found = data_plan(500e6, image_size=512, latent=(64, 64, 4), stored_width=0)
    assert found.distinct == pytest.approx(747e6 * 0.25 * 0.55)
    assert found.epochs == pytest.approx(500e6 / found.distinct)
    beside = 8.4e3 - 32 * 32 * 4 * 2  # a longer side does not make captions longer
    assert found.latent_bytes == pytest.approx((64 * 64 * 4 * 2 + beside) * found.distinct)
    assert found.text_bytes == 0


def test_latents_are_as_large_as_the_autoencoder_makes_them():
    def each(latent: tuple[int, ...] | None) -> float:
        found = data_plan(1e6, image_size=256, latent=latent, stored_width=0)
        return found.latent_bytes / found.distinct

    assert each((32, 32, 4)) == pytest.approx(8.4e3)
    assert each((32, 32, 16)) == pytest.approx(8.4e3 + 12 * 32 * 32 * 2)  # SD3's and Flux's
    assert each(None) == 0


@pytest.mark.parametrize(("in_step", "vae"), [(False, True), (True, True), (False, False)])
def test_the_worker_says_the_shape_of_a_latent(
    bundle: Path, tmp_path: Path, in_step: bool, vae: bool
):
    model = ModelConfig(preset="debug", use_stable_vae=vae, hidden_size=16, num_heads=2, depth=1)
    settings = {"text_encoder": str(bundle), "vae": str(bundle), "image_size": 32, "model": model}
    config = TrainConfig(**settings, encode_in_step=in_step, batch_size=8).resolved()
    latent = work(config, HERE, programs=tmp_path)["latent"]
    assert latent == ((16, 16, 2) if vae and not in_step else None)
