"""All stages of a variant in order, bare or through its notebooks, and the table at the end."""

from __future__ import annotations

import hashlib
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llama_qna import UserError
from llama_qna.documents.folder import document_hashes
from llama_qna.models.lineage import READER, has_reader
from llama_qna.project import processes
from llama_qna.project.files import locked, read_json, sha256, write_json
from llama_qna.project.stage import seconds_of, valid_record
from llama_qna.project.variant import REPOSITORY, Reader, Variant
from llama_qna.reporting.results import ROUGE, asked_of, last, our_run
from llama_qna.reporting.tables import as_text, systems_table

NOTEBOOKS = REPOSITORY / "notebooks"
# the last stage of each notebook, by its number; notebook 10 has none, and asks what the others have made
LAST_STAGE = {"01": "load", "02": "load", "03": "load", "04": "generate", "05": "generate", "06": "pretrain"}
LAST_STAGE |= {"07": "finetune", "08": "evaluate", "09": "figures"}


def run_stages(variant: Variant) -> None:
    """Every stage in this process, without notebooks, holding the variant's lock throughout."""
    from llama_qna.documents.chunks import load
    from llama_qna.evaluation.protocols import evaluate
    from llama_qna.pairs.qna import generate
    from llama_qna.reporting.figures import draw
    from llama_qna.training.stages import finetune, pretrain

    with processes.entered_by_first(locked(variant.run, variant.name, variant.root)):
        for stage in (load, generate, pretrain, finetune, evaluate, draw):
            stage(variant)


def run_notebooks(variant: Variant, names: list[str]) -> None:
    """Execute notebooks with papermill; a notebook whose stages and source are as they were is skipped.

    The executed copies go to `runs/<variant>/notebooks/`; the committed notebooks are not touched.

    Raises:
        UserError: an unknown notebook, or an error of the user's inside one.
    """
    known = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        if name not in known:
            raise UserError(f"no notebook {name}; there are: {', '.join(known)}")
    with locked(variant.run, variant.name, variant.root, lock=".notebooks.lock"):  # each stage takes its own
        _run_notebooks(variant, names)


