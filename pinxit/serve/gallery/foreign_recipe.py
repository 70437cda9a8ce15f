"""Reads the settings that A1111, Forge and similar programs write into pictures as text.

::

    a small red house
    Negative prompt: fog
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Model: other

Only settings that mean the same in Pinxit are taken. A sampler of another program does not.
"""

from __future__ import annotations

import re
from typing import Any

from pinxit.sampling import SEEDS

NEGATIVE = "Negative prompt:"
"""The beginning of the lines with the negative prompt."""
SETTING = re.compile(r'\s*([A-Za-z][\w /-]{0,40}):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
"""One setting of the last line. A value with commas is quoted."""


def foreign_settings(text: str) -> dict[str, Any]:
    """Returns prompt, negative_prompt, seed, steps, guidance_scale and size, those that are there.

    A value that is out of range, or is no number, is left out.
    """
    lines = text.strip().splitlines()
    last = lines[-1] if lines and re.match(r"\s*Steps: ", lines[-1]) else ""
    if last:
        lines = lines[:-1]
    start = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    settings: dict[str, Any] = {"prompt": "\n".join(lines[:start]).strip()}
    negative = "\n".join(lines[start:]).removeprefix(NEGATIVE).strip()
    if negative:
        settings["negative_prompt"] = negative
    values = {match[1].strip().lower(): match[2].strip() for match in SETTING.finditer(last)}
    for name, label, most in (("seed", "seed", SEEDS - 1), ("steps", "steps", 1000)):
        text = values.get(label, "")
        if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most:
            settings[name] = int(text)
    if settings.get("steps") == 0:
        del settings["steps"]
    if re.fullmatch(r"\d{1,3}(\.\d{1,6})?", values.get("cfg scale", "")):
        settings["guidance_scale"] = float(values["cfg scale"])
    if size := re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", values.get("size", "")):
        settings["size"] = [int(size[1]), int(size[2])]
    return settings
