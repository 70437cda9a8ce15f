"""Attacks by files: pictures that are bombs or no pictures, and checkpoints that run code."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import re
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from attacked_studio import RECIPE, Attacked, attacked, png
from PIL import Image
from PIL.PngImagePlugin import PngInfo

MOST_MEMORY = 250 * 2**20
"""Bytes by which a refused upload may raise the memory of the server."""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A studio whose runs include hostile ones."""
    victim = attacked(tmp_path_factory.mktemp("uploads"))
    yield victim
    victim.app.state.studio.close()


def animation(kind: str, frames: int) -> bytes:
    """Returns an animation of many frames."""
    buffer = io.BytesIO()
    pictures = [Image.new("L", (8, 8), number % 256) for number in range(frames)]
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], duration=10)
    return buffer.getvalue()


def text_bomb(kind: bytes, size: int) -> bytes:
    """Returns a PNG file with a text that unpacks to many bytes."""
    packed = zlib.compress(b"a" * size, 9)
    start = b"parameters\0\1\0\0\0" if kind == b"iTXt" else b"parameters\0\0"
    return png(16, 16, (kind, start + packed))


def pixel_bomb() -> bytes:
    """Returns a PNG file of few bytes that claims a size and unpacks to many bytes."""
    return png(12_000, 12_000, data=zlib.compress(bytes(40 * 2**20), 9))


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"
UPLOADS: dict[str, tuple[str, Any]] = {
    "a picture of 50,000 x 50,000": ("a.png", lambda: png(50_000, 50_000)),
    "a picture of 2 billion x 2 billion": ("a.png", lambda: png(2**31 - 1, 2**31 - 1)),
    "a picture without size": ("a.png", lambda: png(0, 0)),
    "pixels that unpack to more than they claim": ("a.png", pixel_bomb),
    "SVG with a script": ("a.svg", lambda: SVG),
    "SVG that is called PNG": ("a.png", lambda: SVG),
    "HTML that is called PNG": ("a.png", lambda: HTML),
    "a picture with a wrong checksum": ("a.png", lambda: png()[:30] + b"\0" + png()[31:]),
    "nothing": ("a.png", lambda: b""),
    "EPS, which other programs would open": ("a.eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%EOF"),
    "PDF": ("a.pdf", lambda: b"%PDF-1.7\n%%EOF"),
    "TIFF": ("a.tif", lambda: b"II*\0\x08\0\0\0\0\0"),
    "ICO": ("a.ico", lambda: b"\0\0\1\0\xff\xff" + bytes(64)),
    "FITS": ("a.fits", lambda: b"SIMPLE  =                    T" + bytes(2850)),
    "a pickle": ("a.png", lambda: pickle.dumps({"a": 1})),
    "a ZIP file": ("a.png", lambda: b"PK\3\4" + bytes(100)),
}
"""Files that are refused: their name and a function that makes them."""
CARRIERS: dict[str, tuple[str, Any]] = {
    "an iTXt text of 64 MB": ("a.png", lambda: text_bomb(b"iTXt", 64 * 2**20)),
    "a zTXt text of 64 MB": ("a.png", lambda: text_bomb(b"zTXt", 64 * 2**20)),
    "an animation of 2,000 frames, APNG": ("a.png", lambda: animation("PNG", 2000)),
    "an animation of 2,000 frames, GIF": ("a.gif", lambda: animation("GIF", 2000)),
    "a picture of 1 x 100,000": ("a.png", lambda: png(1, 100_000)),
    "a picture that ends early": ("a.png", lambda: png()[:60]),
    "PNG and HTML in one": ("a.png", lambda: png() + HTML),
    "a GIF that is a script": ("a.gif", lambda: b"GIF89a/*" + bytes(300) + b"*/=1;alert(1)"),
    "a name that leaves the folder": ("../../../evil.png", lambda: png()),
    "an absolute name": ("/etc/evil.png", lambda: png()),
    "a name with line breaks": ("a\r\nSet-Cookie: x=1.png", lambda: png()),
    "a name that is a script": ("<img src=x onerror=alert(1)>.png", lambda: png()),
    "a very long name": ("a" * 5000 + ".png", lambda: png()),
}
"""Files that may be read in part, but must neither cost much nor leave anything behind."""


def form(field: str, name: str, content: bytes, **texts: str) -> tuple[tuple[str, str], bytes]:
    """Returns the header and the body of a form with a file."""
    boundary = "frontier-of-the-parts"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in texts.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"'
    parts.append(f"{head}\r\nContent-Type: image/png\r\n\r\n".encode() + content + b"\r\n")
    kind = f"multipart/form-data; boundary={boundary}"
    return ("content-type", kind), b"".join(parts) + f"--{boundary}--\r\n".encode()


def sent(victim: Attacked, name: str, content: bytes) -> Iterator[tuple[str, Any]]:
    """Sends a file to every route that takes pictures, and yields the path and the answer."""
    refused = {"prompt": "p", "n": "0"}
    header, body = form("picture", name, content)
    yield "/studio/recipe", victim.ask("POST", "/studio/recipe", [header], body)
    header, body = form("image", name, content, **refused)
    yield "/v1/images/edits", victim.ask("POST", "/v1/images/edits", [header], body)
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    fields = json.dumps({"prompt": "p", "n": 1, "strength": -1, "image": url}).encode()
    kind = ("content-type", "application/json")
    yield "/v1/jobs", victim.ask("POST", "/v1/jobs", [kind], fields)


