"""The networks, batches and inputs that training steps are compared with."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Setup:
    """A network with the shapes of its inputs."""

    preset: str
    batch: int
    grid: int
    """Side of the latents in cells, or of pictures in pixels."""
    channels: int
    text: int
    """Number of text tokens."""
    context: int
    """Width of the text encoder's tokens."""
    patch: int | None = None
    """Side of a patch in cells; None takes the preset's."""
    steps: int = 4
    """Euler steps of sampling."""

    def words(self) -> str:
        """Returns the setup in words."""
        return (
            f"{self.preset}, batch {self.batch}, {self.grid} x {self.grid} x {self.channels}, "
            f"{self.text} text tokens"
        )


SETUPS = {
    "tiny": Setup("tiny", batch=16, grid=8, channels=16, text=48, context=128, steps=8),
    "small": Setup("small", batch=4, grid=32, channels=4, text=77, context=768),
    "base": Setup("base", batch=4, grid=32, channels=4, text=77, context=768, steps=2),
    "pixels": Setup("small", batch=1, grid=256, channels=3, text=77, context=768, patch=8),
    "debug": Setup("debug", batch=2, grid=8, channels=4, text=8, context=16, steps=2),
}
"""`tiny` is the demo's network on the bundle's latents, `small` and `base` have latents of pictures
of 256 x 256, `pixels` those pictures themselves, and `debug` checks the scripts in seconds."""
BLOCKS = ("preset", "scanned", "unrolled")


def add_setup_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a setup, and how our network computes it."""
    parser.add_argument("--setup", default="tiny", choices=SETUPS)
    parser.add_argument("--batch", type=int, help="rows of a batch, instead of the setup's")
    parser.add_argument("--grid", type=int, help="side of the inputs, instead of the setup's")
    parser.add_argument("--amp", action="store_true", help="bfloat16 products on both sides")
    parser.add_argument(
        "--blocks", default="preset", choices=BLOCKS,
        help="how our blocks run; by default as in a training run on a CPU",
    )  # fmt: skip


def chosen_setup(args: argparse.Namespace) -> Setup:
    """Returns the setup with the options' changes."""
    changes = {name: getattr(args, name) for name in ("batch", "grid")}
    return replace(SETUPS[args.setup], **{name: x for name, x in changes.items() if x is not None})


def network_config(setup: Setup, args: argparse.Namespace) -> Any:
    """Returns the `TransformerConfig`, with the settings that a training run on a CPU gets."""
    from pinxit.models.transformer import preset
    from pinxit.train.model_settings import unrolled_on_cpu

    fields: dict[str, Any] = {"in_channels": setup.channels, "context_dim": setup.context}
    if setup.patch is not None:
        fields["patch_size"] = setup.patch
    fields["dtype"] = "bfloat16" if args.amp else "float32"
    config = preset(setup.preset, **fields)
    tokens = (setup.grid // config.patch_size) ** 2
    if unrolled_on_cpu(setup.preset, config.dtype, config.remat, tokens):
        config = replace(config, scan_blocks=False)
    if args.blocks != "preset":
        config = replace(config, scan_blocks=args.blocks == "scanned")
    return config
