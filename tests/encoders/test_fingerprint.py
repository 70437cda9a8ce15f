import jax.numpy as jnp
import numpy as np

from pinxit.encoders.fingerprint import fingerprint, fingerprint_of_outputs


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
