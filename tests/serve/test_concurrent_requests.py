"""Many clients at once over HTTP: each gets its picture or is told when to come again."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from studio import folders_in, running_studio

CLIENTS = 64
ROOM = 32


def asked(url: str, seed: int) -> tuple[int, str, str]:
    """Returns the status, the picture in base64, and the header Retry-After of a request."""
    body = {"prompt": "a red house", "seed": seed, "num_inference_steps": 2}
    request = urllib.request.Request(
        f"{url}/v1/images/generations",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)["data"][0]["b64_json"], ""
    except urllib.error.HTTPError as error:
        error.read()
        return error.code, "", error.headers.get("Retry-After", "")


def test_64_clients_get_their_picture_or_are_told_to_come_again(tmp_path):
    with running_studio(**folders_in(tmp_path), max_waiting=ROOM) as studio:
        assert asked(studio.url, 0)[0] == 200  # loads and compiles
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(lambda seed: asked(studio.url, seed), range(CLIENTS)))
        drawn = {seed: picture for seed, (code, picture, _) in enumerate(answers) if code == 200}
        refused = [retry for code, _, retry in answers if code in (429, 503)]
        assert len(drawn) + len(refused) == CLIENTS and len(drawn) >= ROOM
        assert all(int(retry) >= 1 for retry in refused)
        assert {seed: asked(studio.url, seed)[1] for seed in drawn} == drawn
