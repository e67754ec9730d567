"""What each verb of the terminal does: one function a verb, with its name, on the functions that the notebooks call.

A function imports what it needs itself, so that `llama-qna --help` stays quick and loads nothing heavy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llama_qna import UserError


def variants(options) -> None:
    from llama_qna.variants import Variant, root_in_use, variant_names

    for name in variant_names(root_in_use()):
        print(f"{name:22} {Variant.load(name).recipe.description}")


def load(options) -> None:
    from llama_qna import chunks

    variant = _variant(options)
    if options.arxiv:
        from llama_qna.arxiv_papers import fetch

        print(f"fetched {fetch(options.arxiv, variant.pdfs).name}")
    table = chunks.load(variant)
    print(f"{len(table)} chunks, {table.tokens.sum()} tokens, in {_shown(variant.chunks)}")


def generate(options) -> None:
    from llama_qna import qna

    variant = _variant(options)
    pairs = qna.generate(variant)
    print(f"{len(pairs)} pairs in {_shown(variant.qna)}")
    if options.export:
        from llama_qna import exports
        from llama_qna.chunks import read_chunks

        path = variant.run / f"qna_{options.export}.jsonl"
        print(f"{exports.export(pairs, read_chunks(variant), options.export, path)} pairs in {_shown(path)}")


def pretrain(options) -> None:
    from llama_qna import training

    variant = _variant(options)
    print(f"final loss {training.pretrain(variant)['results']['final_loss']:.3f}, in {_shown(variant.pretraining)}")


def finetune(options) -> None:
    from llama_qna import training

    variant = _variant(options)
    record = training.finetune(variant, only=options.without_pretraining)
    print(f"final loss {record['results']['final_loss']:.3f}, in {_shown(variant.stage_folders[record['stage']])}")


def repeat(options) -> None:
    from llama_qna import repeats
    from llama_qna.runs import as_text, seeds_table

    print(as_text(seeds_table(repeats.repeat(_variant(options), options.seeds))))


def evaluate(options) -> None:
    from llama_qna import evaluation
    from llama_qna.runs import as_text, checkpoints_table, systems_table

    metrics = evaluation.evaluate(_variant(options))
    print(checkpoints_table(metrics).to_string(index=False))
    if metrics["systems"]:
        print("\nheld out, on gold questions\n" + as_text(systems_table(metrics)))


def figures(options) -> None:
    from llama_qna.figures import draw

    for path in draw(_variant(options)):
        print(_shown(path))


def run(options) -> None:
    from llama_qna import runs

    variant = _variant(options)
    if options.notebooks is None:
        runs.run_stages(variant)
    else:
        runs.run_notebooks(variant, options.notebooks or variant.recipe.notebooks)
    if options.notebooks in (None, []):
        print("\n" + runs.summary(variant))


def plan(options) -> None:
    from llama_qna import machine

    variant = _variant(options)
    budget = machine.parse_memory(options.memory) if options.memory else None
    if options.rehearse:
        from llama_qna.rehearsal import rehearse, table

        if options.device:
            raise UserError("--device: a rehearsal runs on the machine as it is; leave it out")
        print("\n" + table(rehearse(variant, budget, options.rows, options.length)))
        print(f"\nin {_shown(variant.run / 'rehearsal.json')}")
        return
    if options.rows or options.length:
        raise UserError("--rows and --length belong to --rehearse")
    from llama_qna.planning import report

    print(report(variant, budget, options.device, 10 if options.measure else 1.5))


def ask(options) -> None:
    variant = _variant(options)
    from llama_qna import asking
    from llama_qna.answering import MODELS, Answerer, uses_retrieval
    from llama_qna.engine import EngineAnswerer
    from llama_qna.serving import trained

    uses_retrieval(options.system)  # refuses one that is not there
    trained(variant, MODELS[options.system])  # refuses one that is not trained, before anything is loaded
    if bool(options.input) != bool(options.output) or options.input and options.question:
        raise UserError("--input and --output belong together, and take the place of QUESTION")
    questions = options.question
    if not questions and not options.input and asking.is_piped():
        questions = asking.piped_questions(sys.stdin)
    answerer = EngineAnswerer(variant, options.engine) if options.engine else Answerer(variant)
    if options.input:
        count = asking.ask_file(answerer, Path(options.input), Path(options.output), options.system)
        print(f"{count} answers added to {options.output}")
    elif questions:
        for text in asking.ask(answerer, questions, options.system, options.sources):
            print(text)
    else:
        asking.converse(answerer, options.system, options.sources)


def serve(options) -> None:
    from llama_qna.variants import Variant

    served = [_variant(options), *map(Variant.load, options.more)]
    from llama_qna import serving

    if options.only_print:
        print(serving.command(served, options.host, options.port))
    else:
        serving.serve(served, options.host, options.port)


def page(options) -> None:
    from llama_qna.page import serve_page

    serve_page(_variant(options), options.port, options.engine)


def export(options) -> None:
    from llama_qna import hub, takeaway

    if options.push:
        hub.require_access(options.push)  # before the work of minutes
    output = Path(options.output) if options.output else None
    folder = takeaway.export(_variant(options), options.to, output, options.force)
    for line in takeaway.read_checks(folder):
        print(line)
    print(_shown(folder))
    if options.push:
        print(hub.push(folder, options.push))


def publish(options) -> None:
    from llama_qna import publishing

    for path in publishing.publish(_variant(options)):
        print(_shown(path))


def _variant(options):
    from llama_qna.variants import Variant

    return Variant.load(options.variant)


def _shown(path) -> str:
    """A path as the user would type it from the root of the repository."""
    from llama_qna.variants import root_in_use

    return os.path.relpath(path, root_in_use())
