"""The types of all arguments are checked while the tests run, in modules of each kind."""

import checked_types
import jax.numpy as jnp
import pytest
from beartype.roar import BeartypeCallHintViolation

from pinxit import processor
from pinxit.cli import train
from pinxit.models import norms


def test_shapes_of_arrays_must_agree():
    with pytest.raises(Exception, match="scale") as raised:
        norms.rms_norm(jnp.ones((2, 4)), jnp.ones(3))
    assert type(raised.value).__module__.startswith("jaxtyping")


def test_plain_types_are_checked():
    with pytest.raises(BeartypeCallHintViolation, match="model_and_flags"):
        processor.model_and_flags(3)


def test_modules_with_imports_for_type_checkers_are_checked():
    assert "pinxit.cli.train" in checked_types.modules_that_contain(checked_types.GUARD)
    with pytest.raises(Exception, match="_say"):
        train._say(3)


def test_no_folder_is_left_to_the_slower_check():
    names = checked_types.modules_that_contain("import")
    assert len(names) > 500 and not {"pinxit", "pinxit.models"} & set(names)
