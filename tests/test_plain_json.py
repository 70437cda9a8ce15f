"""Values from any code become plain JSON before they are written."""

import json
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from pinxit.files import write_json
from pinxit.plain_json import plain_values

VALUES = [
    (np.int64(3), 3),
    (np.uint8(255), 255),
    (np.bool_(True), True),
    (np.float32(0.5), 0.5),
    (np.float64(0.25), 0.25),
    (ml_dtypes.bfloat16(1.5), 1.5),
    (np.array(7), 7),
    (np.array([1, 2]), [1, 2]),
    (np.array([1.5], ml_dtypes.bfloat16), [1.5]),
    (jnp.int32(4), 4),
    (jnp.bfloat16(1.5), 1.5),
    (np.str_("a"), "a"),
    (Path("a/b"), "a/b"),
    ({3, 1}, [1, 3]),
    ({np.int64(1): (np.int64(2), None)}, {"1": [2, None]}),
    ("text", "text"),
    (True, True),
    (None, None),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda value: repr(value)[:30])
def test_a_value_becomes_plain(value, expected):
    result = plain_values({"deep": [value]})["deep"][0]
    assert result == expected and type(result) is type(expected)
    json.dumps(result)


def test_nan_stays(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"a": np.float32("nan"), "n": np.sum(np.array([True]))}, allow_nan=True)
    assert path.read_text() == '{\n "a": NaN,\n "n": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": np.float32("nan")})


def test_a_writer_gets_plain_values():
    from pinxit.train.background_writer import BackgroundWriter

    rows = []

    class Kept:
        def write(self, step, values):
            rows.append(json.dumps(values))

        def picture(self, step, path):
            raise AssertionError

        def close(self):
            pass

    writer = BackgroundWriter("kept", Kept, lambda name, error: rows.append(error))
    writer.write(1, {"rows_replaced": np.int64(2), "many": np.arange(2), "flag": np.bool_(0)})
    writer.flush(5)
    writer.close(5)
    assert rows == ['{"rows_replaced": 2, "many": [0, 1], "flag": false}']
