"""Reading a `variant.yaml`, which may be a stranger's: a recipe, or one line that says where it is wrong and why."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import get_args

import yaml
from pydantic import BaseModel, ValidationError

from llama_qna import UserError, one_line
from llama_qna.recipes import Recipe

MOST_BYTES = 100_000  # of a recipe; those that are shipped have about 3,000


def read_recipe(path: Path) -> Recipe:
    """Read and check one `variant.yaml`.

    Raises:
        UserError: with the file, the key and, for a misspelt key, the nearest key that exists.
    """
    shown = f"{path.parent.name}/{path.name}"
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{shown}: {size} bytes are too many for a recipe; it may have {MOST_BYTES}")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except RecursionError:
        raise UserError(f"{shown}: not readable as YAML: brackets within brackets, too deep") from None
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML leaves dates and numbers that are none to Python
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        problem = one_line(str(getattr(error, "problem", None) or error))
        raise UserError(f"{shown}{line}: not readable as YAML: {problem}") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown}: a recipe is a list of `key: value` lines; this file holds {type(content).__name__}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{shown}: {one_line(_explain(error))}") from None


class _Plain(yaml.SafeLoader):
    """Text, numbers, lists and mappings, each written out.

    Refuses a key that stands twice, of which YAML would take the last one in silence, and references to anchors, by
    which a few lines can stand for more than any memory holds.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                problem=f"references such as *{event.anchor} are not read; write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key `{key.value}` stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _explain(error: ValidationError) -> str:
    """One line for the first complaint (unknown keys first: a misspelt key also looks like a missing one)."""
    complaints = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = complaints[0]
    key = ".".join(str(part) for part in first["loc"] if "[" not in str(part))  # without the branch of a union
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), _keys_beside(first["loc"]), n=1)
        return f"unknown key `{key}`" + (f"; did you mean `{close[0]}`?" if close else "")
    if first["type"] == "missing":
        return f"the key `{key}` is missing"
    return f"`{key}`: {first['msg'].removeprefix('Value error, ')}" if key else first["msg"]


def _keys_beside(location: tuple) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation
        model = next((branch for branch in get_args(annotation) if branch is not type(None)), annotation)
    return list(model.model_fields)
