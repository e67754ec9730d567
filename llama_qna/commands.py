"""The verbs of the terminal, in the order of `--help`: what may be typed after each, and what it does.

A verb is a function whose docstring is its help; it calls the functions that the notebooks call. A function imports
what it needs itself, so that `llama-qna --help` stays quick and loads nothing heavy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llama_qna import UserError

FORMATS = ("messages", "alpaca", "sharegpt")  # of `pairs.formats`
GPUS = ("T4", "L4", "4090", "A100-40", "A100-80", "H100", "H200")  # of `models.cards`
EXPORTS = ("merged", "adapter", "gguf", "ollama")  # of `serving.exports`


class Verb(NamedTuple):
    """What may stand behind a verb, and what it keeps."""

    arguments: tuple  # of `argument`
    keeps: bool  # its work is kept when it is stopped
    several: str | None  # its argument that takes many words


VERBS: dict[str, Verb] = {}


def verb(*arguments, keeps: bool = False, several: str | None = None) -> Callable:
    """Let a function be called from the terminal by its name, with arguments made by `argument`; see `Verb`."""

    def add(function: Callable) -> Callable:
        VERBS[function.__name__] = Verb(arguments, keeps, several)
        return function

    return add


def argument(*names: str, **settings) -> tuple:
    """What argparse's `add_argument` takes."""
    return names, settings


VARIANT = argument("variant", metavar="VARIANT", help="a folder with a variant.yaml, such as paper_135m")
ASKED = argument("variant", metavar="DOCUMENTS|VARIANT", help="a PDF or a folder, such as ~/papers; or a variant")
ALONE = "on the base instead, in a folder of its own; evaluate then says what pretraining is worth"
NOTEBOOKS = "run the notebooks of the variant (or only those named) in place of the bare stages"
REHEARSE = "try it: random weights of the true shapes, two steps, one generation"
QUESTION = "one or several questions, each in quotes; without any they come from standard input, one a line"
SYSTEM = "reader (the default where there is one), base, pretrained, finetuned, base+passages or finetuned+passages"
ENGINE = "a running engine that answers; by default the one on port 8000, or, without one, this process"


@verb()
def variants(options) -> None:
    """list the variants"""
    from llama_qna.project.variant import Variant, root_in_use, variant_names

    for name in variant_names(root_in_use()):
        try:
            said = Variant.load(name).recipe.description
        except UserError as error:  # the others are still to be listed
            said = error
        print(f"{name:22} {said}")


@verb(
    argument("name", metavar="NAME", help="of the new variant, and of its folder with the recipe"),
    argument("--from", dest="source", metavar="VARIANT", default="paper_135m", help="by default paper_135m"),
    argument("--heldout", metavar="SHARE", type=float, default=0.0, help="of each document, such as 0.15"),
)
def new(options) -> None:
    """write a recipe for documents of your own, which lie in data/pdfs/NAME"""
    from llama_qna.documents.own import new as write

    path, size = write(options.name, options.source, options.heldout)
    for line in size.left_out if size else ():
        print(line)
    print(f"{_shown(path)}: {size or f'no document yet; put yours into data/pdfs/{options.name}/'}")
    print(f"next: llama-qna plan {options.name}, which says how long it takes, then llama-qna run {options.name}")


# --- what is made of a variant, in the order of the data -------------------------------------------------------------


@verb(
    VARIANT,
    argument("--arxiv", metavar="NUMBER", help="fetch this paper from arXiv into the corpus first"),
    keeps=True,
)
def load(options) -> None:
    """1. read the documents, clean the text, split it into chunks"""
    from llama_qna.documents import arxiv, chunks

    variant = _variant(options)
    if options.arxiv:
        print(f"fetched {arxiv.fetch(options.arxiv, variant.pdfs).name}")
    table = chunks.load(variant)
    print(f"{len(table)} chunks, {table.tokens.sum()} tokens, in {_shown(variant.chunks)}")


@verb(
    VARIANT,
    argument("--export", choices=FORMATS, help="also write the pairs as JSONL for other trainers"),
    keeps=True,
)
def generate(options) -> None:
    """2. make question-answer pairs from the chunks"""
    from llama_qna.pairs import formats, qna

    variant = _variant(options)
    pairs = qna.generate(variant)
    print(f"{len(pairs)} pairs in {_shown(variant.qna)}")
    if options.export:
        path = variant.run / f"qna_{options.export}.jsonl"
        print(f"{formats.export(pairs, options.export, path)} pairs in {_shown(path)}")


@verb(VARIANT, argument("--count", metavar="N", type=int, default=30, help="at most so many; by default 30"))
def gold(options) -> None:
    """propose questions of the pairs; those that a person marks are asked by evaluate"""
    from llama_qna.project.generated import propose

    path, count = propose(_variant(options), options.count)
    print(f"{count} questions in {_shown(path)}: correct them, and write yes into `checked` where one is right")
    print(f"next: llama-qna run {options.variant}, which trains on no pair near a marked one, and asks the marked ones")


