"""One answer to one gold question, scored: the answer, the evidence that it shows, and whether it says that none is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from llama_qna.models.prompts import NOT_SAID
from llama_qna.project.gold import references
from llama_qna.text.right import is_copied, says_not, stands_in
from llama_qna.text.scores import score

EVIDENCE_SCORES = ["evidence_right", "page_right", "answer_or_evidence"]
MOST_SHOWN = 60  # words of a sentence shown as evidence: who shows a page shows no evidence


@dataclass(frozen=True)
class Said:
    """What a system answers; anything with these attributes can be scored."""

    text: str
    evidence: str | None = None  # the sentence of the documents that it shows for its answer
    document: str | None = None
    page: int | None = None  # of the document, from 1
    said_not: bool = False  # whether the system says that the documents do not tell


def scored(row: dict, said: Said, sentences: Sequence[str], shows: bool, ended: bool | None = None) -> dict:
    """The row of a gold or an unanswerable question with an answer to it and the scores of that answer.

    Args:
        row: what is asked; `question`, and of a gold question `reference`, `variants`, `gold_evidence`, `document`
            and `gold_pages`; see `bench.Bench`.
        sentences: those of the documents, which an answer may have copied.
        shows: whether the system shows evidence. Then an answer without evidence shows the wrong one; without, there
            are no scores of evidence.
        ended: whether the model ended the answer itself.

    Returns:
        `row` with `answer`, `says_so` and, of a gold question, `text.scores.score`, `copied` (at least 90% of a
        sentence of the documents), `right_own` (right and not copied), and where evidence is shown `evidence`,
        `evidence_page`, `evidence_right` (it is the gold evidence), `page_right` (the gold evidence stands on that
        page) and `answer_or_evidence` (one of the two is right: what helps a person).
    """
    found = row | {"answer": said.text}
    if shows:
        found |= {"evidence": said.evidence, "evidence_page": said.page}
    says_so = float(said.said_not or says_not(said.text, NOT_SAID))
    if "reference" not in row:
        return found | {"says_so": says_so}
    found |= score(said.text, row["reference"], row["variants"], row["question"], ended)
    copied = float(is_copied(said.text, sentences))
    found |= {"copied": copied, "right_own": found["right"] * (1 - copied), "says_so": says_so}
    if shows:
        shown = said.evidence or ""
        is_short = len(shown.split()) <= MOST_SHOWN
        evidence = float(is_short and stands_in(shown, row["gold_evidence"]))
        page = float(said.document == row["document"] and said.page in row["gold_pages"])
        found |= {"evidence_right": evidence, "page_right": page, "answer_or_evidence": max(found["right"], evidence)}
    return found


def evidence_pages(chunk_ids: Sequence[str], chunks: pd.DataFrame) -> list[int]:
    """The pages on which the gold evidence may stand, from 1: where its chunks begin, up to where the next ones begin.

    A chunk tells the page on which it begins. Where the next chunk of the document begins on a later page, the evidence
    may stand on that page too.

    Args:
        chunks: the table of `project.data.read_chunks`, in the order of the documents.
    """
    begins = chunks.page.astype(int)
    ends = begins.groupby(chunks.document).shift(-1, fill_value=0)  # of the last chunk of a document it is its own
    pages = set()
    for n in chunks.index[chunks.chunk_id.isin(chunk_ids)]:
        pages |= {begins[n], *range(begins[n], ends[n] + 1)}
    return sorted(map(int, pages))


def asked_of(row) -> dict:
    """What a prediction tells of a question, from its row of a table of questions."""
    section = f"{row.document}: {row.section}"
    return {"question_id": row.question_id, "section": section, "document": row.document, "question": row.Question}


def gold_of(row, chunks: pd.DataFrame) -> dict:
    """What a prediction tells of a gold question and its answer, from its row of `project.gold.read_gold`."""
    about = asked_of(row) | {"kind": row.kind, "split": row.chunk_split}
    about |= {"reference": row.Answer, "variants": references(row)[1:], "chunk_ids": row.chunk_ids}
    return about | {"gold_evidence": row.evidence, "gold_pages": evidence_pages(row.chunk_ids, chunks)}
