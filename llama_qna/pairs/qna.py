"""Chunks become question-answer pairs (stage `generate`).

Every pair keeps the id of its chunk; every rejected one is kept too, with the reason.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from llama_qna import UserError
from llama_qna.pairs import writers
from llama_qna.pairs.filters import REASONS, Duplicates, Filters
from llama_qna.pairs.ledger import Ledger
from llama_qna.pairs.own import read_qna_file
from llama_qna.pairs.writers import Passage, Written
from llama_qna.project import gold
from llama_qna.project.code import code_hash
from llama_qna.project.data import QNA_COLUMNS, read_chunks, read_qna
from llama_qna.project.files import digest, sha256
from llama_qna.project.recipe import Endpoint
from llama_qna.project.stage import once
from llama_qna.project.variant import Variant
from llama_qna.text.tables import aligned
from llama_qna.text.titles import title_of

HELDOUT_ONE_IN = 10  # generated questions, where no section is held out


def generate(variant: Variant) -> pd.DataFrame:
    """Stage 2: make question-answer pairs from the chunks.

    >>> pairs = generate(Variant.load("paper_135m"))

    Writes `qna.csv` and `qna_rejected.csv` (the same columns, `reason` and `score`).

    Returns:
        The accepted pairs, with the columns of `QNA_COLUMNS`.

    Raises:
        UserError: no chunks yet, a Q&A file of the user's without its columns, not one usable pair, or none that the
            gold questions leave for training.
    """
    recipe = variant.recipe
    chunks = read_chunks(variant)
    from llama_qna.models.base import knows_not, model_identity

    inputs = {"chunks.csv": sha256(variant.chunks / "chunks.csv")} | model_identity(recipe.base_model)
    own = [variant.gold] + ([variant.root / recipe.generation.qna_file] if recipe.generation.qna_file else [])
    inputs |= {path.name: sha256(path) for path in own if path.is_file()}
    if adapter := _reader_hash(variant):
        inputs["reader"] = adapter
    written_here = not recipe.generation.endpoint and not recipe.generation.qna_file
    if written_here and (line := knows_not(recipe.base_model, chunks.text)):
        print(line)
    once(
        variant,
        "generate",
        recipe=recipe.model_dump(include={"generation", "base_model", "seed"}),
        inputs=inputs,
        work=lambda folder: _generate(variant, chunks, folder),
    )
    return read_qna(variant)


def _generate(variant: Variant, chunks: pd.DataFrame, folder: Path) -> dict:
    recipe, columns = variant.recipe.generation, [*QNA_COLUMNS, "reason", "score"]
    if recipe.qna_file:
        pairs, rejected, cost = read_qna_file(variant.root / recipe.qna_file, chunks), pd.DataFrame(columns=columns), {}
    else:
        pairs, rejected, cost = _model_pairs(variant, chunks)
    written = len(pairs) + len(rejected)
    if recipe.reference_questions:
        references = reference_pairs(chunks[chunks.kind == "reference"])
        # pairs that this program wrote and a person gave back hold them already
        there = references.Question.isin(pairs.Question)
        there |= references.document.isin(pairs[pairs.recipe == "reference"].document)
        pairs = pd.concat([pairs, references[~there]], ignore_index=True)
    path = folder / "qna_rejected.csv"
    rejected.reindex(columns=columns).to_csv(path, index=False)
    reasons = Counter(rejected.reason.str.split(":").str[0])  # what was wrong with a response follows the colon
    found = {reason: reasons[reason] for reason in REASONS if reasons[reason]}
    if found:
        print(funnel(found, written))
    if pairs.empty:
        raise UserError(
            f"{variant.name}: not one usable question-answer pair came out of {len(rejected)} tries; "
            f"{path.relative_to(variant.root)} says why of each"
        )
    if variant.gold.is_file():
        splits, pairs = set(pairs.split), gold.keep_back(pairs, gold.read_gold(variant.gold, chunks))
        if "train" in splits - set(pairs.split):
            raise UserError(
                f"{gold.shown(variant.gold)}: its questions leave no pair to train on, as no pair near one is; "
                "mark fewer of its rows, or make more pairs"
            )
    pairs.reindex(columns=QNA_COLUMNS).to_csv(folder / "qna.csv", index=False)
    return {"pairs": len(pairs), "rejected": len(rejected), "reasons": found} | cost


def funnel(reasons: dict[str, int], written: int) -> str:
    """For people: how many pairs were written, how many went for which reason, in the order in which it is looked for,
    and how many are left."""
    rows = [["pairs written", str(written)], *([f"- {reason}", str(count)] for reason, count in reasons.items())]
    return aligned([*rows, ["pairs kept", str(written - sum(reasons.values()))]], right=True)


def reference_pairs(references: pd.DataFrame) -> pd.DataFrame:
    """Two questions about each entry of the reference list, answered by the entry.

    "What is reference [n]?" is the study's; such questions differ in a number alone, which a small model hardly learns.
    "Who wrote ...?" asks for the same by its title, where one is found and no other entry has it.
    """
    rows = []
    parts = [re.match(r"\[(\d+)\]\s*(.*)", text, re.S).groups() for text in references.text]
    titles = Counter(title_of(entry) for _, entry in parts)
    for chunk, (number, entry) in zip(references.itertuples(), parts, strict=True):
        questions = [f"What is reference [{number}]?"]
        title = title_of(entry)
        is_named_once = title and titles[title] == 1
        if is_named_once:
            questions.append(f"Who wrote “{title}”?")
        rows += [_row(question, entry, chunk, "reference", "") for question in questions]
    return pd.DataFrame(rows, columns=QNA_COLUMNS)


def _row(question: str, answer: str, chunk, method: str, model: str, evidence: str = "") -> dict:
    place = chunk.chunk_id, chunk.document, chunk.page, chunk.split
    return dict(zip(QNA_COLUMNS, (question, answer, *place, method, model, evidence), strict=True))


def _model_pairs(variant: Variant, chunks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """Let the model write about every chunk; the pairs that are kept, those that are not, and what was written.

    What was written about a passage goes to the ledger before the next group, and each answer of a server when it
    arrives. Passages are asked about in groups that do not depend on what the ledger holds, so that a run that was
    stopped ends with the pairs of an undisturbed one.
    """
    recipe = variant.recipe
    body = chunks[chunks.kind == "body"]
    passages = sorted(passages_of(body), key=lambda passage: (-len(passage.text), passage.chunk_id))
    questions = 4 if recipe.generation.method == "reader" else 1  # about a passage, at least
    size = max(1, recipe.generation.batch_size // questions)  # passages that are written about at once
    if recipe.generation.endpoint:
        size = max(size, recipe.generation.endpoint.concurrency)  # else fewer requests than that are ever in flight
    judge, told = Judge(variant, body), _decides(variant)
    variant.run.mkdir(parents=True, exist_ok=True)
    tokens_in_all = 0
    with Ledger(variant.run / "qna.ledger") as ledger:
        write = cache(lambda: writers.writer(variant, ledger))  # the model is loaded when it is first needed
        for attempt in range(1, recipe.generation.attempts + 1):
            pairs, _ = judge.verdict()
            asked = set(pairs.chunk_id)
            waiting = [passage for passage in passages if passage.chunk_id not in asked]
            new_tokens, started = 0, time.time()
            with tqdm(total=len(waiting), desc=f"attempt {attempt}", unit="chunk") as bar:
                for group in (waiting[n : n + size] for n in range(0, len(waiting), size)):
                    keys = [digest({"passage": asdict(passage), "attempt": attempt} | told) for passage in group]
                    found, tokens = _write(write, keys, ledger, group, attempt, whole=not recipe.generation.endpoint)
                    for passage, result in zip(group, found, strict=True):
                        judge.add(passage.chunk_id, result)
                        tokens_in_all += result.tokens
                    new_tokens += tokens
                    speed = new_tokens / max(time.time() - started, 1e-9)
                    counts = "{} accepted, {} rejected".format(*judge.counts)
                    bar.set_postfix_str(f"{counts}, {speed:.0f} tokens/s", refresh=False)
                    bar.update(len(group))
    return *judge.verdict(), {"tokens": tokens_in_all}


def passages_of(body: pd.DataFrame) -> list[Passage]:
    """The chunks of the body as they are asked about, in their order."""
    before = body.text.shift(fill_value="").where(body.document.eq(body.document.shift()), "")
    rows = zip(body.chunk_id, body.text, before, strict=True)
    return [Passage(chunk_id, text, continues(text, previous)) for chunk_id, text, previous in rows]


def _write(write, keys: list[str], ledger: Ledger, group: list[Passage], attempt: int, whole: bool) -> tuple[list, int]:
    """What the model writes about a group of passages, the ledger's where it has that; and the tokens that are new.

    Args:
        whole: ask about all of a group or none: a model in this process, whose texts depend on their batch in the last
            bits.
    """
    asked = [n for n, key in enumerate(keys) if key not in ledger]
    if asked and whole:
        asked = range(len(group))
    new = dict(zip(asked, write()([group[n] for n in asked], attempt), strict=True)) if asked else {}
    if new:
        ledger.add([asdict(result) | {"key": keys[n]} for n, result in new.items() if result.final])
    found = [new.get(n) or Written.of_entry(ledger[key]) for n, key in enumerate(keys)]
    return found, sum(result.tokens for result in new.values())


def continues(text: str, previous: str) -> bool:
    """Whether a chunk begins within a sentence of the chunk before it, which it may overlap."""
    place = previous.rfind(text[:40])
    read = (previous[:place] if place >= 0 else previous).rstrip()
    return bool(read) and read[-1] not in '.!?:”"'


def judge(variant: Variant, body: pd.DataFrame, written: dict[str, list[Written]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pairs that are kept of what was written about the chunks, and those that are not, each with its reason."""
    judge = Judge(variant, body)
    for chunk_id, results in written.items():
        for result in results:
            judge.add(chunk_id, result)
    return judge.verdict()


