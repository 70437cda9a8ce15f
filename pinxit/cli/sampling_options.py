"""Makes the fields of `Sampling` options of a command; options not set on it are None."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any

from pinxit.config import UsageError, hints
from pinxit.sampling import Sampling


def _docs(cls: type) -> dict[str, str]:
    """Returns the string under each field of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    docs: dict[str, str] = {}
    name = ""
    for node in body.body if isinstance(body, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[name], name = inspect.cleandoc(str(node.value.value)), ""
    return docs


def _options() -> type:
    """Makes a dataclass with the fields of `Sampling`, each None by default."""
    from tyro.conf import arg

    docs, types_of = _docs(Sampling), hints(Sampling)
    described = [
        (name, Annotated[types_of[name] | None, arg(help=docs.get(name, ""))], field(default=None))
        for name in types_of
    ]
    return make_dataclass("SamplingOptions", described, frozen=True, kw_only=True)


SamplingOptions: Any = _options()
"""The base class for the options of commands that draw pictures."""


def sampling_options(options: object) -> dict[str, Any]:
    """Returns the sampling settings among a command's options, without those that are None."""
    values = {field.name: getattr(options, field.name) for field in fields(Sampling)}
    return {name: value for name, value in values.items() if value is not None}


def check_guidance(options: object, sampling: Sampling) -> None:
    """Raises for an option that only guidance reads, if the pictures are drawn without it."""
    if sampling.guidance_scale != 1:
        return
    problem = "without effect, since guidance_scale 1 turns guidance off"
    for name in ("negative_prompt", "guidance_interval", "cfg_zero_star"):
        if value := getattr(options, name, None):
            raise UsageError(name, value, problem=problem, valid="leave it out")
