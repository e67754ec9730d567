"""Gold questions: written by hand about the documents, never trained on, and the only ones that held-out scores use.

Each stands with a verbatim quote that proves its answer. `fold` says what a question is for: a checkpoint is chosen on
`dev` and reported on `test`.
"""

from __future__ import annotations

import random
import re
import unicodedata
from functools import cache
from pathlib import Path

import pandas as pd

from llama_qna import UserError
from llama_qna.project.data import read_table

GOLD_COLUMNS = "question_id Question Answer variants kind document section chunk_split fold evidence".split()
UNANSWERABLE_COLUMNS = "question_id Question document section fold".split()
FOLDS = ("dev", "test")
DEV_SHARE = 0.35
NEAR_WORDS = 6  # in a row that two questions may not have in common
NEAR_SHARE = 0.8  # Jaccard similarity of their sets of words that is too large; 1 is the same words
SEPARATOR = " | "  # between the accepted variants of an answer


def read_gold(path: Path, chunks: pd.DataFrame) -> pd.DataFrame:
    """Read a gold file and check every row against the chunks of its corpus.

    Args:
        chunks: the table of `project.data.read_chunks`.

    Returns:
        One row a question with the columns of `COLUMNS`, all strings, and `chunk_ids`, the list of the chunks that hold
        the evidence: neighbouring chunks overlap, so it can stand in two.

    Raises:
        UserError: no such file, no CSV, a column or all rows missing, or the first bad row and what is wrong with it.
    """
    table = _read_table(path)
    body = chunks[chunks.kind == "body"]
    sections = dict(list(body.assign(plain=body.text.map(plain)).groupby(["document", "section"])))
    seen, chunk_ids = {}, []
    for number, row in enumerate(table.itertuples(), start=1):
        group = sections.get((row.document, row.section))
        ids = [] if group is None else [c.chunk_id for c in group.itertuples() if plain(row.evidence) in c.plain]
        problem = _problem(row, group, ids)
        first = seen.setdefault(" ".join(_tokens(row.Question)), number)
        if not problem and first != number:
            problem = f"the same question as in row {first}"
        if problem:
            raise UserError(f"{_shown(path)}, row {number} ({row.question_id or 'no question_id'}): {problem}")
        chunk_ids.append(ids)
    return table.assign(chunk_ids=chunk_ids)


def read_unanswerable(path: Path) -> pd.DataFrame | None:
    """Questions that the documents do not answer, one a row, all strings; None where there is no such file.

    Raises:
        UserError: no CSV, or a column is missing.
    """
    return read_table(path, _shown(path), UNANSWERABLE_COLUMNS) if path.is_file() else None


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{_shown(path)}: no such gold file")
    if not path.stat().st_size:
        raise UserError(f"{_shown(path)}: the gold file is empty")
    table = read_table(path, _shown(path), GOLD_COLUMNS)
    if table.empty:
        raise UserError(f"{_shown(path)}: the gold file has no rows")
    return table


def _problem(row, group: pd.DataFrame | None, ids: list[str]) -> str:
    """The first thing wrong with one row, or an empty string."""
    empty = [name for name in ("Question", "Answer", "evidence") if not getattr(row, name).strip()]
    if empty:
        return f"{empty[0]} is empty"
    if group is None:
        return f"no chunk of document {row.document!r} has the section {row.section!r}"
    if not ids:
        return f"its evidence stands in no chunk of section {row.section!r}: {row.evidence[:60]!r}"
    if row.chunk_split != group.split.iloc[0]:
        return f"chunk_split is {row.chunk_split!r}, but the section's chunks say {group.split.iloc[0]!r}"
    if row.fold not in FOLDS:
        return f"fold is {row.fold!r}, and must be {' or '.join(FOLDS)}"
    return ""


def _shown(path: Path) -> str:
    return "/".join(path.parts[-2:])


def plain(text: str) -> str:
    """A text without gaps and raised digits: a loader may read "10³⁶" where an earlier one read "10 36"."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def references(row) -> list[str]:
    """The answers of a gold row that count as right: the full one, then the accepted variants."""
    return [row.Answer, *(variant.strip() for variant in row.variants.split(SEPARATOR.strip()) if variant.strip())]


def folds(chunks: pd.DataFrame, seed: int = 42) -> dict[tuple[str, str], str]:
    """Decide the fold of every section: whole sections, about a third of them `dev`.

    Sections are drawn within each document and split (train, heldout), so that both folds hold every document and both
    splits wherever there are two sections to share out; a single one is `test`. Nothing counts but the titles and the
    seed.

    Returns:
        `dev` or `test` by document and section.
    """
    body = chunks[(chunks.kind == "body") & (chunks.section != "")]
    chosen = {}
    for (document, split), group in body.groupby(["document", "split"]):
        titles = sorted(set(group.section))
        random.Random(f"{seed} {document} {split}").shuffle(titles)
        dev = max(1, round(DEV_SHARE * len(titles))) if len(titles) > 1 else 0
        chosen |= {(document, title): "dev" for title in titles[:dev]}
        chosen |= {(document, title): "test" for title in titles[dev:]}
    return chosen


def near(question: str, others: list[str]) -> str | None:
    """Find a question that is too near another: a model trained on the one would be told about the other.

    Returns:
        The first of the others that is near, None if all are far.
    """
    words, runs = set(_tokens(question)), _runs(question)
    for other in others:
        theirs = set(_tokens(other))
        if runs & _runs(other) or len(words & theirs) >= NEAR_SHARE * max(1, len(words | theirs)):
            return other
    return None


@cache
def _tokens(text: str) -> tuple[str, ...]:
    """Words in lower case; what hyphens, points and apostrophes join stays one word ("hedgerow-31", "3.15")."""
    return tuple(re.findall(r"\w+(?:[-'.]\w+)*", text.casefold().replace("’", "'")))


@cache
def _runs(text: str) -> frozenset[tuple[str, ...]]:
    words = _tokens(text)
    return frozenset(words[start : start + NEAR_WORDS] for start in range(len(words) - NEAR_WORDS + 1))