class Judge:
    """Looks at every candidate once, when it comes, and compares those that pass with each other at the end.

    Attributes:
        counts: how many candidates have passed the filters so far, and how many have not.
    """

    def __init__(self, variant: Variant, body: pd.DataFrame):
        self.variant, self.body, self.counts = variant, body, (0, 0)
        self.filters = Filters(list(body.text), variant.recipe.generation.min_score)
        self.text_of = dict(zip(body.chunk_id, body.text, strict=True))
        self.judged: dict[str, list[tuple]] = {chunk_id: [] for chunk_id in body.chunk_id}  # (candidate, reason) each

    def add(self, chunk_id: str, result: Written) -> None:
        """Take in what was written about a chunk."""
        text = self.text_of[chunk_id]
        settled = [self.filters.settled(candidate, text) for candidate in result.candidates]
        new = [(candidate, self.filters.reason(candidate, text)) for candidate in settled]
        self.judged[chunk_id] += new
        passed = sum(not reason for _, reason in new)
        self.counts = (self.counts[0] + passed, self.counts[1] + len(new) - passed)

    def verdict(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The pairs that are kept of all that came, and those that are not, each with its reason.

        It does not depend on the order in which the chunks came. The training sections are looked at first, so that of
        two near duplicates the one of a held-out section goes.
        """
        settings, model = self.variant.recipe.generation, _model_name(self.variant)
        questions, answers = Duplicates(), Duplicates()
        rows = []
        for chunk in self.body.sort_values("split", ascending=False, kind="stable").itertuples():
            kept = 0
            for candidate, reason in _best_first(self.judged[chunk.chunk_id]):
                if not reason and questions.add(candidate.question):
                    reason = "duplicate"
                if not reason and chunk.split == "heldout" and candidate.answer in answers:
                    reason = "duplicate"
                if not reason and kept == settings.pairs_per_chunk:
                    reason = "more pairs than wanted"
                if not reason and chunk.split == "train":
                    answers.add(candidate.answer)
                kept += not reason
                row = _row(candidate.question, candidate.answer, chunk, settings.method, model, candidate.evidence)
                rows.append(row | {"reason": reason, "score": candidate.score, "problem": candidate.problem})
        table = pd.DataFrame(rows, columns=[*QNA_COLUMNS, "reason", "score", "problem"])
        table["reason"] = table.reason.where(table.problem == "", table.reason + ": " + table.problem)
        order = {chunk_id: n for n, chunk_id in enumerate(self.body.chunk_id)}  # of the document again
        table = table.sort_values("chunk_id", key=lambda ids: ids.map(order), kind="stable")
        if "heldout" not in set(self.body.split):
            table["split"] = table.Question.map(_split_of)
        return table[table.reason == ""].reset_index(drop=True), table[table.reason != ""].reset_index(drop=True)


def _split_of(question: str) -> str:
    """Every tenth question is held out where no section is; which one, its own hash tells."""
    return "heldout" if int(hashlib.sha256(question.encode()).hexdigest(), 16) % HELDOUT_ONE_IN == 0 else "train"


def _best_first(judged: list[tuple]) -> list[tuple]:
    """Candidates with their reasons, the best about each sentence before the second best about any."""
    seen = Counter()
    ranked = []
    for candidate, reason in sorted(judged, key=lambda item: -(item[0].score or 0)):
        about = candidate.evidence or candidate.answer
        ranked.append((seen[about], candidate, reason))
        seen[about] += not reason
    return [(candidate, reason) for _, candidate, reason in sorted(ranked, key=lambda item: item[0])]


def _model_name(variant: Variant) -> str:
    endpoint = variant.recipe.generation.endpoint
    return endpoint.model if endpoint else variant.recipe.base_model


def _decides(variant: Variant) -> dict:
    """What decides the model's words about a passage; the filters do not, nor does the way to reach a server."""
    recipe = variant.recipe
    unsaid = dict.fromkeys(("attempts", "min_score", "qna_file", "reference_questions"), True)
    return {
        "seed": recipe.seed,
        "model": _model_name(variant),
        "quantization": recipe.quantization.model_dump() if recipe.generation.load_in_4bit else None,
        "generation": recipe.generation.model_dump(
            exclude=unsaid | {"endpoint": set(Endpoint.model_fields) - {"model"}}
        ),
        "code": code_hash("write"),
        "reader": _reader_hash(variant),
    }


def _reader_hash(variant: Variant) -> str:
    """The hash of the adapter that writes, or an empty string."""
    if variant.recipe.generation.method != "reader" or variant.recipe.generation.qna_file:
        return ""
    return sha256(writers.reader_for(variant).adapter / "adapter_model.safetensors")
