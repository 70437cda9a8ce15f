"""The commands of docs/serving_safely.md start a server that lets the right clients in."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping

import pytest
from asgi_client import ask
from fastapi import FastAPI
from markdown_blocks import read_blocks

from pinxit.cli.main import main
from pinxit.serve.access.guard import guard
from pinxit.serve.access.studio_rules import rules_of
from pinxit.serve.settings import StudioConfig

BLOCKS = [
    block.text
    for block in read_blocks()
    if block.page == "docs/serving_safely.md" and block.language == "bash"
]


def server_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """A small app behind the rules of a command, which does not start."""
    configs: list[StudioConfig] = []
    monkeypatch.setattr("pinxit.serve.server.run_studio", lambda one: configs.append(one) or 0)
    assert main(words[1:]) == 0
    app = FastAPI()

    @app.get("/health")
    @app.get("/v1/models")
    async def models() -> Mapping[str, str]:
        return {}

    guard(app, rules_of(configs[0]))
    return app


def test_the_blocks_are_those_that_are_tested():
    assert [len(block.splitlines()) for block in BLOCKS] == [2, 1, 1]


def test_the_token_of_the_page_is_accepted_and_needed(monkeypatch):
    export, command = BLOCKS[0].splitlines()
    shell = ["bash", "-c", f"{export}; printf %s $PINXIT_TOKEN"]
    token = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    monkeypatch.setenv("PINXIT_TOKEN", token)
    app = server_of(shlex.split(command), monkeypatch)
    curl = shlex.split(os.path.expandvars(BLOCKS[1]))
    name, _, value = curl[curl.index("-H") + 1].partition(": ")
    path = "/" + curl[1].split("/", 3)[3]
    assert ask(app, "GET", path, [(name, value)]).status == 200
    assert ask(app, "GET", path, [("host", "192.0.2.1:7860"), (name, value)]).status == 200
    assert ask(app, "GET", path).status == 401 and ask(app, "GET", "/health").status == 200


def test_the_proxy_s_name_is_accepted(monkeypatch):
    monkeypatch.delenv("PINXIT_TOKEN", raising=False)
    app = server_of(shlex.split(BLOCKS[2]), monkeypatch)
    named = [("host", "studio.example.org"), ("origin", "https://studio.example.org")]
    assert ask(app, "GET", "/v1/models", named).status == 200
    assert ask(app, "GET", "/openapi.json", named).json()["servers"] == [{"url": "/pinxit"}]
    assert ask(app, "GET", "/v1/models", [("host", "other.example.org")]).status == 421
