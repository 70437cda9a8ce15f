"""Reads DPG-Bench's file of prompts and questions (Hu et al. 2024, ELLA, 2403.05135).

The file is ``dpg_bench/dpg_bench.csv`` of https://github.com/TencentQQGYLab/ELLA (Apache-2.0). It
has a line for each question, with these columns among others:

- ``item_id``: the prompt's name
- ``text``: the prompt
- ``proposition_id``: the question's number within the prompt
- ``dependency``: the numbers of its parent questions with commas between them, 0 for none
- ``tuple``: the question's category and content, such as ``entity - whole (house)``
- ``question_natural_language``: the question, to be answered with yes or no
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pinxit.config import UsageError, few

OPTION = "dpg_questions"
"""The setting with the path of the file, for messages."""
COLUMNS = (
    *("item_id", "text", "proposition_id", "dependency"),
    *("tuple", "question_natural_language"),
)


@dataclass(frozen=True)
class Question:
    """A question about a picture."""

    number: int
    """The number by which other questions name it, from 1 on."""
    text: str
    """The question itself, which expects yes or no."""
    parents: tuple[int, ...]
    """The numbers of the questions without whose yes this one has no sense."""
    category: str
    """The detailed category (L2), such as ``entity - whole``."""

    @property
    def broad_category(self) -> str:
        """The part of the category before the hyphen (L1), such as ``entity``."""
        return self.category.partition("-")[0].strip()


@dataclass
class DPGPrompt:
    """A prompt with its questions, in the order of the file."""

    item: str
    """The prompt's name in the file."""
    text: str
    """The prompt itself."""
    questions: dict[int, Question] = field(default_factory=dict)
    """The questions by number."""


def read_questions(path: Path) -> tuple[list[DPGPrompt], str]:
    """Returns the prompts of a file, in its order, and the file's SHA-256.

    Raises `UsageError` for a missing file, a missing column, and a line that cannot be understood.
    """
    if not path.is_file():
        problem = "not a file" if path.exists() else "missing"
        valid = "DPG-Bench's dpg_bench.csv (docs/geneval.md)"
        raise UsageError(OPTION, str(path), problem=problem, valid=valid)
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise UsageError(OPTION, str(path), problem="not UTF-8 text") from error
    reader = csv.DictReader(lines)
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        problem = f"a table without the column {few(missing)}"
        raise UsageError(OPTION, str(path), problem=problem, valid=", ".join(COLUMNS))
    prompts: dict[str, DPGPrompt] = {}
    for row in reader:
        _add(prompts, row, f"{path}, line {reader.line_num}")
    if not prompts:
        raise UsageError(OPTION, str(path), problem="a table without questions")
    return list(prompts.values()), hashlib.sha256(content).hexdigest()


def _add(prompts: dict[str, DPGPrompt], row: Mapping[str, str | None], where: str) -> None:
    """Adds the question of a line to its prompt."""
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if empty := [name for name in COLUMNS if not values[name]]:
        raise UsageError(OPTION, where, problem=f"a line without {few(empty)}")
    try:
        number = int(values["proposition_id"])
        parents = tuple(int(part) for part in values["dependency"].split(","))
    except ValueError as error:
        problem = f"a line with the numbers {values['proposition_id']!r}, {values['dependency']!r}"
        raise UsageError(OPTION, where, problem=problem, valid="such as 3 and 1,2") from error
    item, text = values["item_id"], values["text"]
    prompt = prompts.setdefault(item, DPGPrompt(item, text))
    if prompt.text != text:
        raise UsageError(OPTION, where, problem=f"another prompt of the item {item!r}")
    if number in prompt.questions:
        raise UsageError(OPTION, where, problem=f"a second question {number} of {item!r}")
    category = values["tuple"].partition("(")[0].strip()
    question = values["question_natural_language"]
    prompt.questions[number] = Question(number, question, parents, category)
