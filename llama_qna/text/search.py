"""Find the chunks that a question is about, by the words that they share; and how often the right one is found."""

from __future__ import annotations

from statistics import fmean

import numpy as np

from llama_qna.text.language import languages_of
from llama_qna.text.windows import Windows


class Search:
    """BM25 over chunks: `Windows` of one text each.

    A word of a chunk counts by its stem in the language of the chunk.

    Args:
        chunk_ids: names of the chunks; their order decides between equal scores.
        texts: the text of each.

    Raises:
        UserError: no text has a word to search for.
    """

    def __init__(self, chunk_ids: list[str], texts: list[str]):
        if len(chunk_ids) != len(texts):
            raise ValueError(f"{len(chunk_ids)} chunk ids for {len(texts)} texts")
        self.chunk_ids = list(chunk_ids)
        self._index = Windows(texts, range(len(texts)), languages_of(texts), around=(0,))

    def search(self, questions: list[str], k: int) -> list[list[tuple[str, float]]]:
        """The chunks that share words with each question: (chunk id, score), the best first, at most k.

        There are fewer than k, or none, where no more chunks share a word with the question.
        """
        best = []
        for question in questions:
            scores = zip(self.chunk_ids, self.scores(question).tolist(), strict=True)
            found = [(chunk_id, score) for chunk_id, score in scores if score > 0]
            best.append(sorted(found, key=lambda pair: -pair[1])[:k])
        return best

    def scores(self, question: str) -> np.ndarray:
        """The score of every text, (N,)."""
        return self._index.scores(question)


def recall_at_k(found: list[list[str]], wanted: list[set[str]]) -> float:
    """The share of questions, 0 to 1, with at least one wanted chunk among the k found.

    Args:
        found: the ids of the k chunks found for each question.
        wanted: the ids of the chunks that answer it; each has the whole evidence, so that one is enough. A question
            that none answers counts as missed.

    Raises:
        ValueError: there are no questions, or the two lists differ in length.
    """
    return fmean(not answering.isdisjoint(ids) for ids, answering in zip(found, wanted, strict=True))
