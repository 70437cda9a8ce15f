"""Makes requests that every server must refuse: broken JSON, broken forms, and wrong values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

DRAWING = ("/v1/images/generations", "/v1/jobs")
"""The routes whose bodies are drawing requests in JSON."""
EDITS = "/v1/images/edits"
BIG = b" " * 2**16


@dataclass(frozen=True)
class Malformed:
    """A request that must be answered with an error of the client."""

    kind: str
    path: str
    headers: dict[str, str]
    content: bytes | Callable[[], Iterator[bytes]]

    def body(self) -> bytes | Iterator[bytes]:
        """Returns the body, a new iterator for one that is made as it is sent."""
        return self.content if isinstance(self.content, bytes) else self.content()


def malformed_requests(paths: list[str], count: int, seed: int) -> Iterator[Malformed]:
    """Yields `count` requests to the paths, every second one to a route that draws.

    Equal seeds give equal requests. The largest bodies are rarer than the others.
    """
    rng = random.Random(seed)
    drawing = [path for path in paths if path in (*DRAWING, EDITS)]
    for number in range(count):
        path = rng.choice(drawing if number % 2 else paths)
        kinds = [*GENERAL, *(VALUES if path in DRAWING else FORMS if path == EDITS else ())]
        weights = [0.2 if kind == huge.__name__ else 1.0 for kind in kinds]
        (name,) = rng.choices(kinds, weights)
        headers, content = ALL[name](rng)
        yield Malformed(name, path.replace("{", "").replace("}", ""), headers, content)


# --- bodies that are wrong everywhere ---------------------------------------------------------

Answer = tuple[dict[str, str], Any]
JSON = {"Content-Type": "application/json"}


def bad_json(rng: random.Random) -> Answer:
    """Text that is no JSON: cut, with a letter too many, or random bytes."""
    whole = json.dumps({"prompt": "a red house", "n": 1, "size": "64x64"}).encode()
    place = rng.randrange(1, len(whole))
    return JSON, rng.choice(
        [
            whole[: place - 1],
            whole[:place] + b"\x00" + whole[place:],
            whole + b"}",
            rng.randbytes(rng.randrange(1, 300)),
            b"",
            b"\xff\xfe{\x00}\x00",
            b"'prompt'",
            b'{"prompt": "a" "n": 1}',
            b'{"prompt": "\xff"}',
        ]
    )


def not_an_object(rng: random.Random) -> Answer:
    """JSON that is no object."""
    return JSON, rng.choice([b"[]", b"null", b"3", b'"text"', b"true", b'[{"prompt": "a"}]'])


def not_finite(rng: random.Random) -> Answer:
    """Numbers that JSON does not have."""
    value = rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "-1e400", "9" * 5000])
    name = rng.choice(["guidance_scale", "n", "seed", "shift", "unknown"])
    return JSON, f'{{"prompt": "a", "{name}": {value}}}'.encode()


def deep(rng: random.Random) -> Answer:
    """Values inside of 100,000 others, or of a few hundred."""
    depth = rng.choice([100, 900, 100_000])
    opened, closed = rng.choice([("[", "]"), ('{"a":', "}")])
    inner = opened * depth + "1" + closed * rng.choice([0, depth])
    return JSON, f'{{"prompt": "a", "x": {inner}}}'.encode()


def surrogate(rng: random.Random) -> Answer:
    """Half of a character."""
    half = rng.choice(["\\ud800", "\\udfff", "\\udc00\\ud800"])
    name = rng.choice(["prompt", "model", "negative_prompt", half])
    return JSON, f'{{"prompt": "a", "{name}": "x{half}"}}'.encode()


def wrong_type(rng: random.Random) -> Answer:
    """JSON or nonsense with another content type."""
    kind = rng.choice(["text/plain", "application/xml", "image/png", "", "a" * 3000, "json"])
    return {"Content-Type": kind}, b'{"prompt": "a"}'


def huge(rng: random.Random) -> Answer:
    """A body of 60 MB."""
    start = b'{"prompt": "'

    def chunks() -> Iterator[bytes]:
        yield start
        for _ in range(60 * 2**20 // len(BIG)):
            yield BIG

    if rng.random() < 0.5:
        return JSON, chunks
    length = {"Content-Length": str(len(start) + 60 * 2**20 // len(BIG) * len(BIG))}
    return {**JSON, **length}, chunks


def broken_form(rng: random.Random) -> Answer:
    """Forms whose parts are not what the header says."""
    kind = {"Content-Type": "multipart/form-data; boundary=XX"}
    part = b'--XX\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na red house\r\n'
    return rng.choice(
        [
            (kind, part),
            (kind, b"--YY\r\n\r\n--YY--"),
            (kind, part + b"--XX--"),
            (kind, b"--XX\r\nnonsense\r\n\r\n--XX--\r\n"),
            (kind, rng.randbytes(200)),
            (kind, b"--XX\r\n\r\na\r\n--XX--\r\n"),
            ({"Content-Type": "multipart/form-data"}, part),
            ({"Content-Type": "multipart/form-data; boundary="}, part),
            (kind, part * 200 + b"--XX--\r\n"),
            ({"Content-Type": "multipart/form-data; boundary=" + "y" * 500}, part),
            ({"Content-Type": "multipart/form-data; boundary=XX; charset=zip"}, part),
        ]
    )


# --- values that are wrong for drawing --------------------------------------------------------

WRONG: dict[str, list[Any]] = {
    "prompt": [None, 3, [], {}, True, "a" * 32_001, "é" * 5_000_000],
    "n": [0, -1, 10**9, 1.5, "1", True, [], 10**300],
    "size": ["0x0", "-1x-1", "9999x9999", "x", "64", "64x", 64, [64, 64], "1" * 30, "63x65", "٣x٣"],
    "seed": [-1, 2**32, "7", 0.5, [], 10**100],
    "quality": ["best", 1, ""],
    "model": ["../../etc/passwd", "gpt-image-2", 7, "m" * 301, "\u0000", ""],
    "num_inference_steps": [0, -1, 10**9, "10", 1.5],
    "steps": [10**6, None],
    "guidance_scale": ["4", -1, True, []],
    "guidance_interval": [[1], [0.9, 0.1], "0 1", [0, 1, 2], [2, 3], ["a", "b"]],
    "solver": ["", "magic", 3, "e" * 10_000],
    "shift": [0, -1, "1"],
    "spacing": ["odd", 1],
    "cfg_zero_star": ["yes", 2],
    "negative_prompt": [1, [], "a" * 40_000],
    "svg": [{}],
    "frame_count": [1],
    "keep": ["yes", 1],
}
"""Values that no drawing request may have."""


def wrong_value(rng: random.Random) -> Answer:
    """A drawing request with one wrong value, and perhaps fields that nobody knows."""
    name = rng.choice(list(WRONG))
    value = rng.choice(WRONG[name])
    body: dict[str, Any] = {"prompt": "a red house"}
    body |= {f"field {i}\u202e{'x' * i}": i for i in range(rng.choice([0, 0, 3, 300]))}
    body[name] = value
    if value in (None, "") or (name == "size" and value == "64"):
        body["n"] = -1  # an absent field is allowed
    return JSON, json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()


def long_prompt(rng: random.Random) -> Answer:
    """A prompt of 5 MB."""
    return JSON, json.dumps({"prompt": rng.choice("aé🏠\u0001") * 5_000_000}).encode()


def wrong_form_value(rng: random.Random) -> Answer:
    """A form with a picture that is none, or with wrong values."""
    image = rng.choice(
        [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + rng.randbytes(40), rng.randbytes(99)]
    )
    fields = {"prompt": "a", rng.choice(["n", "seed", "strength"]): rng.choice(["-1", "nan", "x"])}
    text = "".join(
        f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    file = '--XX\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    content = text.encode() + file.encode() + image + b"\r\n--XX--\r\n"
    return {"Content-Type": "multipart/form-data; boundary=XX"}, content


GENERAL = {
    each.__name__: each
    for each in (
        *(bad_json, not_an_object, not_finite, deep, surrogate, wrong_type, huge, broken_form),
    )
}
VALUES = {each.__name__: each for each in (wrong_value, long_prompt)}
FORMS = {wrong_form_value.__name__: wrong_form_value}
ALL = {**GENERAL, **VALUES, **FORMS}
