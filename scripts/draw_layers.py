"""Draws the layers of the package: `python scripts/draw_layers.py` writes docs/images/layers.png.

The rows are the first contract of [tool.importlinter] in pyproject.toml, which CI checks, so the
picture always agrees with the imports. Each box lists the contents of its folder.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "layers.png"
PER_UNIT = 1.16
"""Characters of the small text in a unit of width."""
COLOURS = ("#e8eef9", "#e6f4ea", "#fdf3dc", "#f9e7e4")


def layers(root: Path = ROOT) -> list[list[str]]:
    """Modules and folders of the package, the highest layer first."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    return [
        [name.strip() for name in row.split("|")] for row in contracts["contracts"][0]["layers"]
    ]


def contents(name: str, root: Path = ROOT) -> list[str]:
    """Names of the modules and folders inside a folder; none for a single module."""
    folder = root / "pinxit" / name
    if not folder.is_dir():
        return []
    inside = [path.name + "/" for path in folder.iterdir() if (path / "__init__.py").is_file()]
    modules = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    return sorted(inside) + sorted(modules)


def shown() -> str:
    """Returns what the picture shows, as text that is stored inside it."""
    return json.dumps([{name: contents(name) for name in row} for row in layers()])


def wrapped(words: list[str], width: int) -> list[str]:
    """The words in lines of at most `width` characters."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 2 > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + word
    return lines


def need(name: str) -> float:
    """The least width of a box."""
    return max(1.6 * len(name + ".py"), *map(len, contents(name)), 0) / PER_UNIT + 2


def fitting(row: list[str], width: float, gap: float) -> list[list[str]]:
    """The boxes of a layer in rows of at most `width`."""
    rows: list[list[str]] = [[]]
    for name in row:
        if sum(need(one) + gap for one in [*rows[-1], name]) - gap > width and rows[-1]:
            rows.append([])
        rows[-1].append(name)
    return rows


def draw(path: Path = PICTURE) -> None:
    """Writes the picture."""
    width, gap, line = 100.0, 1.2, 2.1
    parts = [fitting(row, width, gap) for row in layers()]
    colours = [COLOURS[i % len(COLOURS)] for i, part in enumerate(parts) for _ in part]
    rows = [row for part in parts for row in part]
    tall = []
    for row in rows:
        weights = [max(len(name) + 5, 0.9 * sum(map(len, contents(name))) ** 0.8) for name in row]
        free = width - gap * (len(row) - 1)
        needs = [need(name) for name in row]
        spare = (free - sum(needs)) / sum(weights)
        shares = [least + spare * weight for least, weight in zip(needs, weights, strict=True)]
        pairs = zip(row, shares, strict=True)
        texts = [wrapped(contents(name), int(share * PER_UNIT)) for name, share in pairs]
        tall.append((shares, texts, 3.4 + line * max(len(t) if t[0] else 0 for t in texts)))
    height = sum(box[2] for box in tall) + gap * len(rows)
    figure, axes = plt.subplots(figsize=(12, 12 * height / width * 0.98))
    top = height
    for row, colour, (shares, texts, depth) in zip(rows, colours, tall, strict=True):
        left = -gap
        for name, share, text in zip(row, shares, texts, strict=True):
            left += gap
            box = FancyBboxPatch(
                (left, top - depth),
                share,
                depth,
                boxstyle="round,pad=0,rounding_size=0.8",
                facecolor=colour,
                edgecolor="#555555",
                linewidth=0.8,
            )
            axes.add_patch(box)
            label = name + ("/" if contents(name) else ".py")
            axes.text(left + 0.9, top - 0.9, label, fontsize=12, weight="bold", va="top")
            for i, words in enumerate(text):
                y = top - 3.3 - i * line
                axes.text(left + 0.9, y, words, fontsize=8.5, family="monospace", va="top")
            left += share
        top -= depth + gap
    axes.set_xlim(-0.5, width + 0.5)
    axes.set_ylim(top, height + 0.5)
    axes.axis("off")
    figure.savefig(
        path, dpi=110, bbox_inches="tight", pad_inches=0.1, metadata={"Description": shown()}
    )
    plt.close(figure)


if __name__ == "__main__":
    draw()
    print(PICTURE)
