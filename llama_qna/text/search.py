"""Find the chunks that a question is about, by the words that they share.

The bar that a fine-tuned model has to clear: the base model with the right page open before it.
"""

from __future__ import annotations

import logging
import unicodedata
from functools import cache
from statistics import fmean

from llama_qna import UserError
from llama_qna.text.language import languages_of
from llama_qna.text.words import content_words

K1, B = 1.5, 0.75  # within 1.2 to 2 and 0.5 to 0.8, which Robertson and Zaragoza (2009) found good


class Search:
    """BM25 over chunks (Robertson and Zaragoza 2009; `bm25s`), with the idf of Lucene, which is never negative.

    A word counts by its stem in the language of its text; stop words do not count. A word of a question counts by its
    stems in every language of the chunks.

    Args:
        chunk_ids: names of the chunks; their order decides between equal scores.
        texts: the text of each.

    Raises:
        UserError: no text has a word to search for.
    """

    def __init__(self, chunk_ids: list[str], texts: list[str]):
        from bm25s import BM25

        if len(chunk_ids) != len(texts):
            raise ValueError(f"{len(chunk_ids)} chunk ids for {len(texts)} texts")
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
        self.chunk_ids = list(chunk_ids)
        languages = languages_of(texts)
        words = [_stems(text, (language,)) for text, language in zip(texts, languages, strict=True)]
        if not any(words):
            raise UserError("there is nothing to search: no chunk has a word that is not a stop word")
        self._languages = tuple(sorted(set(languages)))
        self._index = BM25(k1=K1, b=B, method="lucene")
        self._index.index(words, show_progress=False)

    def search(self, questions: list[str], k: int) -> list[list[tuple[str, float]]]:
        """The chunks that share words with each question: (chunk id, score), the best first, at most k.

        There are fewer than k, or none, where no more chunks share a word with the question.
        """
        return [self._search(question, k) for question in questions]

    def scores(self, question: str):
        """The score of every text, (N,)."""
        return self._index.get_scores_from_ids(self._index.get_tokens_ids(_stems(question, self._languages)))

    def _search(self, question: str, k: int) -> list[tuple[str, float]]:
        found = [pair for pair in zip(self.chunk_ids, self.scores(question).tolist(), strict=True) if pair[1] > 0]
        return sorted(found, key=lambda pair: -pair[1])[:k]


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


def _stems(text: str, languages: tuple[str, ...]) -> list[str]:
    """The content words of a text, each as often as it stands there, by their stems in each language."""
    words = unicodedata.normalize("NFKC", text).split()  # an accent or a ligature can be written in two ways
    return [stem for word in words for stem in _stems_of_word(word, languages)]


@cache
def _stems_of_word(word: str, languages: tuple[str, ...]) -> list[str]:
    """Sorted: the order of a set differs from run to run, and with it the last bit of a sum."""
    return sorted(frozenset().union(*(content_words(word, language) for language in languages)))
