"""The terminal command: what may be typed, and the exit status and the one line with which an error ends."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable

from llama_qna import Stopped, UserError, __version__, commands
from llama_qna.project import processes

FORMATS = ("messages", "alpaca", "sharegpt")  # of `pairs.formats`
GPUS = ("T4", "L4", "4090", "A100-40", "A100-80", "H100", "H200")  # of `models.cards`
EXPORTS = ("merged", "adapter", "gguf", "ollama")  # of `serving.exports`
# verbs whose work is kept when they are stopped; answers are kept only of `ask --input`
KEEPING = ("load", "generate", "pretrain", "finetune", "reader", "repeat", "evaluate", "figures", "run")


def _argument(*names: str, **settings) -> tuple:
    """What `add_argument` takes."""
    return names, settings


VARIANT = _argument("variant", metavar="VARIANT", help="a folder with a variant.yaml, such as paper_135m")


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
    try:
        processes.start()
        options.run(options)
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
            keeps = options.run.__name__ in KEEPING or getattr(options, "input", None)
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
    parser = _parser()
    options, behind = parser.parse_known_args(arguments)
    several = getattr(options, options.several) if options.several else None
    if behind and (several is None or any(word.startswith("-") for word in behind)):
        parser.error(f"unrecognized arguments: {' '.join(behind)}")
    if behind:
        several += behind
    return options


def _of_the_machine(error: Exception) -> str:
    """What the machine lacks, where that is what an error means."""
    from llama_qna.models.device import is_out_of_memory
    from llama_qna.project.files import is_full

    if is_full(error):
        return "the disk is full; what was finished is kept: make room, and start again"
    if is_out_of_memory(error):
        return "out of memory; what was finished is kept: lower batch_size in this stage's part of the recipe"
    return ""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which libraries then take like Ctrl-C: they clean up and let it pass."""


def _terminate(*_) -> None:
    raise _Terminated


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llama-qna", description="PDFs in, a measured question-answering model out.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"llama-qna {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(command, text: str, *arguments, several: str | None = None) -> None:
        """Add the verb that a function of `commands` is named after; `several`: its argument that takes many words."""
        sub = verbs.add_parser(command.__name__, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=command, several=several)
        for names, settings in arguments:
            sub.add_argument(*names, **settings)

    verb(commands.variants, "list the variants")
    verb(
        commands.new,
        "write a recipe for documents of your own, which lie in data/pdfs/NAME",
        _argument("name", metavar="NAME", help="of the new variant, and of its folder with the recipe"),
        _argument("--from", dest="source", metavar="VARIANT", default="paper_135m", help="by default paper_135m"),
        _argument("--heldout", metavar="SHARE", type=float, default=0.0, help="of each document, such as 0.15"),
    )
    _stages(verb)
    _planning(verb)
    _asking(verb)
    _taking_away(verb)
    return parser


def _stages(verb: Callable) -> None:
    """Verbs that make something of a variant, in the order of the data."""
    verb(
        commands.load,
        "1. read the documents, clean the text, split it into chunks",
        VARIANT,
        _argument("--arxiv", metavar="NUMBER", help="fetch this paper from arXiv into the corpus first"),
    )
    verb(
        commands.generate,
        "2. make question-answer pairs from the chunks",
        VARIANT,
        _argument("--export", choices=FORMATS, help="also write the pairs as JSONL for other trainers"),
    )
    verb(
        commands.gold,
        "propose questions of the pairs; those that a person marks are asked by evaluate",
        VARIANT,
        _argument("--count", metavar="N", type=int, default=30, help="at most so many; by default 30"),
    )
    verb(commands.pretrain, "3. train an adapter on the text", VARIANT)
    alone = "on the base instead, in a folder of its own; evaluate then says what pretraining is worth"
    verb(
        commands.finetune,
        "4. train an adapter on the pairs, on top of the pretrained model",
        VARIANT,
        _argument("--without-pretraining", action="store_true", help=alone),
    )
    verb(
        commands.reader,
        "teach the embedded base to read, from data/reading (about an hour)",
        _argument("reader", metavar="READER", nargs="?", default="reader_135m", help="a folder with a reader.yaml"),
        _argument("--publish", action="store_true", help="for maintainers: put it in place of the committed adapter"),
    )
    verb(
        commands.repeat,
        "train again with other seeds, and show how far the scores differ",
        VARIANT,
        _argument("--seeds", metavar="SEED", nargs="+", type=int, default=[43, 44], help="by default 43 and 44"),
    )
    verb(commands.evaluate, "5. score every checkpoint, and compare the systems on held-out questions", VARIANT)
    verb(commands.figures, "6. draw the figures", VARIANT)
    notebooks = "run the notebooks of the variant (or only those named) in place of the bare stages"
    verb(
        commands.run,
        "all stages in order; what is done and still valid is skipped",
        VARIANT,
        _argument("--notebooks", nargs="*", metavar="NAME", help=notebooks),
    )


