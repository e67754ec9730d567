"""What each process does in a stage that several do together: all train and evaluate, and share the model's writing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path

from llama_qna import UserError, distributed, pair_writers, qna
from llama_qna.chunks import read_chunks
from llama_qna.ledger import Ledger
from llama_qna.pair_writers import Passage, Written
from llama_qna.variants import Variant

TOGETHER = ("pretrain", "finetune", "finetune_only", "evaluate")  # whose work itself knows of the other processes


def work_together(variant: Variant, stage: str, work: Callable[[Path], dict | None], folder: Path) -> dict | None:
    """Do a stage's work in every process, or in the first one alone after the model's part of it was shared.

    Raises:
        UserError: what the stage raises, or the model itself is split (FSDP) where it must be whole.
    """
    _refuse_shards(variant, stage)
    if stage in TOGETHER:
        return work(folder)
    settings = variant.recipe.generation
    if stage == "generate" and not (settings.qna_file or settings.endpoint):
        write_together(variant)
    return work(folder) if distributed.is_main() else None


def _refuse_shards(variant: Variant, stage: str) -> None:
    """A model that is split over processes (FSDP) can only be trained, and not beside its base."""
    if not distributed.sharded():
        return
    settings = {"pretrain": variant.recipe.pretraining}.get(stage, variant.recipe.finetuning)
    if stage in ("generate", "evaluate", "repeat"):
        raise UserError(f"{stage} needs the whole model in each process: start it with torchrun, without FSDP")
    if stage in TOGETHER and settings.replay_tokens:
        raise UserError(f"{variant.name}: replay_tokens needs the whole model in each process, so no FSDP; or 0")


def write_together(variant: Variant) -> None:
    """Fill the ledger of `generate` with all that the model writes, each process writing about its share of the groups.

    The groups are those of one process, since texts depend on their batch in the last bits. The first process enters
    them into the ledger as they come; `qna.generate` then finds everything there, and a killed run goes on as ever.
    """
    settings, chunks = variant.recipe.generation, read_chunks(variant)
    body = chunks[chunks.kind == "body"]
    passages = _passages(body)
    size = max(1, settings.batch_size // 2)
    written: dict[str, list[Written]] = {passage.chunk_id: [] for passage in passages}
    write = cache(lambda: pair_writers.writer(variant))
    variant.run.mkdir(parents=True, exist_ok=True)
    with Ledger(variant.run / "qna.ledger") if distributed.is_main() else nullcontext() as ledger:
        known = _Known(_entries(variant, passages, ledger))
        for attempt in range(1, settings.attempts + 1):
            pairs, rejected = qna.judge(variant, body, written)
            waiting = [passage for passage in passages if passage.chunk_id not in set(pairs.chunk_id)]
            groups = [waiting[n : n + size] for n in range(0, len(waiting), size)]
            if attempt == 1 and len(groups) < distributed.processes():
                print(f"{distributed.processes()} processes, {len(groups)} groups of passages: the others wait")
            with qna.Progress(len(waiting), attempt) as progress:
                for start in range(0, len(groups), distributed.processes()):
                    at_once = groups[start : start + distributed.processes()]
                    found, tokens = _write_share(variant, write, known, ledger, at_once, attempt)
                    for passage, result in zip(sum(at_once, []), found, strict=True):
                        written[passage.chunk_id].append(result)
                    progress.update(len(found), len(pairs), len(rejected), tokens)


def _passages(body) -> list[Passage]:
    """The passages as `qna` orders them: the longest first, each with whether it begins within a sentence."""
    before = body.text.shift(fill_value="").where(body.document.eq(body.document.shift()), "")
    passages = [
        Passage(chunk_id, text, qna.continues(text, previous))
        for chunk_id, text, previous in zip(body.chunk_id, body.text, before, strict=True)
    ]
    return sorted(passages, key=lambda passage: (-len(passage.text), passage.chunk_id))


def _entries(variant: Variant, passages: list[Passage], ledger: Ledger | None) -> dict[str, dict]:
    """What the ledger of the first process holds about these passages, by key."""
    found = {}
    if ledger is not None:
        attempts = range(1, variant.recipe.generation.attempts + 1)
        keys = [qna._key(variant, passage, attempt) for passage in passages for attempt in attempts]
        found = {key: ledger.get(key) for key in keys if key in ledger}
    return distributed.from_main(found)


class _Known(dict):
    """Entries by key, and those that are new since last asked, in place of a ledger in each process."""

    def __init__(self, entries: dict[str, dict]):
        super().__init__(entries)
        self.new = []

    def add(self, entries: list[dict]) -> None:
        self.new += entries


def _write_share(variant, write, known, ledger, groups, attempt) -> tuple[list[Written], int]:
    """What is written about up to one group a process; the tokens that are new."""
    known.new, found, tokens = [], [], 0
    for group in distributed.mine(groups):
        found, tokens = qna._write(variant, write, known, group, attempt)
    shared = distributed.gather((found, known.new, tokens))
    if ledger is not None and any(new for _, new, _ in shared):
        ledger.add([entry for _, new, _ in shared for entry in new])
    return [result for results, _, _ in shared for result in results], sum(count for _, _, count in shared)
