"""Gold questions: about the documents, written or checked by a person, and never trained on.

Each stands with a verbatim quote that proves its answer. `fold` says what a question is for: a checkpoint is chosen on
`dev` and reported on `test`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

import pandas as pd

from llama_qna import UserError
from llama_qna.project.data import read_table
from llama_qna.text.language import HAN, KANA
from llama_qna.text.tables import delimiter_of
from llama_qna.text.words import CHARACTER, CITATION, WORD

GOLD_COLUMNS = "question_id Question Answer variants kind document section chunk_split fold evidence".split()
UNANSWERABLE_COLUMNS = "question_id Question document section fold".split()
JOINED = re.compile(rf"{CHARACTER.pattern}|{WORD}(?:[-'.]{WORD})*")
EAST_ASIAN = re.compile(f"[{KANA}{HAN}]")
FOLDS = ("dev", "test")
DEV_SHARE = 0.35
NEAR_WORDS = 6  # in a row that two questions may not have in common
NEAR_CHARACTERS, NEAR_LETTERS = 10, 25  # the same in Chinese and Japanese; in other scripts without spaces, as Thai
NEAR_SHARE = 0.8  # Jaccard similarity of their sets of words that is too large; 1 is the same words
HEADER = 4096  # characters of the first line that are looked at: a damaged file may have no other
SEPARATOR = " | "  # between the accepted variants of an answer
GOLD = "gold"  # where a question is from; see also `project.generated`


def read_gold(path: Path, chunks: pd.DataFrame) -> pd.DataFrame:
    """Read a gold file and check every row against the chunks of its corpus.

    Where the file has a column `checked`, only the rows that a person marked there with `yes` count.

    Args:
        chunks: the table of `project.data.read_chunks`.

    Returns:
        One row a question with the columns of `GOLD_COLUMNS`, all strings, `chunk_ids`, the list of the chunks that
        hold the evidence (neighbouring chunks overlap, so it can stand in two), and `source`, which is `gold`. It is
        empty where no row is marked.

    Raises:
        UserError: no such file, no CSV, a column or all rows missing, or the first bad row and what is wrong with it.
    """
    table, sections = _read_table(path), sections_of(chunks)
    seen, numbers, chunk_ids = {}, {}, []
    for number, row in table.iterrows():
        where = f"{shown(path)}, row {number} ({row.question_id or 'no question_id'})"
        if not _counts(row, where):
            continue
        group = sections.get((row.document, row.section))
        ids = [] if group is None else holding(group, row.evidence)
        problem = _problem(row, group, ids)
        first = seen.setdefault(" ".join(words_of(row.Question)), number)
        if not problem and first != number:
            problem = f"the same question as in row {first}"
        same = numbers.setdefault(row.question_id, number)
        if not problem and same != number:
            problem = f"the same question_id as in row {same}"
        if problem:
            raise UserError(f"{where}: {problem}")
        chunk_ids.append(ids)
    table = table.loc[list(seen.values()), GOLD_COLUMNS].reset_index(drop=True)
    return table.assign(chunk_ids=chunk_ids, source=GOLD)


def keep_back(pairs: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """The pairs, those near a gold question in the split `heldout`, so that nothing is trained on them.

    Args:
        questions: the table of `read_gold`.
    """
    asked = list(questions.Question)
    is_near = pairs.Question.map(lambda question: near(question, asked) is not None).astype(bool)
    return pairs.assign(split=pairs.split.where(~is_near, "heldout"))


def read_unanswerable(path: Path) -> pd.DataFrame | None:
    """Questions that the documents do not answer, one a row, all strings; None where there is no such file.

    Raises:
        UserError: no CSV, or a column is missing.
    """
    return read_table(path, shown(path), UNANSWERABLE_COLUMNS) if path.is_file() else None


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{shown(path)}: no such gold file")
    if not path.stat().st_size:
        raise UserError(f"{shown(path)}: the gold file is empty")
    with open(path, encoding="utf-8", errors="replace") as file:
        delimiter = delimiter_of(file.readline(HEADER), lambda names: {"Question", "Answer"} <= set(names))
    table = read_table(path, shown(path), GOLD_COLUMNS, delimiter=delimiter)
    if table.empty:
        raise UserError(f"{shown(path)}: the gold file has no rows")
    return table.set_axis(range(1, len(table) + 1))


def _counts(row: pd.Series, where: str) -> bool:
    """Whether a row counts: it is marked, or its file has nothing to be marked."""
    mark = row.get("checked", "yes").strip().lower()
    if mark not in ("yes", "no", ""):
        raise UserError(f"{where}: checked is {row.checked!r}, and must be yes, no or empty")
    return mark == "yes"


def sections_of(chunks: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The chunks of the text by document and section; `plain` is their text as evidence is looked for."""
    body = chunks[chunks.kind == "body"]
    return dict(list(body.assign(plain=body.text.map(plain)).groupby(["document", "section"])))


def holding(group: pd.DataFrame, evidence: str) -> list[str]:
    """The chunks of a section that hold the evidence; if none does as it stands, those that do without citation marks.

    A sentence that a model was given has none (`text.words.sentences_of`).
    """
    wanted, unmarked = plain(evidence), plain(CITATION.sub("", evidence))
    found = [chunk_id for chunk_id, text in zip(group.chunk_id, group.plain, strict=True) if wanted in text]
    if found or not unmarked:
        return found
    texts = [plain(CITATION.sub("", text)) for text in group.text]
    return [chunk_id for chunk_id, text in zip(group.chunk_id, texts, strict=True) if unmarked in text]


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


def shown(path: Path) -> str:
    return "/".join(path.parts[-2:])


def plain(text: str) -> str:
    """A text without gaps and raised digits: a loader may read "10³⁶" where an earlier one read "10 36"."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def references(row) -> list[str]:
    """The answers of a gold row that count as right: the full one, then the accepted variants."""
    return [row.Answer, *(variant.strip() for variant in row.variants.split(SEPARATOR.strip()) if variant.strip())]


def near(question: str, others: list[str]) -> str | None:
    """Find a question that is too near another: a model trained on the one would be told about the other.

    Returns:
        The first of the others that is near, None if all are far.
    """
    words, runs = set(words_of(question)), _runs(question)
    for other in others:
        theirs = set(words_of(other))
        if runs & _runs(other) or len(words & theirs) >= NEAR_SHARE * max(1, len(words | theirs)):
            return other
    return None


@cache
def words_of(text: str) -> tuple[str, ...]:
    """Words in lower case; what hyphens, points and apostrophes join stays one word ("hedgerow-31", "3.15").

    Scripts that put no spaces between words give characters.
    """
    return tuple(JOINED.findall(text.casefold().replace("’", "'")))


def _near_length(word: str) -> int:
    """How many words in a row are too many, if this is the first."""
    if not CHARACTER.match(word):
        return NEAR_WORDS
    return NEAR_CHARACTERS if EAST_ASIAN.match(word) else NEAR_LETTERS


@cache
def _runs(text: str) -> frozenset[tuple[str, ...]]:
    words = words_of(text)
    lengths = map(_near_length, words)
    return frozenset(words[n : n + length] for n, length in enumerate(lengths) if n + length <= len(words))
