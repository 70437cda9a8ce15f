"""`pinxit studio`: serves the web page and the HTTP API."""

from __future__ import annotations

from collections.abc import Sequence

from pinxit.cli.arguments import parse
from pinxit.cli.habits import STUDIO_HABITS
from pinxit.extras import check_studio_extra
from pinxit.serve.settings import StudioConfig

DESCRIPTION = """Serves the studio, a web page and an HTTP API on this machine:

pinxit studio runs/scenes

The page draws pictures, compares settings, and shows training runs while they train, prepared \
datasets and plans. The API has the shape of OpenAI's images API, so its clients work with it."""


def studio_command(argv: Sequence[str]) -> int:
    """Serves the studio until it is stopped."""
    config = parse(
        StudioConfig,
        argv,
        prog="pinxit studio",
        description=DESCRIPTION,
        positional="checkpoints",
        habits=STUDIO_HABITS,
    )
    check_studio_extra()
    from pinxit.serve.server import run_studio

    return run_studio(config)
