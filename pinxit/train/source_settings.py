"""Chooses the settings of a run that depend on its source, and keeps those that it was begun with.

The filters and some image settings may be auto. A new run takes the values for its source, which
config.json then holds. A run that goes on takes the values that it was begun with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pinxit.config import plain
from pinxit.data.filters.resolve import chosen_line, is_web, resolved_filters, resolved_images
from pinxit.data.filters.row_filter import WEB_LIMITS
from pinxit.data.images.image_config import AUTO
from pinxit.data.row import Source
from pinxit.train.decay_from import trunk_of
from pinxit.train.run_folder import folder_of, saved_config
from pinxit.train.settings import TrainConfig

IMAGE_SETTINGS = ("formats", "blank", "max_repeats")
"""The image settings that may be auto."""


def begun_with(config: TrainConfig) -> dict[str, Any]:
    """Returns the filters and image settings that the run, or the run that it decays from, was
    begun with, as plain JSON. Returns nothing for a new run."""
    folder = folder_of(config)
    if not folder.config.is_file():
        if config.decay_from is None:
            return {}
        folder = trunk_of(config)
        if not folder.config.is_file():
            return {}  # which is refused later, with its reason
    saved = saved_config(folder)
    return {"filters": plain(saved.filters), "images": plain(saved.images)}


def as_begun(config: TrainConfig, before: Mapping[str, Any]) -> TrainConfig:
    """Returns the settings with the values of `begun_with` wherever they are auto."""
    if not before:
        return config
    filters, images = before["filters"], before["images"]
    values = {name: filters[name] for name in WEB_LIMITS if getattr(config.filters, name) == AUTO}
    shown = {name: getattr(config.images, name) for name in IMAGE_SETTINGS}
    auto = [name for name, value in shown.items() if value in (AUTO, (AUTO,))]
    stored = {name: images[name] for name in auto}
    if "formats" in stored:
        stored["formats"] = tuple(stored["formats"])
    return replace(
        config,
        filters=replace(config.filters, **values),
        images=replace(config.images, **stored),
    )


def chosen_for(config: TrainConfig, source: Source | None) -> tuple[TrainConfig, str]:
    """Returns the settings of a streamed run with the values for its source, and one line that says
    which filters were chosen. Other runs have no filters."""
    if source is None:
        return config, ""
    web = is_web(source)
    filters = resolved_filters(config.filters, web=web, targets=config.images.targets)
    images = resolved_images(config.images, web=web)
    line = chosen_line(config.filters, filters, web=web)
    return replace(config, filters=filters, images=images), line
