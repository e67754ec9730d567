"""Llama-2 QnA: PDFs in, a measured question-answering model out.

The way of the data, and where to read it: `documents` -> `pairs` -> `training` -> `answering` -> `evaluation` ->
`reporting`, and `serving` for people. They stand on `models`, `project` and `text`; CONTRIBUTING.md has the map.
Nothing heavy is imported here, so that `import llama_qna` and `llama-qna --help` stay quick.
"""

import os
from collections.abc import Callable
from importlib import import_module

__version__ = "0.1.0"


# No library tells anybody what is done here. They read this when they are imported, which is always after this.
for _variable, _value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "VLLM_NO_USAGE_STATS": "1",
    "LANGSMITH_TRACING": "false",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_variable, _value)


class UserError(Exception):
    """Something that the person at the keyboard can mend: shown as one line, exit status 2, never a traceback."""


class Stopped(UserError):
    """A run that Ctrl-C or SIGTERM stopped, once what it had done was kept; exit status 128 + the signal's number."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


def one_line(text: str) -> str:
    """Text of a stranger as part of a message: on one line, without control characters, and no longer than that."""
    plain = "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))
    return plain if len(plain) <= 300 else f"{plain[:300]}…"


def first_line(error: Exception) -> str:
    """The first line of what an error says, as `one_line` gives it, or its kind where it says nothing."""
    return one_line(str(error).strip().partition("\n")[0]) or type(error).__name__


def hand_out(package: str, **modules: str) -> Callable[[str], object]:
    """The `__getattr__` of a package that hands out names of its modules, each imported when it is first asked for.

    Args:
        modules: name -> the module that has it.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"{package} has no {name}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return find
