"""Generated pairs as questions: asked where nobody wrote gold ones, and proposed to a person, who makes gold of them.

They have the form of `project.gold.read_gold`; `source` tells the difference.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from llama_qna import UserError
from llama_qna.project.data import read_chunks, read_qna
from llama_qna.project.files import write_text
from llama_qna.project.gold import DEV_SHARE, GOLD_COLUMNS, SEPARATOR, holding, sections_of, shown, words_of
from llama_qna.project.variant import Variant
from llama_qna.text.language import language_of
from llama_qna.text.words import content_words, sentences_of, similarity

GENERATED = "generated, not checked"
SPARED = 1 / 3  # of the pairs trained on may be proposed: what is marked is trained on no more
MOST_ASKED = 150  # about as many as a shipped corpus has gold questions
ASKS = re.compile(r"\b(how many|how much|why|how|who|whom|when|where|which|what)\b", re.IGNORECASE)


def generated_questions(pairs: pd.DataFrame, chunks: pd.DataFrame) -> pd.DataFrame | None:
    """Pairs that were kept from training as questions, for a corpus without gold ones.

    Args:
        pairs: the table of `project.data.read_qna`; those of the split `heldout` are taken, at most 150.
        chunks: the table of `project.data.read_chunks`.

    Returns:
        The questions, whose `source` is `generated, not checked`; None where no pair was kept back.
    """
    table = _questions_of(pairs[pairs.split == "heldout"], chunks, MOST_ASKED)
    return None if table.empty else table.assign(source=GENERATED)


def propose(variant: Variant, count: int) -> tuple[Path, int]:
    """Write a gold file of generated pairs, for a person to correct and to mark; those kept from training come first.

    Of the others a third is proposed at most, as what a person marks is kept from training too.

    Returns:
        Its path, and how many questions are in it.

    Raises:
        UserError: there is a gold file already, no pairs yet, or none about a chunk of the text that can be spared.
    """
    path = variant.gold
    if path.exists():
        raise UserError(f"{shown(path)} is there already: mark its rows, or move it away")
    if count < 1:
        raise UserError(f"--count {count}: at least 1")
    table = _questions_of(read_qna(variant), read_chunks(variant), count)
    if table.empty:
        raise UserError(f"{variant.name}: there is no pair to propose: none about the text that training can spare")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table[[*GOLD_COLUMNS, "page"]].assign(checked="")
    write_text(path, "\ufeff" + table.to_csv(index=False))  # spreadsheets know UTF-8 by the mark
    return path, len(table)


def _questions_of(pairs: pd.DataFrame, chunks: pd.DataFrame, most: int) -> pd.DataFrame:
    """Pairs as gold questions, with `page` and `chunk_ids`, in their order; not those about no chunk of the text.

    The evidence is the pair's own, or, where it tells none, the sentence of its chunk nearest to the answer.
    """
    sections, rows = sections_of(chunks), {}
    places = {chunk.chunk_id: chunk for chunk in chunks[chunks.kind == "body"].itertuples()}
    for pair in pairs[pairs.chunk_id.isin(places)].itertuples():
        chunk = places[pair.chunk_id]
        group = sections[chunk.document, chunk.section]
        evidence = pair.evidence or _nearest(chunk.text, pair.Answer)
        row = {"Question": pair.Question, "Answer": pair.Answer, "variants": _new_part(pair.Question, pair.Answer)}
        row |= {"kind": _kind(pair.Question), "document": chunk.document, "section": chunk.section}
        row |= {"chunk_split": group.split.iloc[0], "evidence": evidence, "page": chunk.page, "split": pair.split}
        row |= {"chunk_ids": holding(group, evidence)}
        if row["chunk_ids"]:
            rows.setdefault(" ".join(words_of(pair.Question)), row)
    table = pd.DataFrame(_spread(list(rows.values()), most), columns=[*GOLD_COLUMNS, "page", "chunk_ids"])
    table["question_id"] = [f"generated-{n:03}" for n in range(1, len(table) + 1)]
    # whole sections, about a third of them `dev`; of a single section, questions
    several = len(table[["document", "section"]].drop_duplicates()) > 1
    keys = table.document + " " + table.section if several else table.Question
    drawn = sorted(set(keys), key=_drawn)
    table["fold"] = keys.isin(drawn[: round(DEV_SHARE * len(drawn))]).map({True: "dev", False: "test"})
    return table


def _nearest(text: str, answer: str) -> str:
    language = language_of(text) or "en"
    return max(sentences_of(text), key=lambda sentence: similarity(sentence, answer, language), default=text)


def _spread(rows: list[dict], most: int) -> list[dict]:
    """Up to `most` rows in their order: those kept from training first, then of the sections and kinds least taken."""
    trained = sum(row["split"] != "heldout" for row in rows)
    most = min(most, len(rows) - trained + round(SPARED * trained))
    taken, sections, kinds = [], Counter(), Counter()
    waiting = {n: (row["split"] != "heldout", _drawn(row["Question"])) for n, row in enumerate(rows)}
    places = [(row["document"], row["section"]) for row in rows]
    while waiting and len(taken) < most:
        n = min(waiting, key=lambda n: (waiting[n][0], sections[places[n]], kinds[rows[n]["kind"]], waiting[n][1]))
        del waiting[n]
        taken.append(n)
        sections[places[n]] += 1
        kinds[rows[n]["kind"]] += 1
    return [rows[n] for n in sorted(taken)]


def _drawn(text: str) -> str:
    """By which texts are drawn: at random, and always the same."""
    return hashlib.sha256(text.encode()).hexdigest()


def _kind(question: str) -> str:
    """The word that a question asks by; only English ones are known."""
    found = ASKS.search(question)
    return found[1].lower() if found else "other"


def _new_part(question: str, answer: str) -> str:
    """An answer from its first to its last word that carries meaning and is new: who says it has answered.

    Without it a sentence would be right in its own words alone.
    """
    language = language_of(f"{question} {answer}") or "en"
    known, words = content_words(question, language), answer.split()
    new = [n for n, word in enumerate(words) if content_words(word, language) - known]
    part = " ".join(words[new[0] : new[-1] + 1]).strip(" .,;:!") if new else ""
    return "" if SEPARATOR.strip() in part else part
