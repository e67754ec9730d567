"""Llama-2 QnA: PDFs in, a measured question-answering model out.

The way of the data, and where to read it: `documents` -> `chunks` -> `qna` -> `training` -> `evaluation` -> `figures`.
Nothing is imported here, so that `import llama_qna` and `llama-qna --help` stay quick.
"""

__version__ = "0.1.0"


class UserError(Exception):
    """Something that the person at the keyboard can mend: shown as one line, exit status 2, never a traceback."""


class Stopped(UserError):
    """A run that Ctrl-C or SIGTERM stopped, once what it had done was kept; exit status 128 + the signal's number."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal
