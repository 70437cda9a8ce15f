"""Joins modules of JavaScript into one script, for a page that opens without a server.

Browsers load no modules from ``file://``. Each module becomes a function that returns what it
exports. The modules are Pinxit's own and keep to a few forms: ``import { a, b as c } from
"./x.js"`` and ``export function``, ``export class`` or ``export const``.
"""

from __future__ import annotations

import re
from pathlib import Path

IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?function\*?|class|const) (\w+)", re.MULTILINE)


class NotJoined(RuntimeError):
    """Raised for a module that has another form: a mistake in the package."""


def joined(entry: Path) -> str:
    """Returns one script with a module and everything that it imports."""
    numbers: dict[Path, int] = {}
    parts: list[str] = []
    _add(entry.resolve(), numbers, parts, ())
    script = "".join(parts)
    if "</script" in script or "<!--" in script:
        raise NotJoined(f"{entry} contains a piece of HTML, which would end the script")
    return f'"use strict";\n(() => {{\n{script}}})();\n'


def _add(path: Path, numbers: dict[Path, int], parts: list[str], inside: tuple[Path, ...]) -> int:
    """Adds a module after those that it imports, and returns its number."""
    if path in inside:
        raise NotJoined(f"{path} imports itself")
    if path in numbers:
        return numbers[path]
    text = path.read_text(encoding="utf-8")

    def bound(match: re.Match[str]) -> str:
        number = _add((path.parent / match[2]).resolve(), numbers, parts, (*inside, path))
        names = re.sub(r"(\w+) as (\w+)", r"\1: \2", " ".join(match[1].split()))
        return f"const {{ {names} }} = module{number};\n"

    text = IMPORT.sub(bound, text)
    names = [match[2] for match in EXPORT.finditer(text)]
    text = EXPORT.sub(r"\1 \2", text)
    if re.search(r"^\s*(import|export)\b|\bimport\(", text, re.MULTILINE):
        raise NotJoined(f"{path} has an import or export of a form that is not joined")
    number = numbers[path] = len(numbers)
    exports = ", ".join(names)
    parts.append(f"const module{number} = (() => {{\n{text}return {{ {exports} }};\n}})();\n")
    return number
