"""Chooses the settings that depend on the source: limits for tables of the web, or none.

Tables of links from a crawl need filters. A folder, an archive or a table with images that a person
has collected needs none: a class name is a caption there, and small images are intended. So the
settings whose value is auto are off there, and values that are given apply to any source.

A prepared folder, or a run, that was begun with other values keeps these: auto then takes the
stored values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pinxit.config import from_json, plain, written
from pinxit.data.filters.row_filter import WEB_LIMITS, FilterConfig
from pinxit.data.images.aspect_ratios import Size
from pinxit.data.images.decode import ImageConfig
from pinxit.data.images.formats import OWN, WEB
from pinxit.data.images.image_config import AUTO
from pinxit.data.row import Source

PUBLISHED = ("coyo", "laion2b", "laion-art", "cc12m", "monet")
"""The sources that are published tables of the web, also where they hold the images."""
MAX_REPEATS = 4
"""The value of images.max_repeats for auto."""
BEFORE = {"blank": "keep", "max_repeats": 0}
"""The values of image settings in folders that were begun before the settings existed."""


def is_web(source: Source) -> bool:
    """Returns whether the rows of a source come from the web, and are not one's own."""
    return not source.has_images or source.name in PUBLISHED


def resolved_filters(
    config: FilterConfig,
    *,
    web: bool,
    targets: Sequence[Size],
    stored: Mapping[str, Any] | None = None,
) -> FilterConfig:
    """Returns the filters with a value for each auto.

    `targets` are the sizes that images are scaled to. `stored` holds the values of a folder or run
    that was begun before, as plain JSON.
    """
    limits = {**WEB_LIMITS, "min_side": min(min(size) for size in targets)}
    names = [name for name in WEB_LIMITS if getattr(config, name) == AUTO]
    values: dict[str, Any] = {name: limits[name] if web else None for name in names}
    before = stored or {}
    values |= {name: before[name] for name in names if name in before}
    values = {name: value for name, value in values.items() if value != AUTO}
    return dataclasses.replace(config, **values)


def resolved_images(
    config: ImageConfig, *, web: bool, stored: Mapping[str, Any] | None = None
) -> ImageConfig:
    """Returns the image settings with a value for each auto, as `resolved_filters` does."""
    values: dict[str, Any] = {
        "formats": tuple(dict.fromkeys((*(WEB if web else OWN), *config.accepted))),
        "blank": "drop" if web else "keep",
        "max_repeats": MAX_REPEATS,
    }
    if stored is not None:
        values |= BEFORE | {name: stored[name] for name in values if name in stored}
        values["formats"] = tuple(values["formats"])
    is_auto = {name: AUTO in _listed(getattr(config, name)) for name in values}
    return dataclasses.replace(config, **{name: values[name] for name in values if is_auto[name]})


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def with_served_limits(images: ImageConfig, filters: FilterConfig) -> ImageConfig:
    """Returns the image settings with the limits that the filters put on the image itself.

    A table states the size of an image as it was once. The server may send another one.
    """
    limits = filters.thresholds()
    aspects = [x for x in (images.max_aspect, limits.get("aspect")) if x is not None]
    return dataclasses.replace(
        images,
        min_side=max(images.min_side, int(limits.get("side", 0))),
        max_aspect=min(aspects, default=None),
    )


def images_identity(images: ImageConfig) -> dict[str, Any]:
    """Returns the image settings that determine the content, as plain JSON.

    Newer settings are left out if they do nothing, so that older folders can be continued.
    """
    free = ("timeout", "workers", "memory_mb", "bucket_step")
    settings = {name: x for name, x in plain(images).items() if name not in free}
    silent = {**BEFORE, "max_aspect": None}
    settings = {n: x for n, x in settings.items() if n not in silent or x != silent[n]}
    return settings | {"buckets": plain(images.targets) if images.bucketed else []}


def stored_filters(identity: Mapping[str, Any]) -> FilterConfig:
    """Returns the filters in the identity of a prepared folder."""
    settings = identity.get("filters", {})
    return from_json(FilterConfig, {n: x for n, x in settings.items() if n != "duplicates"})


def chosen_line(before: FilterConfig, after: FilterConfig, *, web: bool) -> str:
    """Returns one line with all limits, or "" if none of them was chosen automatically."""
    if not any(getattr(before, name) == AUTO for name in WEB_LIMITS):
        return ""
    values = {name: getattr(after, name) for name in WEB_LIMITS}
    limits = [f"{name} {written(value)}" for name, value in values.items() if value is not None]
    off = [name for name, value in values.items() if value is None]
    text = f"filters for {'a table of the web' if web else 'images of your own'}"
    text += f": {', '.join(limits) or 'none'}"
    if off and limits:
        text += f" (off: {', '.join(off)})"
    example = f"--filters.{off[0]} {WEB_LIMITS[off[0]]:g}" if off else "--filters.min_side none"
    return f"{text}. To change one: {example}"
