import numpy as np
import pytest

from pinxit.encoders.text_columns import TextColumns
from pinxit.encoders.text_encoder_catalogue import load_text_encoder

CAPTIONS = ["a red house", "", "a small blue tent on the left under a full moon, clear sky"]


def _track(items, *_):
    return iter(items)


@pytest.fixture(scope="module", params=["tiny", "tiny+tiny"])
def encoder(request):
    return load_text_encoder(request.param)


@pytest.mark.parametrize(("cache", "rtol"), [(False, 1e-5), (True, 2e-3)])
def test_the_step_reads_what_the_encoder_says(encoder, cache, rtol, tmp_path):
    text = TextColumns(encoder, cache=cache)
    arrays = text.columns(CAPTIONS, folder=tmp_path, track=_track)
    got = text.conditioning(text.frozen(arrays), arrays)
    want = encoder(CAPTIONS)
    mask = np.asarray(want.mask)
    assert np.asarray(got.mask).sum() == mask.sum()
    np.testing.assert_allclose(
        np.asarray(got.tokens)[np.asarray(got.mask)],
        np.asarray(want.tokens)[mask],
        rtol=rtol,
        atol=rtol,
    )
    assert got.tokens.shape[1] < want.tokens.shape[1]


@pytest.mark.parametrize("cache", [False, True])
def test_the_null_is_the_encoded_empty_prompt(encoder, cache, tmp_path):
    text = TextColumns(encoder, cache=cache)
    arrays = text.columns(CAPTIONS, folder=tmp_path, track=_track)
    null = text.frozen(arrays)["null"]
    row = text.conditioning(text.frozen(arrays), {n: a[1:2] for n, a in arrays.items()})
    np.testing.assert_array_equal(null.mask, row.mask)
    np.testing.assert_allclose(null.tokens, row.tokens, rtol=2e-3, atol=2e-3)


def test_kept_embeddings_are_computed_once(encoder, tmp_path):
    text = TextColumns(encoder, cache=True)
    first = text.columns(CAPTIONS, folder=tmp_path, track=_track)

    def fail(items, *_):
        raise AssertionError("encoded again")

    second = text.columns(CAPTIONS, folder=tmp_path, track=fail)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    with pytest.raises(AssertionError, match="encoded again"):
        text.columns([*CAPTIONS, "new"], folder=tmp_path, track=fail)
    assert not list(tmp_path.glob(".text*"))


def test_weights_of_kept_encoders_stay_out_of_the_step(encoder, tmp_path):
    text = TextColumns(encoder, cache=True)
    arrays = text.columns(CAPTIONS, folder=tmp_path, track=_track)
    assert text.frozen(arrays)["text"] == {}


def test_lost_ends_are_counted(encoder):
    assert TextColumns(encoder).truncated(["a " * 100, "a tree"]) == 1
