"""The terminal: one verb a stage, each the same function that the notebooks call."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from llama_qna import Stopped, UserError, __version__, distributed


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a user's error is one line on stderr and exit status 2; after a signal, 128 + its number."""
    options = _options(arguments)
    # no warnings about threads
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # of several processes the first one says what happened; a launcher ends the others, in silence
    before = signal.signal(signal.SIGTERM, _terminate if distributed.is_main() else signal.SIG_DFL)
    try:
        distributed.start()
        options.run(options)
    except UserError as error:
        if not distributed.is_main():
            time.sleep(5)  # a failure of the first process too has ended this one by now: one line is enough
        print(f"llama-qna: {error}", file=sys.stderr)
        return 128 + error.signal if isinstance(error, Stopped) else 2
    except KeyboardInterrupt as stop:
        if distributed.is_main():
            print("llama-qna: stopped; what was finished is kept, and the same command goes on there", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT)
    except Exception as error:
        if not (said := _of_the_machine(error)):
            raise
        print(f"llama-qna: {said}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)
        distributed.stop()
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """What was typed. Where a verb takes several questions or variants, some may stand behind an option."""
    parser = _parser()
    options, behind = parser.parse_known_args(arguments)
    several = getattr(options, getattr(options, "several", ""), None)
    if behind and (several is None or any(word.startswith("-") for word in behind)):
        parser.error(f"unrecognized arguments: {' '.join(behind)}")
    if behind:
        several += behind
    return options


def _of_the_machine(error: Exception) -> str:
    """What the machine lacks, where that is what an error means."""
    from llama_qna import disk, resuming

    if disk.is_full(error):
        return "the disk is full; what was finished is kept: make room, and start again"
    if resuming.is_out_of_memory(error):
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
    again = verb("repeat", _repeat, "train again with other seeds, and show how far the scores differ")
    again.add_argument("--seeds", metavar="SEED", nargs="+", type=int, default=[43, 44], help="by default 43 and 44")
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
    ask = verb("ask", _ask, "answer questions")
    ask.add_argument(
        "question",
        metavar="QUESTION",
        nargs="*",
        help="one or several questions, each in quotes; without any they come from standard input, one a line",
    )
    ask.add_argument(
        "--system",
        default="qna",
        metavar="NAME",
        help="base, pretrained, qna (fine-tuned, the default), rag (base with retrieval) or qna+rag",
    )
    ask.add_argument("--sources", action="store_true", help="show passages of the documents with each answer")
    ask.add_argument("--input", metavar="FILE", help="a CSV with a column `question`; what is answered stays answered")
    ask.add_argument("--output", metavar="FILE", help="the CSV that the answers to --input are written to")
    ask.set_defaults(several="question")
    ask.add_argument("--engine", metavar="URL", help="let a running engine answer, such as http://127.0.0.1:8000/v1")
    serve = verb("serve", _serve, "start vLLM with the base and the adapters of variants, on this machine only")
    serve.add_argument("more", metavar="VARIANT", nargs="*", help="others on the same base, served beside it")
    serve.set_defaults(several="more")
    serve.add_argument("--print", action="store_true", dest="only_print", help="show the command instead")
    serve.add_argument("--host", default="127.0.0.1", help="an address of this machine alone")
    serve.add_argument("--port", type=int, default=8000)
    page = verb("page", _page, "ask in the browser: one system in a chat, or all of them side by side")
    page.add_argument("--port", type=int, default=7860)
    page.add_argument(
        "--engine",
        "--endpoint",
        metavar="URL",
        help="a running engine that answers; by default the one on port 8000, or, without one, this process",
    )
    export = verb("export", _export, "take the fine-tuned model away, with a model card")
    export.add_argument(
        "--to", required=True, choices=["merged", "adapter", "gguf", "ollama"], help="what to write; see docs/export.md"
    )
    export.add_argument("--output", metavar="FOLDER", help="in place of runs/VARIANT/exports/FORMAT")
    export.add_argument("--force", action="store_true", help="replace another export in that folder")
    export.add_argument("--push", metavar="REPO", help="upload it to this model repository on the Hugging Face hub")
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


def _repeat(options) -> None:
    from llama_qna.repeats import repeat
    from llama_qna.runs import as_text, seeds_table

    print(as_text(seeds_table(repeat(_variant(options), options.seeds))))


def _evaluate(options) -> None:
    from llama_qna.evaluation import evaluate
    from llama_qna.runs import as_text, checkpoints_table, systems_table

    metrics = evaluate(_variant(options))
    print(checkpoints_table(metrics).to_string(index=False))
    if metrics["systems"]:
        print("\nheld out, on gold questions\n" + as_text(systems_table(metrics)))


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
    variant = _variant(options)
    from pathlib import Path

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


def _serve(options) -> None:
    from llama_qna.variants import Variant

    variants = [_variant(options), *map(Variant.load, options.more)]
    from llama_qna import serving

    if options.only_print:
        print(serving.command(variants, options.host, options.port))
    else:
        serving.serve(variants, options.host, options.port)


def _export(options) -> None:
    from pathlib import Path

    from llama_qna import hub
    from llama_qna.takeaway import export, read_checks

    if options.push:
        hub.require_access(options.push)  # before the work of minutes
    folder = export(_variant(options), options.to, Path(options.output) if options.output else None, options.force)
    for line in read_checks(folder):
        print(line)
    print(_shown(folder))
    if options.push:
        print(hub.push(folder, options.push))


def _page(options) -> None:
    from llama_qna.page import serve_page

    serve_page(_variant(options), options.port, options.engine)


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
