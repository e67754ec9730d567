"""The terminal: one verb a stage, each the same function that the notebooks call."""

from __future__ import annotations

import argparse
import os
import sys
import time

from llama_qna import UserError, __version__, distributed


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a user's error is one line on stderr and exit status 2."""
    options = _parser().parse_args(arguments)
    # no progress bars of libraries, no telemetry, no warnings about threads
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        distributed.start()
        options.run(options)
    except UserError as error:
        if not distributed.is_main():
            time.sleep(5)  # a failure of the first process too has ended this one by now: one line is enough
        print(f"llama-qna: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("llama-qna: stopped", file=sys.stderr)
        return 130
    finally:
        distributed.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llama-qna", description="PDFs in, a measured question-answering model out.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"llama-qna {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, function, text: str, variant: bool = True):
        sub = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=function)
        if variant:
            sub.add_argument("variant", metavar="VARIANT", help="a folder with a variant.yaml, such as paper_135m")
        return sub

    verb("variants", _variants, "list the variants", variant=False)
    load = verb("load", _load, "1. read the documents, clean the text, split it into chunks")
    load.add_argument("--arxiv", metavar="NUMBER", help="fetch this paper from arXiv into the corpus first")
    generate = verb("generate", _generate, "2. make question-answer pairs from the chunks")
    generate.add_argument(
        "--export", choices=["messages", "alpaca", "sharegpt"], help="also write the pairs as JSONL for other trainers"
    )
    verb("pretrain", _pretrain, "3. train an adapter on the text")
    tune = verb("finetune", _finetune, "4. train an adapter on the pairs, on top of the pretrained model")
    tune.add_argument(
        "--without-pretraining",
        action="store_true",
        help="on the base instead, in a folder of its own; evaluate then says what pretraining is worth",
    )
    verb("evaluate", _evaluate, "5. score every checkpoint, and compare the systems on held-out questions")
    verb("figures", _figures, "6. draw the figures")
    run = verb("run", _run, "all stages in order; what is done and still valid is skipped")
    run.add_argument(
        "--notebooks",
        nargs="*",
        metavar="NAME",
        help="run the notebooks of the variant (or only those named) in place of the bare stages",
    )
    plan = verb("plan", _plan, "what training would take, before anything is loaded: memory by part, and time")
    plan.add_argument("--memory", metavar="SIZE", help="what it may take, such as 24GiB; by default what is free")
    plan.add_argument("--device", choices=["cpu", "cuda"], help="plan for this one; by default the GPU if there is one")
    plan.add_argument("--measure", action="store_true", help="measure the machine's limits for 10 s in place of 2")
    plan.add_argument(
        "--rehearse", action="store_true", help="try it: random weights of the true shapes, two steps, one generation"
    )
    plan.add_argument("--rows", type=int, metavar="N", help="rows of a rehearsed step in place of the recipe's")
    plan.add_argument("--length", type=int, metavar="TOKENS", help="tokens of a rehearsed row, likewise")
    ask = verb("ask", _ask, "answer a question with the fine-tuned model")
    ask.add_argument("question", metavar="QUESTION", nargs="+", help="one or several questions, each in quotes")
    verb("publish", _publish, "for maintainers: copy the records of a run into the tracked folders")
    return parser


def _variants(options) -> None:
    from pathlib import Path

    from llama_qna.variants import REPOSITORY, Variant, variant_names

    for name in variant_names(Path(os.environ.get("LLAMA_QNA_ROOT", REPOSITORY))):
        print(f"{name:22} {Variant.load(name).recipe.description}")


def _load(options) -> None:
    from llama_qna.chunks import load

    variant = _variant(options)
    if options.arxiv:
        from llama_qna.arxiv_papers import fetch

        print(f"fetched {fetch(options.arxiv, variant.pdfs).name}")
    table = load(variant)
    print(f"{len(table)} chunks, {table.tokens.sum()} tokens, in {_shown(variant.chunks)}")


def _generate(options) -> None:
    from llama_qna.qna import generate

    variant = _variant(options)
    pairs = generate(variant)
    print(f"{len(pairs)} pairs in {_shown(variant.qna)}")
    if options.export:
        from llama_qna.chunks import read_chunks
        from llama_qna.exports import export

        path = variant.run / f"qna_{options.export}.jsonl"
        print(f"{export(pairs, read_chunks(variant), options.export, path)} pairs in {_shown(path)}")


def _pretrain(options) -> None:
    from llama_qna.training import pretrain

    variant = _variant(options)
    print(f"final loss {pretrain(variant)['results']['final_loss']:.3f}, in {_shown(variant.pretraining)}")


def _finetune(options) -> None:
    from llama_qna.training import finetune

    variant = _variant(options)
    record = finetune(variant, only=options.without_pretraining)
    print(f"final loss {record['results']['final_loss']:.3f}, in {_shown(variant.stage_folders[record['stage']])}")


def _evaluate(options) -> None:
    from llama_qna.evaluation import evaluate
    from llama_qna.runs import systems_table

    print(systems_table(evaluate(_variant(options))).to_string(index=False))


def _figures(options) -> None:
    from llama_qna.figures import draw

    for path in draw(_variant(options)):
        print(_shown(path))


def _run(options) -> None:
    from llama_qna import runs

    variant = _variant(options)
    if options.notebooks is None:
        runs.run_stages(variant)
    else:
        runs.run_notebooks(variant, options.notebooks or variant.recipe.notebooks)
    if options.notebooks in (None, []):
        print("\n" + runs.summary(variant))


def _plan(options) -> None:
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


def _ask(options) -> None:
    from llama_qna.serving import ask

    for answer in ask(_variant(options), options.question):
        print(answer)


def _publish(options) -> None:
    from llama_qna.publishing import publish

    for path in publish(_variant(options)):
        print(_shown(path))


def _variant(options):
    from llama_qna.variants import Variant

    return Variant.load(options.variant)


def _shown(path) -> str:
    """A path as the user would type it from the root of the repository."""
    from llama_qna.variants import REPOSITORY

    root = os.environ.get("LLAMA_QNA_ROOT", str(REPOSITORY))
    return os.path.relpath(path, os.path.realpath(root))


if __name__ == "__main__":
    sys.exit(main())