@verb(VARIANT, keeps=True)
def pretrain(options) -> None:
    """3. train an adapter on the text"""
    from llama_qna.training import stages

    variant = _variant(options)
    _say_loss(stages.pretrain(variant), variant)


@verb(
    VARIANT,
    argument("--without-pretraining", action="store_true", help=ALONE),
    keeps=True,
)
def finetune(options) -> None:
    """4. train an adapter on the pairs, on top of the pretrained model"""
    from llama_qna.training import stages

    variant = _variant(options)
    _say_loss(stages.finetune(variant, only=options.without_pretraining), variant)


@verb(
    argument("reader", metavar="READER", nargs="?", default="reader_135m", help="a folder with a reader.yaml"),
    argument("--publish", action="store_true", help="for maintainers: put it in place of the committed adapter"),
    keeps=True,
)
def reader(options) -> None:
    """teach the embedded base to read, from data/reading (about an hour)"""
    from llama_qna.project.variant import Reader
    from llama_qna.training.reading import read

    found = Reader.load(options.reader)
    _say_loss(read(found), found)
    if options.publish:
        from llama_qna.publish import publish_reader
        from llama_qna.reporting.tables import as_text, systems_table

        print(as_text(systems_table(publish_reader(found)["all"])))


@verb(
    VARIANT,
    argument("--seeds", metavar="SEED", nargs="+", type=int, default=[43, 44], help="by default 43 and 44"),
    keeps=True,
)
def repeat(options) -> None:
    """train again with other seeds, and show how far the scores differ"""
    from llama_qna import repeat as repeat_module
    from llama_qna.reporting.tables import as_text, seeds_table

    print(as_text(seeds_table(repeat_module.repeat(_variant(options), options.seeds))))


@verb(VARIANT, keeps=True)
def evaluate(options) -> None:
    """5. score every checkpoint, and compare the systems on held-out questions"""
    from llama_qna.evaluation import protocols
    from llama_qna.reporting.results import asked_of
    from llama_qna.reporting.tables import as_text, checkpoints_table, systems_table

    metrics = protocols.evaluate(_variant(options))
    print(checkpoints_table(metrics).to_string(index=False))
    if metrics["systems"]:
        print(f"\nheld out, on {asked_of(metrics)}\n" + as_text(systems_table(metrics)))


@verb(VARIANT, keeps=True)
def figures(options) -> None:
    """6. draw the figures"""
    from llama_qna.reporting.figures import draw

    for path in draw(_variant(options)):
        print(_shown(path))


@verb(
    VARIANT,
    argument("--notebooks", nargs="*", metavar="NAME", help=NOTEBOOKS),
    keeps=True,
)
def run(options) -> None:
    """all stages in order; what is done and still valid is skipped"""
    from llama_qna.run import run_notebooks, run_stages, summary

    variant = _variant(options)
    if options.notebooks is None:
        run_stages(variant)
    else:
        run_notebooks(variant, options.notebooks or variant.recipe.notebooks)
    if not options.notebooks:
        print("\n" + summary(variant))


# --- before anything is made -----------------------------------------------------------------------------------------


@verb(
    VARIANT,
    argument("--memory", metavar="SIZE", help="what it may take, such as 24GiB; by default what is free"),
    argument("--device", choices=["cpu", "cuda"], help="plan for this one; by default the GPU if there is one"),
    argument("--gpu", choices=GPUS, help="forecast for this card, which need not be here"),
    argument("--measure", action="store_true", help="measure the machine's limits for 10 s in place of 1.5"),
    argument("--rehearse", action="store_true", help=REHEARSE),
    argument("--rows", type=int, metavar="N", help="rows of a rehearsed step in place of the recipe's"),
    argument("--length", type=int, metavar="TOKENS", help="tokens of a rehearsed row, likewise"),
)
def plan(options) -> None:
    """what training would take, before anything is loaded: memory by part, and time"""
    from llama_qna.models import cards
    from llama_qna.models.device import parse_memory

    variant = _variant(options)
    if options.gpu:
        if options.memory or options.device or options.measure or options.rehearse:
            raise UserError("--gpu stands for another machine's card: leave the other options out")
        print(cards.report(variant, options.gpu))
        return
    budget = parse_memory(options.memory) if options.memory else None
    if options.rehearse:
        from llama_qna.training.rehearsal import rehearse, table

        if options.device:
            raise UserError("--device: a rehearsal runs on the machine as it is; leave it out")
        print("\n" + table(rehearse(variant, budget, options.rows, options.length)))
        print(f"\nin {_shown(variant.run / 'rehearsal.json')}")
        return
    if options.rows is not None or options.length is not None:
        raise UserError("--rows and --length belong to --rehearse")
    from llama_qna.documents.own import measure
    from llama_qna.models.forecast import report

    size, missing = None, ""
    if not options.device:
        try:
            size = measure(variant.pdfs, variant.recipe)
        except UserError as error:
            missing = f"\nno times of the stages: {error}"
    print(report(variant, budget, options.device, 10 if options.measure else 1.5, size) + missing)


# --- answers ---------------------------------------------------------------------------------------------------------