def _planning(verb: Callable) -> None:
    rehearse = "try it: random weights of the true shapes, two steps, one generation"
    verb(
        commands.plan,
        "what training would take, before anything is loaded: memory by part, and time",
        VARIANT,
        _argument("--memory", metavar="SIZE", help="what it may take, such as 24GiB; by default what is free"),
        _argument("--device", choices=["cpu", "cuda"], help="plan for this one; by default the GPU if there is one"),
        _argument("--gpu", choices=GPUS, help="forecast for this card, which need not be here"),
        _argument("--measure", action="store_true", help="measure the machine's limits for 10 s in place of 2"),
        _argument("--rehearse", action="store_true", help=rehearse),
        _argument("--rows", type=int, metavar="N", help="rows of a rehearsed step in place of the recipe's"),
        _argument("--length", type=int, metavar="TOKENS", help="tokens of a rehearsed row, likewise"),
    )


def _asking(verb: Callable) -> None:
    """Verbs that answer."""
    question = "one or several questions, each in quotes; without any they come from standard input, one a line"
    system = "reader (the default where there is one), base, pretrained, finetuned, base+passages or finetuned+passages"
    verb(
        commands.ask,
        "answer questions about your own documents, or with a variant's models",
        _argument("variant", metavar="DOCUMENTS|VARIANT", help="a PDF or a folder, such as ~/papers; or a variant"),
        _argument("question", metavar="QUESTION", nargs="*", help=question),
        _argument("--system", metavar="NAME", help=system),
        _argument("--sources", action="store_true", help="show passages of the documents with each answer"),
        _argument("--input", metavar="FILE", help="a CSV with a column `question`; what is answered stays answered"),
        _argument("--output", metavar="FILE", help="the CSV that the answers to --input are written to"),
        _argument("--engine", metavar="URL", help="let a running engine answer, such as http://127.0.0.1:8000/v1"),
        several="question",
    )
    verb(
        commands.serve,
        "start vLLM with the base and the adapters of variants, on this machine only",
        VARIANT,
        _argument("more", metavar="VARIANT", nargs="*", help="others on the same base, served beside it"),
        _argument("--print", action="store_true", dest="only_print", help="show the command instead"),
        _argument("--host", default="127.0.0.1", help="an address of this machine alone"),
        _argument("--port", type=int, default=8000),
        several="more",
    )
    engine = "a running engine that answers; by default the one on port 8000, or, without one, this process"
    verb(
        commands.page,
        "ask in the browser: one system in a chat, or all of them side by side",
        _argument("variant", metavar="DOCUMENTS|VARIANT", help="a PDF or a folder, such as ~/papers; or a variant"),
        _argument("--port", type=int, default=7860),
        _argument("--engine", "--endpoint", metavar="URL", help=engine),
    )


def _taking_away(verb: Callable) -> None:
    """Verbs that take a model or a run's results to another place."""
    verb(
        commands.export,
        "take the fine-tuned model away, with a model card",
        VARIANT,
        _argument("--to", required=True, choices=EXPORTS, help="what to write; see docs/export.md"),
        _argument("--output", metavar="FOLDER", help="in place of runs/VARIANT/exports/FORMAT"),
        _argument("--force", action="store_true", help="replace another export in that folder"),
        _argument("--push", metavar="REPO", help="upload it to this model repository on the Hugging Face hub"),
    )
    verb(commands.publish, "for maintainers: copy the records of a run into the tracked folders", VARIANT)


if __name__ == "__main__":
    sys.exit(main())