def costs_little(victim: Attacked, name: str, content: bytes) -> list[tuple[str, Any]]:
    """Sends a file everywhere, and checks what every answer must fulfil."""
    before, memory = victim.files(), psutil.Process().memory_info().rss
    start = time.process_time()
    answers = list(sent(victim, name, content))
    assert time.process_time() - start < 6
    assert psutil.Process().memory_info().rss - memory < MOST_MEMORY
    for path, answer in answers:
        assert answer.status < 500, (path, answer.body[:300])
        assert answer.header("content-type") == "application/json", path
        assert "set-cookie" not in str(answer.headers).lower()
    assert victim.files() == before
    assert not list(Path("/etc").glob("evil*")) and not list(victim.root.parent.rglob("evil.png"))
    return answers


@pytest.mark.parametrize("attack", UPLOADS)
def test_files_that_are_no_pictures_are_refused(attack, victim):
    name, make = UPLOADS[attack]
    for path, answer in costs_little(victim, name, make()):
        assert 400 <= answer.status < 500, (path, answer.status, answer.body[:200])
        assert len(answer.body) <= 4096 and set(answer.json()) == {"error"}


@pytest.mark.parametrize("attack", CARRIERS)
def test_files_that_carry_something_cost_little(attack, victim):
    name, make = CARRIERS[attack]
    for _, answer in costs_little(victim, name, make()):
        assert len(answer.body) < 100_000


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "</script><script>alert(1)"])
def test_texts_in_a_picture_come_back_as_json(text, victim):
    info = PngInfo()
    info.add_text("parameters", f"{text}\nSteps: 1, Sampler: {text}, Seed: 1, Model: {text}")
    info.add_itxt("prompt", text)
    info.add_text("pinxit", json.dumps({**RECIPE, "prompt": text, "model": text}))
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG", pnginfo=info)
    header, body = form("picture", "a.png", buffer.getvalue())
    answer = victim.ask("POST", "/studio/recipe", [header], body)
    assert answer.header("content-type") == "application/json"
    assert "sandbox" in answer.header("content-security-policy")


# --- checkpoints ------------------------------------------------------------------------------


class Canary:
    """Creates a file when a pickle of it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, (str(self.path),))


def hostile_checkpoints(root: Path) -> Path:
    """Writes checkpoints that would run code or take all memory. Returns the canary's path."""
    canary = root / "canary-was-here"
    code = pickle.dumps(Canary(canary))
    for suffix in (".pt", ".ckpt", ".bin", ".pkl", ".safetensors", ".msgpack", ".npy"):
        (root / f"pickle{suffix}").write_bytes(code)
    header = struct.pack("<Q", 4 * 2**30) + b'{"a":'
    (root / "header.safetensors").write_bytes(header)
    folder = root / "names_a_class"
    folder.mkdir()
    for name in ("config.json", "model_index.json"):
        config = {"_class_name": "os.system", "auto_map": {"AutoModel": "evil.Evil"}}
        (folder / name).write_text(json.dumps({**config, "trust_remote_code": True}))
    (folder / "evil.py").write_text(f"import os; os.mkdir({str(canary)!r})")
    (folder / "pytorch_model.bin").write_bytes(code)
    (folder / "params.msgpack").write_bytes(code)
    return canary


def test_a_pickle_of_the_canary_would_create_it(tmp_path):
    """So that its absence means something."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()


MODELS = [
    *("/etc/passwd", "../secret", "secret", "~", "file:///etc/passwd", "https://evil.example/m"),
    *("hf://evil/model", "evil/model", "runwayml/evil@main", "\\\\evil\\share", "a\0b", " "),
    *("linked", "linked-files", "loop", "honest", "../runs/honest", "runs/honest", "*", "."),
    *("{root}/pickle.pt", "{root}/pickle.safetensors", "{root}/header.safetensors"),
    *("{root}/names_a_class", "{root}", "names_a_class", "pickle.pt"),
]


@pytest.mark.parametrize("model", MODELS)
def test_a_request_cannot_choose_a_model_that_is_not_listed(model, victim, tmp_path):
    """Neither by its path nor by a Hub id: nothing is opened, and nothing is downloaded."""
    canary = hostile_checkpoints(tmp_path)
    name = model.replace("{root}", str(tmp_path))
    kind = ("content-type", "application/json")
    listed = {entry.id for entry in victim.app.state.studio.engine.models()}
    assert name not in listed or name == "honest"
    for path in ("/v1/images/generations", "/v1/jobs"):
        body = json.dumps({"prompt": "p", "model": name}).encode()
        answer = victim.ask("POST", path, [kind], body)
        assert 400 <= answer.status < 500, (path, answer.status, answer.body[:200])
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("pickle.pt", "pickle.ckpt", "pickle.bin", "pickle.pkl", "pickle.safetensors"),
        *("pickle.msgpack", "pickle.npy", "header.safetensors", "names_a_class"),
    ],
)
def test_a_hostile_checkpoint_of_the_command_line_is_refused_and_runs_nothing(name, tmp_path):
    from pinxit.config import UsageError
    from pinxit.model_loading import load_checkpoint

    canary = hostile_checkpoints(tmp_path)
    memory = psutil.Process().memory_info().rss
    with pytest.raises((UsageError, OSError)) as caught:
        load_checkpoint(str(tmp_path / name))
    assert len(str(caught.value)) < 2000 and re.search(name.partition(".")[0], str(caught.value))
    assert not canary.exists() and psutil.Process().memory_info().rss - memory < MOST_MEMORY
