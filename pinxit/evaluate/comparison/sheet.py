"""The picture of a comparison: the models side by side, a row for each prompt."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from pinxit.evaluate.comparison.models import ComparedModel, SheetRequest
from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.headlines import Headline, accuracy_of, frechet_of, shown_value
from pinxit.labelled_sheet import LabelledSheet, Panel

SHOWN = 192
"""Pictures are enlarged by the largest whole multiple with at most this many pixels on a side."""


def comparison_sheet(models: Sequence[ComparedModel], request: SheetRequest) -> bytes:
    """Returns the sheet as a PNG: a panel for each seed, a column for each model."""
    scale = max(1, SHOWN // max(max(m.pictures[0][0].shape[:2]) for m in models))
    pictures = [
        [
            [_enlarged(model.pictures[panel][row], scale) for model in models]
            for row in range(len(request.prompts))
        ]
        for panel in range(len(request.seeds))
    ]
    columns = [f"{number}. {model.label}" for number, model in enumerate(models, start=1)]
    panels = [
        Panel(
            columns=columns,
            rows=list(request.prompts),
            sizes=[[picture.size for picture in row] for row in panel],
            title=f"seed {seed}",
        )
        for seed, panel in zip(request.seeds, pictures, strict=True)
    ]
    settings = ", ".join(f"{name} {value}" for name, value in request.sampling.items())
    lines = ["Each row: one prompt, drawn by every model from the same seed.", settings]
    lines += _values(models)
    sheet = LabelledSheet(panels, lines=[line for line in lines if line])
    buffer = io.BytesIO()
    sheet.draw(pictures).save(buffer, format="PNG")
    return buffer.getvalue()


def _values(models: Sequence[ComparedModel]) -> list[str]:
    """Returns lines with the models' accuracy and distance on all held-out prompts, if any."""
    names = list(models[0].values)
    lines = []
    for name in (accuracy_of(names), frechet_of(names)):
        if name is not None:
            texts = [f"{i}. {shown_value(m.values.get(name))}" for i, m in enumerate(models, 1)]
            lines.append(f"{Headline(name).words}, on all prompts: {', '.join(texts)}")
    return lines


def _enlarged(picture: Picture, scale: int) -> Image.Image:
    height, width = picture.shape[:2]
    size = (width * scale, height * scale)
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