def _run_notebooks(variant: Variant, names: list[str]) -> None:
    folder = variant.run / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    done = _read(folder / "record.json")
    expected = {name: entry["seconds"] for name, entry in _read(variant.folder / "notebooks.json").items()}
    clock, spent = time.perf_counter(), 0.0
    for index, name in enumerate(names):
        if done.get(name, {}).get("key") == _key(variant, name) and (folder / f"{name}.ipynb").is_file():
            print(f"[{index + 1}/{len(names)}] {name}: done before, nothing has changed")
            continue
        print(f"[{index + 1}/{len(names)}] {name}{_time_left(names[index:], expected, spent, clock)}", flush=True)
        started = time.perf_counter()
        _execute(NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb", variant)
        spent += expected.get(name, 0)
        elapsed = time.perf_counter() - started
        seconds = max(elapsed, _stage_seconds(variant, name))
        done[name] = {"key": _key(variant, name), "seconds": round(seconds, 1)}
        write_json(folder / "record.json", done)
        print(f"      {elapsed:.0f} s", flush=True)


def _stage_seconds(variant: Variant, name: str) -> float:
    """What the notebook's own stage took when it was done; the notebook itself may have found it done before."""
    stage = LAST_STAGE.get(name[:2])
    record = valid_record(variant.stage_folders[stage], stage) if stage else None
    return seconds_of(record) if record else 0.0


def _time_left(names: list[str], expected: dict[str, float], spent: float, clock: float) -> str:
    """How long the rest should take, from the published run's seconds scaled to this machine's speed so far."""
    if not expected:
        return ""
    pace = (time.perf_counter() - clock) / spent if spent > 20 else 1.0
    left = [expected.get(name, 0) * pace for name in names]
    return f", about {max(left[0] / 60, 0.1):.1f} min; {sum(left) / 60:.0f} min left in all"


def _execute(source: Path, target: Path, variant: Variant) -> None:
    import logging

    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    # The committed notebooks name their variant; only another one is injected, and the notebook stays as it reads.
    parameters = {} if default_variant(source) == variant.name else {"VARIANT": variant.name}
    partial = target.with_suffix(".partial.ipynb")
    try:
        _interruptibly(
            input_path=source,
            output_path=partial,
            parameters=parameters,
            kernel_name="python3",
            cwd=str(source.parent),
            progress_bar=False,
            stderr_file=_BarsOnly(),
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
    except PapermillExecutionError as error:
        if error.ename in ("UserError", "Stopped"):
            raise UserError(error.evalue) from None
        said = f"failed with {error.ename}: {error.evalue} (see {partial.name} beside the run)"
        raise UserError(f"{source.stem} {said}") from None
    except DeadKernelError:
        said = "its kernel was stopped or killed; what was finished is kept, and the same command goes on there"
        raise UserError(f"{source.stem}: {said}") from None
    partial.rename(target)


def _interruptibly(**options) -> None:
    """papermill's `execute_notebook`; after Ctrl-C or SIGTERM the cell that runs ends as it would in this process.

    In the main thread the client of notebooks takes both signals and kills the kernel some seconds later, between two
    checkpoints. So it works in another thread, and the kernel is interrupted: a stage of training then saves. A second
    signal kills it.
    """
    import papermill
    import psutil

    def kernels() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if "ipykernel_launcher" in " ".join(child.cmdline())]

    executed = ThreadPoolExecutor(1).submit(papermill.execute_notebook, **options)
    try:
        executed.result()
    except KeyboardInterrupt:
        for kernel in kernels():
            kernel.send_signal(signal.SIGINT)
        try:
            executed.exception()  # waits
        except KeyboardInterrupt:
            for kernel in kernels():
                kernel.kill()
        print(file=sys.stderr)  # a bar may stand there, whose end the kernel did not live to write
        raise


class _BarsOnly:
    """Passes the stages' progress bars, with their time left, on to the terminal, and no library's warnings."""

    def write(self, text: str) -> None:
        if "%|" in text:
            sys.stderr.write(text)
            sys.stderr.flush()

    def flush(self) -> None:
        pass


def default_variant(notebook: Path) -> str:
    """The variant that a notebook names in its `parameters` cell."""
    for cell in read_json(notebook)["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return "".join(cell["source"]).split("=", 1)[1].strip().strip("\"'")
    raise UserError(f"{notebook.name}: no cell is tagged `parameters`")


def _key(variant: Variant, name: str) -> str:
    """What a notebook's result depends on: its cells, the recipe, what its stages read of ours, and what they made."""
    cells = read_json(NOTEBOOKS / f"{name}.ipynb")["cells"]
    parts = ["".join(cell["source"]) for cell in cells] + [variant.recipe.model_dump_json()]
    parts += [f"{name} {digest}" for name, digest in document_hashes(variant.pdfs).items()]
    end = LAST_STAGE.get(name[:2], "figures")
    beside = [variant.gold, variant.root / (variant.recipe.generation.qna_file or "-")]
    if end in ("evaluate", "figures"):
        beside.append(variant.unanswerable)
    if has_reader(variant):  # it writes pairs, begins trainings and is compared
        readers = sorted({READER, variant.recipe.start or READER})
        beside += [Reader.load(reader).adapter / "adapter_model.safetensors" for reader in readers]
    parts += [sha256(path) for path in beside if path.is_file()]
    for stage, folder in variant.stage_folders.items():
        record = valid_record(folder, stage)
        parts.append(record["key"] if record else "")
        if stage == end:
            break
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def summary(variant: Variant) -> str:
    """The tables at the end of a run: scores in-sample and held out, seconds per stage, where the figures are."""
    from llama_qna.project.data import read_metrics

    metrics = read_metrics(variant)
    lines = [f"{variant.name}: {variant.recipe.description}", "", *_in_sample_lines(metrics)]
    said = "The scores before and after are in-sample (the text and questions trained on), save for general text"
    if metrics.get("systems"):
        lines += ["", "held out", as_text(systems_table(metrics))]
        said += f"; those with an interval are held out ({asked_of(metrics)}, neither trained nor chosen on)"
    lines += ["", "seconds per stage"]
    for stage, folder in variant.stage_folders.items():
        record = valid_record(folder, stage)
        lines.append(f"  {stage:14}{seconds_of(record):>8.0f}" if record else f"  {stage:14}       -")
    lines += ["", "figures"]
    lines += [f"  {path.relative_to(variant.root)}" for path in sorted(variant.figures.glob("*.png"))]
    return "\n".join([*lines, "", f"{said}."])


def _in_sample_lines(metrics: dict) -> list[str]:
    """What pretraining did to perplexity, and fine-tuning to ROUGE, by the last checkpoint of each stage."""
    found = our_run(metrics)
    kinds = [("domain", "perplexity of the text, pretraining"), ("general", "perplexity of general text, pretraining")]
    rows = [(name, key, "base", "pretraining", 2) for key, name in kinds]
    rows += [(f"{name}, fine-tuning", key, "pretraining", "finetuning", 3) for key, name in ROUGE.items()]
    lines = [f"{'in-sample':42}{'before':>10}{'after':>10}"]
    for name, key, before, after, digits in rows:
        values = (last(found, stage, key) for stage in (before, after))
        lines.append(f"{name:42}" + "".join(f"{value:>10.{digits}f}" for value in values))
    return lines
