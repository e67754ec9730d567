"""The terminal command: it reads what is typed, and every error ends in one line and an exit status.

What may be typed stands in `commands`.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import time
from contextlib import suppress

from llama_qna import Stopped, UserError, __version__, commands, one_line
from llama_qna.project import processes

# of a path: closed, too long, or something else in its place
OF_A_PATH = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a user's error is one line on stderr and exit status 2; after a signal, 128 + its number."""
    options = _options(arguments)
    # no warnings about threads
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # of several processes the first one says what happened; a launcher ends the others, in silence
    before = signal.signal(signal.SIGTERM, _terminate if processes.is_main() else signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal in ASCII has no quotation marks
    if hasattr(sys.stdin, "reconfigure"):
        with suppress(io.UnsupportedOperation):  # somebody has read of it already
            sys.stdin.reconfigure(errors="surrogateescape")  # who asks is told which question is no text
    try:
        processes.start()
        getattr(commands, options.verb)(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 128 + signal.SIGPIPE
    except UserError as error:
        if not processes.is_main():
            time.sleep(5)  # a failure of the first process too has ended this one by now: one line is enough
        print(f"llama-qna: {error}", file=sys.stderr)
        return 128 + error.signal if isinstance(error, Stopped) else 2
    except KeyboardInterrupt as stop:
        if processes.is_main():
            # answers are kept only of `ask --input`
            keeps = commands.VERBS[options.verb].keeps or getattr(options, "input", None)
            kept = "; what was finished is kept, and the same command goes on there" if keeps else ""
            print(f"llama-qna: stopped{kept}", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT)
    except Exception as error:
        if not (said := _of_the_machine(error)):
            raise
        print(f"llama-qna: {said}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)
        processes.stop()
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """What was typed. Where a verb takes several questions or variants, some may stand behind an option."""
    parser = argparse.ArgumentParser(
        prog="llama-qna", description="PDFs in, a measured question-answering model out.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"llama-qna {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    for name, verb in commands.VERBS.items():
        text = getattr(commands, name).__doc__
        sub = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        for names, settings in verb.arguments:
            sub.add_argument(*names, **settings)
    options, behind = parser.parse_known_args(arguments)
    several = commands.VERBS[options.verb].several
    if behind and (several is None or any(word.startswith("-") for word in behind)):
        parser.error(f"unrecognized arguments: {' '.join(behind)}")
    if behind:
        getattr(options, several).extend(behind)
    return options


def _of_the_machine(error: Exception) -> str:
    """What the machine lacks, or which of its paths cannot be used, where that is what an error means."""
    from llama_qna.models.device import is_out_of_memory
    from llama_qna.project.files import is_full

    if is_full(error):
        return "the disk is full; what was finished is kept: make room, and start again"
    if is_out_of_memory(error):
        return "out of memory; what was finished is kept: lower batch_size in this stage's part of the recipe"
    if isinstance(error, OSError) and error.filename and error.errno in OF_A_PATH:
        return f"{one_line(str(error.filename))}: {error.strerror}"
    return ""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which libraries then take like Ctrl-C: they clean up and let it pass."""


def _terminate(*_) -> None:
    raise _Terminated
