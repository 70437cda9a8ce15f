"""Compares ways to decode and scale a JPEG with a full decode and Pillow's bicubic filter.

Each picture is first scaled so that its shorter side is `--ratios` times `--target`, and stored as
a JPEG. Each way then makes the square of `--target` pixels in the middle. The script prints, for
each way and ratio, the CPU time and four figures of likeness to the long way: the mean difference
and the largest mean difference of a picture, in grey levels (of 255); the mean PSNR and the lowest
one, in dB (at most 80); and the sharpness, the strength of gradients over that of the long way.

The pictures are the photograph that comes with matplotlib, drawn ones (noise of all scales, edges
and text), and those of a folder.

    python benchmarks/resize_likeness.py --pictures ~/Pictures
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, JpegImagePlugin

from pinxit.data.images.decode import REDUCING_GAP, SCALED_DECODE_GAP, crop_box

SIDE = 1024
"""Shorter side of the drawn pictures, in pixels."""
BEST_PSNR = 80.0
"""The PSNR that counts for equal pictures, in dB."""
WORDS = ("A photograph", "of nothing", "in particular", "1234567890", "SALE 50 %")


@dataclass(frozen=True)
class Way:
    """One way to make a small picture from the bytes of a JPEG."""

    filter: Image.Resampling = Image.Resampling.BICUBIC
    gap: float = SCALED_DECODE_GAP
    """Factor by which a JPEG that is decoded at a fraction of its size must exceed the target."""
    reducing_gap: float | None = REDUCING_GAP
    """The same for averaging blocks of pixels before the filter; None averages none."""
    mode: str | None = None
    """The mode to decode to; None is RGB."""
    draft: bool = False
    """Whether libjpeg takes its fastest transform, and repeats colours instead of blending them."""


THE_LONG_WAY = Way(gap=math.inf, reducing_gap=None)
WAYS = {
    "bicubic (ours)": Way(),
    "bicubic, gap 1.25": Way(gap=1.25),
    "bicubic, gap 1.25 for blocks too": Way(gap=1.25, reducing_gap=1.25),
    "bicubic in YCbCr": Way(mode="YCbCr"),
    "bicubic, fastest libjpeg": Way(draft=True),
    "Lanczos": Way(Image.Resampling.LANCZOS),
    "Lanczos, gap 1.25": Way(Image.Resampling.LANCZOS, gap=1.25),
    "Hamming": Way(Image.Resampling.HAMMING),
    "Hamming, gap 2": Way(Image.Resampling.HAMMING, gap=2.0),
    "bilinear": Way(Image.Resampling.BILINEAR),
    "box (an area filter)": Way(Image.Resampling.BOX),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", type=int, default=256)
    parser.add_argument("--ratios", type=float, nargs="+", default=[1.2, 1.875, 2.8, 3.2])
    parser.add_argument("--quality", type=int, default=88, help="of the JPEGs")
    parser.add_argument("--pictures", type=Path, help="folder of pictures")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


# --- the pictures -----------------------------------------------------------------------------


def pictures(folder: Path | None) -> Iterator[Image.Image]:
    """Yields the pictures in RGB."""
    import matplotlib as mpl

    sample = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    found = sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
    for path in (sample, *found):
        with Image.open(path) as picture:
            yield picture.convert("RGB")
    for seed in range(4):
        yield drawn(seed)


def drawn(seed: int) -> Image.Image:
    """Draws noise whose strength falls as one over the frequency, with shapes and text on it."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.fft.rfftfreq(SIDE * 3 // 2), np.fft.fftfreq(SIDE))
    frequency = np.maximum(np.hypot(across, down), 1 / SIDE)
    layers = []
    for _ in range(3):
        phases = np.exp(2j * np.pi * rng.random(frequency.shape))
        layer = np.fft.irfft2(phases / frequency**1.3, (SIDE, SIDE * 3 // 2))
        layers.append(128 + 45 * layer / layer.std())
    image = Image.fromarray(np.clip(np.stack(layers, -1), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(25):
        x, y, size = (int(n) for n in rng.integers((0, 0, 10), (SIDE * 3 // 2, SIDE, 200)))
        colour = tuple(int(n) for n in rng.integers(0, 256, 3))
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        shape((x, y, x + size, y + size // 2), fill=colour)
        font = ImageFont.load_default(max(12, size // 3))
        pen.text((y, x), WORDS[size % len(WORDS)], fill=colour, font=font)
    return image


def as_jpeg(picture: Image.Image, side: int, quality: int) -> bytes | None:
    """Encodes the picture with this shorter side; returns None if it would have to grow."""
    scale = side / min(picture.size)
    if scale > 1:
        return None
    width, height = (round(length * scale) for length in picture.size)
    buffer = io.BytesIO()
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


# --- the ways ---------------------------------------------------------------------------------


def small(data: bytes, target: int, way: Way) -> Image.Image:
    """Decodes and scales the square in the middle, as `pinxit.data.images.decode` does it."""
    picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    width, box = picture.size[0], crop_box(picture.size, (target, target), place="center")
    ratio, scale = (box[2] - box[0]) / target, 1.0
    if math.isfinite(way.gap):
        needed = [math.ceil(side * way.gap / ratio) for side in picture.size]
        answer = picture.draft(way.mode, (needed[0], needed[1]))
        scale = width / answer[1][2] if answer else 1.0
    if way.draft:
        config = picture.decoderconfig
        picture.decoderconfig = (config[0] if config else 1, 1)
    picture.load()
    left, upper, right, lower = (side / scale for side in box)
    out = picture.resize(
        (target, target), way.filter, (left, upper, right, lower), way.reducing_gap
    )
    return out.convert("RGB")


def cpu_time(data: bytes, target: int, way: Way, repeats: int) -> float:
    """The shortest CPU time of a way, in seconds."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        small(data, target, way)
        times.append(time.process_time() - begun)
    return min(times)


def sharpness(pixels: Float[np.ndarray, "h w 3"]) -> float:
    """The root mean square of the differences between neighbours."""
    squares = [np.square(np.diff(pixels, axis=axis)).mean() for axis in (0, 1)]
    return math.sqrt(sum(squares))


def psnr(difference: Float[np.ndarray, "h w 3"]) -> float:
    """The peak signal-to-noise ratio in dB."""
    error = np.square(difference).mean()
    return min(BEST_PSNR, 10 * math.log10(255**2 / error)) if error else BEST_PSNR


def row(name: str, way: Way, files: list[bytes], args: argparse.Namespace) -> str:
    """Compares one way over all pictures of one ratio."""
    seconds, levels, decibels, edges = [], [], [], []
    for data in files:
        seconds.append(cpu_time(data, args.target, way, args.repeats))
        long = np.asarray(small(data, args.target, THE_LONG_WAY), np.float64)
        here = np.asarray(small(data, args.target, way), np.float64)
        levels.append(float(np.abs(here - long).mean()))
        decibels.append(psnr(here - long))
        edges.append(sharpness(here) / sharpness(long))
    return (
        f"| {name} | {np.mean(seconds) * 1e3:.2f} | {np.mean(levels):.2f} ({max(levels):.2f}) "
        f"| {np.mean(decibels):.1f} ({min(decibels):.1f}) | {np.mean(edges):.3f} |"
    )


def main() -> int:
    args = arguments()
    originals = list(pictures(args.pictures))
    for ratio in args.ratios:
        side = round(ratio * args.target)
        files = [data for one in originals if (data := as_jpeg(one, side, args.quality))]
        print(f"\n{len(files)} pictures, shorter side {side}, to {args.target} x {args.target}\n")
        print("| way | CPU ms | grey levels (worst) | PSNR, dB (worst) | sharpness |")
        print("|---|---|---|---|---|")
        for name, way in {"the long way": THE_LONG_WAY, **WAYS}.items():
            print(row(name, way, files, args), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
