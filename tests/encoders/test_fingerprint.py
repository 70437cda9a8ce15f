import jax.numpy as jnp
import numpy as np

from pinxit.encoders.fingerprint import fingerprint


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
