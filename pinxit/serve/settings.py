"""The settings of the studio, which are the options of `pinxit studio`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pinxit.config import UsageError, choice, positive
from pinxit.output_paths import check_local

OPEN = ("auto", "0", "1")
"""The values of `StudioConfig.open`."""


@dataclass(frozen=True)
class StudioConfig:
    """Settings of the server and of what it shows."""

    checkpoints: tuple[str, ...] = ()
    """Models to draw with, with or without --checkpoints: runs, checkpoints, releases, PRX
    directories, exported files, or ids on the Hub. The first is the default; none means the model
    shipped with Pinxit. The runs in --runs can be chosen as well."""
    host: str = "127.0.0.1"
    """The address to listen on. Every address but this machine's own needs a token."""
    port: int = 7860
    """The port to listen on; 0 means any free port."""
    open: Literal["auto", "0", "1"] = "auto"
    """Whether to open the page in a browser; auto means on a desktop."""
    token: str | None = None
    """A password that every request needs, or new to make one. The environment variable
    PINXIT_TOKEN, which other users of the machine cannot see, does the same."""
    runs: str = "runs"
    """The folder of training runs to show, to start and to draw with."""
    out: str = "outputs"
    """The folder of the gallery, in which the page stores its pictures."""
    data: tuple[str, ...] = ()
    """Folders with prepared datasets, or prepared datasets themselves, to show."""
    allow_host: tuple[str, ...] = ()
    """Further names of this server, which browsers may send as the host."""
    allow_origin: tuple[str, ...] = ()
    """Web pages of other origins that may use the API, such as https://example.org."""
    trust_proxy: tuple[str, ...] = ()
    """Addresses of proxies that are believed when they say who a client is (X-Forwarded-For and
    X-Forwarded-Proto)."""
    root_path: str = ""
    """The path before all others that a proxy removes, such as /pinxit."""
    max_models: int = 2
    """Number of models in memory. The one that was not used for longest is dropped."""
    max_waiting: int = 64
    """Number of pictures that may wait. Further requests are refused with status 429."""
    max_side: int = 1024
    """The longest side of a picture, in pixels."""
    max_steps: int = 250
    """The largest number of solver steps of a picture."""
    max_pictures: int = 64
    """The largest number of pictures of one request."""
    concurrency: int | None = None
    """Number of pictures that are computed at once on a CPU; none means that it follows from the
    number of cores. Accelerators compute one batch."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the text encoder and the autoencoder. bfloat16 takes half the memory."""
    drain_seconds: int = 30
    """Seconds that drawing may go on after the server was asked to end."""
    max_trainings: int = 1
    """Number of runs that the page may train at the same time; 0 allows none."""

    def __post_init__(self) -> None:
        choice("open", self.open, OPEN)
        check_local("out", self.out)
        check_local("runs", self.runs)
        check_local("data", *self.data)
        if not 0 <= self.port < 2**16:
            raise UsageError("port", self.port, problem="out of range", valid="0 to 65535")
        for name in ("max_models", "max_waiting", "max_side", "max_steps", "max_pictures"):
            positive(name, getattr(self, name))
        if self.concurrency is not None:
            positive("concurrency", self.concurrency)
        for name in ("drain_seconds", "max_trainings"):
            positive(name, getattr(self, name), minimum=0)
        if self.token is not None and not self.token:
            raise UsageError("token", "", problem="empty", valid="a password, or new to make one")