@verb(
    ASKED,
    argument("question", metavar="QUESTION", nargs="*", help=QUESTION),
    argument("--system", metavar="NAME", help=SYSTEM),
    argument("--sources", action="store_true", help="show passages of the documents with each answer"),
    argument("--input", metavar="FILE", help="a CSV with a column `question`; what is answered stays answered"),
    argument("--output", metavar="FILE", help="the CSV that the answers to --input are written to"),
    argument("--engine", metavar="URL", help="let a running engine answer, such as http://127.0.0.1:8000/v1"),
    several="question",
)
def ask(options) -> None:
    """answer questions about your own documents, or with a variant's models"""
    answerer = _asked(options)
    from llama_qna.serving import terminal
    from llama_qna.serving.library import Library

    if bool(options.input) != bool(options.output) or options.input and options.question:
        raise UserError("--input and --output belong together, and take the place of QUESTION")
    questions = options.question
    if not questions and not options.input and terminal.is_piped():
        questions = terminal.piped_questions(sys.stdin)
    system = options.system or "reader"
    if not isinstance(answerer, Library):
        answerer, system = _of_variant(options, answerer)
    if options.input:
        count = terminal.ask_file(answerer, Path(options.input), Path(options.output), system)
        print(f"{count} answers added to {options.output}")
    elif questions:
        for text in terminal.ask(answerer, questions, system, options.sources):
            print(text)
    else:
        terminal.converse(answerer, system, options.sources)


def _asked(options):
    """The documents or the variant that somebody asks; what is to be said of the documents goes to standard error."""
    from llama_qna.serving.named import named

    found = named(options.variant)
    if not isinstance(found, Path):
        return found
    if options.engine:
        raise UserError("--engine answers for a variant; documents are answered about in this process")
    from llama_qna.serving.library import Library

    library = Library(found)
    for line in library.notes:
        print(line, file=sys.stderr)
    return library


def _of_variant(options, variant):
    """What answers for a variant, and the system: the one that is named, or the best."""
    from llama_qna.answering.answerer import Answerer, best_system
    from llama_qna.models.lineage import trained
    from llama_qna.project.systems import model_of
    from llama_qna.serving.engine_client import EngineAnswerer

    system = options.system or ("finetuned" if options.engine else best_system(variant))
    trained(variant, model_of(system))  # refuses one that is not there or not trained, before anything is loaded
    return EngineAnswerer(variant, options.engine) if options.engine else Answerer(variant), system


@verb(
    VARIANT,
    argument("more", metavar="VARIANT", nargs="*", help="others on the same base, served beside it"),
    argument("--print", action="store_true", dest="only_print", help="show the command instead"),
    argument("--host", default="127.0.0.1", help="an address of this machine alone"),
    argument("--port", type=int, default=8000),
    several="more",
)
def serve(options) -> None:
    """start vLLM with the base and the adapters of variants, on this machine only"""
    from llama_qna.project.variant import Variant

    served = [Variant.load(name) for name in (options.variant, *options.more)]
    from llama_qna.serving import engine

    if options.only_print:
        print(engine.command(served, options.host, options.port))
    else:
        engine.serve(served, options.host, options.port)


@verb(
    ASKED,
    argument("--port", type=int, default=7860),
    argument("--engine", "--endpoint", metavar="URL", help=ENGINE),
)
def page(options) -> None:
    """ask in the browser: one system in a chat, or all of them side by side"""
    asked = _asked(options)
    from llama_qna.serving.page import serve_page

    serve_page(asked, options.port, options.engine)


# --- to another place ------------------------------------------------------------------------------------------------


@verb(
    VARIANT,
    argument("--to", required=True, choices=EXPORTS, help="what to write; see docs/export.md"),
    argument("--output", metavar="FOLDER", help="in place of runs/VARIANT/exports/FORMAT"),
    argument("--force", action="store_true", help="replace another export in that folder"),
    argument("--push", metavar="REPO", help="upload it to this model repository on the Hugging Face hub"),
)
def export(options) -> None:
    """take the fine-tuned model away, with a model card"""
    from llama_qna.serving import exports, hub

    if options.push:
        hub.require_access(options.push)  # before the work of minutes
    folder = exports.export(_variant(options), options.to, options.output, options.force)
    print(*exports.read_checks(folder), _shown(folder), sep="\n")
    if options.push:
        print(hub.push(folder, options.push))


@verb(VARIANT)
def publish(options) -> None:
    """for maintainers: copy the records of a run into the tracked folders"""
    from llama_qna import publish as publish_module

    for path in publish_module.publish(_variant(options)):
        print(_shown(path))


def _variant(options):
    from llama_qna.project.variant import Variant

    return Variant.load(options.variant)


def _say_loss(record: dict, trained) -> None:
    """What a stage of a variant, or of a reader, has trained."""
    folder = trained.stage_folders[record["stage"]]
    print(f"final loss {record['results']['final_loss']:.3f}, in {_shown(folder)}")


def _shown(path) -> str:
    """A path as the user would type it from the root of the repository."""
    from llama_qna.project.variant import root_in_use

    return os.path.relpath(path, root_in_use())
