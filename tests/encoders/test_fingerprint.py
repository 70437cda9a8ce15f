"""Fingerprints of weights, and of the scale and shift that a config gives to latents."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.config import UsageError
from pinxit.data.prepared.encoder_identity import encoder_identity, without_scaling
from pinxit.data.prepared.manifest import Manifest
from pinxit.encoders import vae
from pinxit.encoders.autoencoder import IdentityAutoencoder, KLAutoencoder
from pinxit.encoders.fingerprint import (
    SCALING,
    encoder_fingerprints,
    fingerprint,
    fingerprint_of_outputs,
    scaling_of,
)
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.prepare.ledger import Ledger
from pinxit.stored_model import check_encoders


def _weights(scale=1.0):
    rng = np.random.default_rng(0)
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(40, 50)) * scale, jnp.float32)},
        "b": jnp.zeros(()),
    }


def test_it_tells_weights_apart():
    found = fingerprint(_weights())
    assert found == fingerprint(_weights()) and len(found) == 16
    assert found != fingerprint(_weights(1.1))
    assert found != fingerprint({"c": _weights()["a"], "b": jnp.zeros(())})


def test_it_does_not_depend_on_the_precision_in_memory():
    rounded = {"a": jnp.asarray(_weights()["a"]["kernel"], jnp.bfloat16)}
    assert fingerprint(rounded) == fingerprint({"a": _weights()["a"]["kernel"]})


def test_no_weights_have_none():
    assert fingerprint({}) == ""


def test_what_is_computed_depends_on_the_type_too():
    params = {"kernel": jnp.linspace(-1.0, 1.0, 40, dtype=jnp.bfloat16)}
    wide = {"kernel": params["kernel"].astype(jnp.float32)}
    assert fingerprint(params) == fingerprint(wide)
    assert fingerprint_of_outputs(params) != fingerprint_of_outputs(wide)


SHAPE = vae.AutoencoderKLConfig(block_out_channels=(4,), norm_num_groups=2, latent_channels=2)


def _autoencoder(**changes) -> KLAutoencoder:
    config = dataclasses.replace(SHAPE, **changes)
    return KLAutoencoder(vae.init_vae(SHAPE, jax.random.key(0)), config)


def test_scale_and_shift_tell_autoencoders_of_equal_weights_apart():
    old, new = _autoencoder(), _autoencoder(scaling_factor=0.13025)
    assert fingerprint(old.params) == fingerprint(new.params)
    assert scaling_of(old) == "scale 0.18215, shift 0.0"
    assert scaling_of(new) == "scale 0.13025, shift 0.0"
    assert scaling_of(_autoencoder(shift_factor=0.25)) == "scale 0.18215, shift 0.25"
    assert scaling_of(IdentityAutoencoder()) == ""


def test_a_model_refuses_another_scale_and_older_models_accept_any():
    text = load_text_encoder("tiny")
    stored = encoder_fingerprints(text, _autoencoder())
    check_encoders(stored, dict(stored), where="runs/a")
    other = encoder_fingerprints(text, _autoencoder(scaling_factor=0.5))
    with pytest.raises(UsageError) as error:
        check_encoders(stored, other, where="runs/a")
    assert str(error.value) == (
        "vae: 'scale 0.5, shift 0.0' is not the scaling of latents that runs/a was trained with; "
        "valid: scale 0.18215, shift 0.0 (scaling_factor and shift_factor in the autoencoder's "
        "config.json)"
    )
    older = {name: value for name, value in stored.items() if name != SCALING}
    assert older.keys() == {"text_encoder", "vae"}
    check_encoders(older, other, where="runs/a")  # written before the scale was recorded
    check_encoders(stored, older, where="runs/a")  # and read by a version that does not know it


def _identity(scaling: str) -> dict:
    return {"encoders": encoder_identity(vae="sd", vae_fingerprint="ab", scaling=scaling)}


def test_a_prepared_dataset_records_the_scale_and_keeps_its_fingerprint():
    with_scale, older = (
        Manifest({"format": 2, **_identity(scaling)}, ("a",), {"latents": (None,)}, {"ok": 1})
        for scaling in ("scale 0.18215, shift 0.0", "")
    )
    assert with_scale.identity["encoders"]["vae"]["scaling"] == "scale 0.18215, shift 0.0"
    assert "scaling" not in older.identity["encoders"]["vae"]
    assert with_scale.fingerprint() == older.fingerprint()
    assert without_scaling({"images": 1}) == {"images": 1}


def test_a_folder_that_an_older_version_began_is_finished_as_it_was_begun(tmp_path):
    ledger = Ledger(tmp_path, "latents")
    ledger.begin(_identity(""))
    before = (tmp_path / "latents.json").read_bytes()
    ledger.begin(_identity("scale 0.18215, shift 0.0"))
    assert (tmp_path / "latents.json").read_bytes() == before
    new = Ledger(tmp_path / "new", "latents")
    new.begin(_identity("scale 0.18215, shift 0.0"))
    stored = json.loads((tmp_path / "new" / "latents.json").read_text())
    assert stored["identity"]["encoders"]["vae"]["scaling"] == "scale 0.18215, shift 0.0"
    with pytest.raises(UsageError, match=r"encoders.vae.scaling \(was 'scale 0.18215, .*0.5"):
        new.begin(_identity("scale 0.5, shift 0.0"))
