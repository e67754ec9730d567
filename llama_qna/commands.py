"""What each verb of the terminal does: one function a verb, with its name, on the functions that the notebooks call.

A function imports what it needs itself, so that `llama-qna --help` stays quick and loads nothing heavy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llama_qna import UserError


def variants(options) -> None:
    from llama_qna.project.variant import Variant, root_in_use, variant_names

    for name in variant_names(root_in_use()):
        print(f"{name:22} {Variant.load(name).recipe.description}")


def new(options) -> None:
    from llama_qna.documents.own import new as write

    path, size = write(options.name, options.source, options.heldout)
    for line in size.left_out if size else ():
        print(line)
    print(f"{_shown(path)}: {size or f'no document yet; put yours into data/pdfs/{options.name}/'}")
    print(f"next: llama-qna plan {options.name}, which says how long it takes, then llama-qna run {options.name}")


def load(options) -> None:
    from llama_qna.documents import chunks

    variant = _variant(options)
    if options.arxiv:
        from llama_qna.documents.arxiv import fetch

        print(f"fetched {fetch(options.arxiv, variant.pdfs).name}")
    table = chunks.load(variant)
    print(f"{len(table)} chunks, {table.tokens.sum()} tokens, in {_shown(variant.chunks)}")


def generate(options) -> None:
    from llama_qna.pairs import qna

    variant = _variant(options)
    pairs = qna.generate(variant)
    print(f"{len(pairs)} pairs in {_shown(variant.qna)}")
    if options.export:
        from llama_qna.pairs import formats
        from llama_qna.project.data import read_chunks

        path = variant.run / f"qna_{options.export}.jsonl"
        print(f"{formats.export(pairs, read_chunks(variant), options.export, path)} pairs in {_shown(path)}")


def gold(options) -> None:
    from llama_qna.project.generated import propose

    path, count = propose(_variant(options), options.count)
    print(f"{count} questions in {_shown(path)}: correct them, and write yes into `checked` where one is right")
    print(f"next: llama-qna run {options.variant}, which trains on no pair near a marked one, and asks the marked ones")


def pretrain(options) -> None:
    from llama_qna.training import stages

    variant = _variant(options)
    print(f"final loss {stages.pretrain(variant)['results']['final_loss']:.3f}, in {_shown(variant.pretraining)}")


def finetune(options) -> None:
    from llama_qna.training import stages

    variant = _variant(options)
    record = stages.finetune(variant, only=options.without_pretraining)
    print(f"final loss {record['results']['final_loss']:.3f}, in {_shown(variant.stage_folders[record['stage']])}")


def reader(options) -> None:
    from llama_qna.project.variant import Reader
    from llama_qna.training.reading import read

    found = Reader.load(options.reader)
    print(f"final loss {read(found)['results']['final_loss']:.3f}, in {_shown(found.stage_folders['read'])}")
    if options.publish:
        from llama_qna.publish import publish_reader
        from llama_qna.reporting.tables import as_text, systems_table

        print(as_text(systems_table(publish_reader(found)["all"])))


def repeat(options) -> None:
    from llama_qna import repeat as repeat_module
    from llama_qna.reporting.tables import as_text, seeds_table

    print(as_text(seeds_table(repeat_module.repeat(_variant(options), options.seeds))))


def evaluate(options) -> None:
    from llama_qna.evaluation import protocols
    from llama_qna.reporting.results import asked_of
    from llama_qna.reporting.tables import as_text, checkpoints_table, systems_table

    metrics = protocols.evaluate(_variant(options))
    print(checkpoints_table(metrics).to_string(index=False))
    if metrics["systems"]:
        print(f"\nheld out, on {asked_of(metrics)}\n" + as_text(systems_table(metrics)))


def figures(options) -> None:
    from llama_qna.reporting.figures import draw

    for path in draw(_variant(options)):
        print(_shown(path))


def run(options) -> None:
    from llama_qna.run import run_notebooks, run_stages, summary

    variant = _variant(options)
    if options.notebooks is None:
        run_stages(variant)
    else:
        run_notebooks(variant, options.notebooks or variant.recipe.notebooks)
    if options.notebooks in (None, []):
        print("\n" + summary(variant))


def plan(options) -> None:
    from llama_qna.models.device import parse_memory

    variant = _variant(options)
    if options.gpu:
        from llama_qna.models.cards import report as forecast

        if options.memory or options.device or options.measure or options.rehearse:
            raise UserError("--gpu stands for another machine's card: leave the other options out")
        print(forecast(variant, options.gpu))
        return
    budget = parse_memory(options.memory) if options.memory else None
    if options.rehearse:
        from llama_qna.training.rehearsal import rehearse, table

        if options.device:
            raise UserError("--device: a rehearsal runs on the machine as it is; leave it out")
        print("\n" + table(rehearse(variant, budget, options.rows, options.length)))
        print(f"\nin {_shown(variant.run / 'rehearsal.json')}")
        return
    if options.rows or options.length:
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


def ask(options) -> None:
    asked = _asked(options)
    from llama_qna.serving import terminal
    from llama_qna.serving.library import SYSTEM, Library

    if bool(options.input) != bool(options.output) or options.input and options.question:
        raise UserError("--input and --output belong together, and take the place of QUESTION")
    questions = options.question
    if not questions and not options.input and terminal.is_piped():
        questions = terminal.piped_questions(sys.stdin)
    answerer, system = asked, options.system or SYSTEM
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


def serve(options) -> None:
    from llama_qna.project.variant import Variant

    served = [_variant(options), *map(Variant.load, options.more)]
    from llama_qna.serving import engine

    if options.only_print:
        print(engine.command(served, options.host, options.port))
    else:
        engine.serve(served, options.host, options.port)


def page(options) -> None:
    asked = _asked(options)
    from llama_qna.serving.page import serve_page

    serve_page(asked, options.port, options.engine)


def export(options) -> None:
    from llama_qna.serving import exports, hub

    if options.push:
        hub.require_access(options.push)  # before the work of minutes
    output = Path(options.output) if options.output else None
    folder = exports.export(_variant(options), options.to, output, options.force)
    for line in exports.read_checks(folder):
        print(line)
    print(_shown(folder))
    if options.push:
        print(hub.push(folder, options.push))


def publish(options) -> None:
    from llama_qna import publish as publish_module

    for path in publish_module.publish(_variant(options)):
        print(_shown(path))


def _variant(options):
    from llama_qna.project.variant import Variant

    return Variant.load(options.variant)


def _shown(path) -> str:
    """A path as the user would type it from the root of the repository."""
    from llama_qna.project.variant import root_in_use

    return os.path.relpath(path, root_in_use())
