"""The picture of a comparison: the models side by side, a row for each prompt."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from pinxit.evaluate.comparison.models import ComparedModel, SheetRequest
from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.headlines import accuracy_of, frechet_of, shown_value
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
    columns = [_label(model, number) for number, model in enumerate(models, start=1)]
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
    sheet = LabelledSheet(panels, lines=[line for line in lines if line])
    buffer = io.BytesIO()
    sheet.draw(pictures).save(buffer, format="PNG")
    return buffer.getvalue()


def _label(model: ComparedModel, number: int) -> str:
    """Returns the label of a column: the model, and its accuracy and distance if there are any."""
    names = list(model.values)
    shown = {"accuracy": accuracy_of(names), "Fréchet distance": frechet_of(names)}
    values = [f"{word} {shown_value(model.values[name])}" for word, name in shown.items() if name]
    return " | ".join([f"{number}. {model.label}", *values])


def _enlarged(picture: Picture, scale: int) -> Image.Image:
    height, width = picture.shape[:2]
    size = (width * scale, height * scale)
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
