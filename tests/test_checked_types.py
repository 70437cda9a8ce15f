"""Types and shapes of arrays are checked while the tests run."""

import checked_types
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from pinxit.flow import path
from pinxit.models import norms


def test_shapes_of_arrays_must_agree():
    with pytest.raises(TypeCheckError, match="scale"):
        norms.rms_norm(jnp.ones((2, 4)), jnp.ones(3))


def test_types_in_modules_with_arrays_are_checked():
    with pytest.raises(TypeCheckError, match=r"pinxit\.flow\.path"):
        path.interpolate("x", jnp.ones(2), jnp.ones(2))


def test_all_modules_with_arrays_and_no_folders_are_checked():
    names = checked_types.modules_with_arrays()
    assert len(names) > 80 and not {"pinxit", "pinxit.models"} & set(names)
    assert {"pinxit.models.transformer", "pinxit.pipeline", "pinxit.encoders.vae"} <= set(names)
