"""Rows of question-answer pairs with passages of their documents, after RAFT (Zhang et al. 2024, arXiv:2403.10131).

From epoch to epoch a pair comes in another way: closed book, with its passage, with other passages only, which do not
tell, or as the question to write about its sentence. What a reader can do is so practised on a user's own documents.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import pandas as pd

from llama_qna.models import prompts
from llama_qna.project.recipe import Finetuning
from llama_qna.text.language import main_language
from llama_qna.text.words import content_words, sentences_of, without_marks
from llama_qna.training.conversations import BESIDE, LONGEST, Example, Pieces, reading, writing
from llama_qna.training.rows import fitting

ENOUGH = 0.5  # of an answer's words stand in the sentence that it is taken to be from, where no evidence is given


@dataclass(frozen=True)
class Sourced:
    """A pair with the sentences of its chunk, and which of them tells the answer."""

    question: str
    answer: str
    chunk: str
    sentences: tuple[str, ...]
    place: int
    told: frozenset[str]  # the content words of the answer that the question does not hold
    language: str

    @property
    def evidence(self) -> str:
        return self.sentences[self.place]

    def stands_in(self, piece: str) -> bool:
        """Whether a piece of text tells the answer, or may."""
        return self.evidence in piece or bool(self.told) and self.told <= content_words(piece, self.language)

    def window(self, chance: random.Random) -> str:
        """The evidence among some of its neighbours."""
        length = chance.randint(1, LONGEST)
        start = max(0, self.place - chance.randrange(length))
        return " ".join(self.sentences[start : start + length])


def passage_rows(
    tokenizer, pairs: pd.DataFrame, chunks: pd.DataFrame, settings: Finetuning, seed: int, what: str
) -> list[dict]:
    """The rows of all epochs, one a pair and epoch, of kinds in the shares that `settings.passages` names.

    A pair whose evidence is not known comes closed book only: entries of a reference list, pairs of a user's own. A row
    that is longer than `max_length` is left out.

    Args:
        pairs: the training pairs, with `evidence` where it is known.
        chunks: those of the training sections.

    Raises:
        UserError: no row fits, or there is no pair.
    """
    chance, body = random.Random(seed), chunks[chunks.kind == "body"]
    texts = {row.chunk_id: without_marks(row.text) for row in body.itertuples()}
    language = main_language(texts.values())
    rows, sourced = [], []
    for pair in pairs.itertuples():
        source = _sourced(pair, texts.get(pair.chunk_id, ""), language)
        if source:
            sourced.append(source)
        else:
            row = prompts.training_row(tokenizer, pair.Question, pair.Answer)
            rows += [(pair.Question, row)] * settings.rounds
    pieces = Pieces(list(texts.values())) if sourced else None
    kinds = spread(settings.passages.model_dump(), len(sourced), settings.rounds, chance)
    for pair, of_pair in zip(sourced, kinds, strict=True):
        rows += [(pair.question, _row(tokenizer, kind, pair, pieces, chance)) for kind in of_pair]
    return fitting(rows, settings.max_length, what, "rows of pairs")


def spread(shares: dict[str, float], pairs: int, rounds: int, chance: random.Random) -> Iterator[list[str]]:
    """The kinds of every pair's rows, one a round: as different as can be, and in all in the given shares.

    The rows are as many points from 0 to 1, at equal distances, and the shares cut that line into parts; those of a
    pair lie one round apart.
    """
    kinds = [kind for kind, share in shares.items() if share]
    ends = list(accumulate(shares[kind] for kind in kinds[:-1]))  # where each part ends, but the last
    for first in chance.sample(range(pairs), pairs):
        points = [(first + 0.5) / (pairs * rounds) + number / rounds for number in range(rounds)]
        yield [kinds[bisect(ends, point)] for point in points]


def _row(tokenizer, kind: str, pair: Sourced, pieces: Pieces, chance: random.Random) -> dict:
    if kind == "closed_book":
        return prompts.training_row(tokenizer, pair.question, pair.answer)
    if kind == "question":
        return prompts.conversation_row(tokenizer, writing(pair.window(chance), [(pair.evidence, pair.question)]))
    if kind == "with_passage":
        passages = [pair.window(chance)]
        if chance.random() < BESIDE:
            passages += _others(pair, pieces, chance, beside=True)
        asked = Example(pair.question, pair.answer, pair.evidence)
    else:
        passages, asked = _others(pair, pieces, chance, beside=False), Example(pair.question)
    if not passages:  # nothing else is in the corpus
        return prompts.training_row(tokenizer, pair.question, pair.answer)
    return prompts.conversation_row(tokenizer, reading(passages, [asked], chance))


def _others(pair: Sourced, pieces: Pieces, chance: random.Random, beside: bool) -> list[str]:
    """One or two pieces that do not tell the answer; beside its passage, of other chunks."""
    found = pieces.like(
        pair.question, lambda piece, chunk: not pair.stands_in(piece) and not (beside and chunk == pair.chunk)
    )
    return chance.sample(found, min(len(found), chance.randint(1, 2)))


def _sourced(pair, chunk: str, language: str) -> Sourced | None:
    """A pair with its evidence: what its row names, or else the sentence with most of the answer's words."""
    sentences, answer = sentences_of(chunk), content_words(pair.Answer, language)
    named = without_marks(pair.evidence)
    places = [place for place, sentence in enumerate(sentences) if named and named in sentence]
    if not places:
        shared = [len(answer & content_words(sentence, language)) for sentence in sentences]
        most = max(shared, default=0)
        places = [shared.index(most)] if most and most >= ENOUGH * len(answer) else []
    if not places:
        return None
    told = answer - content_words(pair.Question, language)
    return Sourced(pair.Question, pair.Answer, chunk, tuple(sentences), places[0], told, language)
