"""The record of an evaluation: what was measured, with its protocol, as JSON and as Markdown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pinxit.config import written
from pinxit.evaluate.tables import Table, tables
from pinxit.files import whole, write_json
from pinxit.pipeline import TextToImage
from pinxit.plain_json import plain_values


def record_of(
    model: TextToImage, values: Mapping[str, float], protocol: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Returns the record of an evaluation: the model, what it was trained with, the values and the
    protocol. `more` are further entries, such as the rows and the command."""
    return {
        "model": model.name,
        "model_hash": model.model_hash,
        **(model.stored.details if model.stored else {}),
        **more,
        "values": dict(values),
        "protocol": dict(protocol),
    }


def write_record(path: Path, record: Mapping[str, Any]) -> Path:
    """Writes the record as JSON, and beside it as Markdown, whose path is returned."""
    write_json(path, record, sort_keys=False, indent=2, allow_nan=True)
    page = path.with_suffix(".md")
    if page != path:
        with whole(page) as temporary:
            temporary.write_text(as_markdown(record), encoding="utf-8")
    return page


def as_markdown(record: Mapping[str, Any]) -> str:
    """Returns the record as a page: the tables, the protocol, and the command."""
    lines = [f"# Evaluation of {record['model']}", ""]
    if rows := record.get("rows"):
        where = f"{rows['dataset']} ({rows['path']})" if rows.get("path") else rows["dataset"]
        lines += [f"{rows['count']} rows of {where}, {rows['origin']}.", ""]
    for table in tables(record["values"]):
        lines += [*markdown_table(table), ""]
    lines += ["## Protocol", "", *markdown_table(protocol_table(record["protocol"])), ""]
    if command := record.get("command"):
        lines += ["## Command", "", "```bash", shlex.join(command), "```", ""]
    lines += [f"The parameters have the hash `{record['model_hash']}`.", ""]
    return "\n".join(lines)


def markdown_table(table: Table) -> Iterator[str]:
    """Yields the lines of a table in Markdown, with its title as a heading."""
    if table.title:
        yield from (f"## {table.title[:1].upper()}{table.title[1:]}", "")
    yield _line(table.head)
    yield _line(["---"] * len(table.head))
    yield from map(_line, table.texts)


def protocol_table(protocol: Mapping[str, Any]) -> Table:
    """Returns the settings of an evaluation as a table of two columns."""
    rows: list[tuple[str | float, ...]] = []
    for name, value in plain_values(protocol).items():
        if name == "network":
            continue  # only in the JSON: it belongs to the model
        if name == "sets":
            rows += [(f"set {number}", _set(one)) for number, one in enumerate(value, start=1)]
        elif isinstance(value, dict):
            rows += [(f"{name}.{inner}", _cell(cell)) for inner, cell in value.items()]
        else:
            rows.append((name, _cell(value)))
    return Table("", ("setting", "value"), tuple(rows))


def _set(one: Mapping[str, Any]) -> str:
    """Describes a set of pictures in one line."""
    pictures = one["pictures"]
    parts = [f"{pictures.get('count', '?')} pictures ({one['made_by']})"]
    parts += [f"prompts {str(pictures['prompts'])[:16]}"] if "prompts" in pictures else []
    parts += [f"pixels {str(pictures['pixels'])[:16]}"] if "pixels" in pictures else []
    if scenes := pictures.get("scenes"):
        parts.append(f"scenes of seed {scenes['seed']}, {scenes['split']}")
    for name, about in one["features"].items():
        weights = about.get("weights")
        parts.append(f"seen by {name}" + (f" (weights {str(weights)[:16]})" if weights else ""))
    return ", ".join(parts)


def _cell(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return written(value) if not isinstance(value, str) else value


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
