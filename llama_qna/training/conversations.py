"""Conversations about passages, and their rows: what those of the reading set and those of a corpus's pairs share."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llama_qna.models import prompts
from llama_qna.text.search import Search
from llama_qna.text.words import sentences_of

LONGEST = 4  # sentences of a window at most; one with its neighbours, as it is read when a question is asked, has three
BESIDE = 0.25  # of the windows stand among one or two other pieces
BEST = 4  # of the pieces that share most words with a question, one is drawn
PIECE = 3  # sentences


@dataclass(frozen=True)
class Example:
    """A question about a passage; without evidence the passage does not tell."""

    question: str
    answer: str = ""
    evidence: str = ""


class Pieces:
    """Pieces of passages, found by the words that they share with a question.

    Raises:
        UserError: the passages have no word to search for.
    """

    def __init__(self, passages: Sequence[str]):
        self.all = []  # (piece, passage)
        for passage in passages:
            sentences = sentences_of(passage)
            for start in range(0, len(sentences), PIECE):
                self.all.append((" ".join(sentences[start : start + PIECE]), passage))
        self.index = Search([str(n) for n in range(len(self.all))], [piece for piece, _ in self.all])

    def like(self, question: str, wanted: Callable[[str, str], bool]) -> list[str]:
        """Of the pieces that share most words with a question those that are wanted, at most `BEST`.

        Args:
            wanted: whether a piece of a passage may be taken, by both.
        """
        found = [self.all[int(name)] for name, _ in self.index.search([question], 3 * BEST)[0]]
        return [piece for piece, passage in found if wanted(piece, passage)][:BEST]


def reading(passages: Sequence[str], asked: Sequence[Example], chance: random.Random) -> list[dict]:
    """Messages in which questions about passages are asked and answered, both in any order."""
    passages, asked = chance.sample(passages, len(passages)), chance.sample(asked, len(asked))
    messages = prompts.reading_messages(asked[0].question, passages)
    for example in asked:
        if example is not asked[0]:
            messages += [{"role": "user", "content": f"Question: {example.question}"}]
        messages += [{"role": "assistant", "content": prompts.reading_answer(example.evidence, example.answer)}]
    return messages


def writing(passage: str, asked: Sequence[tuple[str, str]]) -> list[dict]:
    """Messages in which a question is written about each of some sentences of a passage; (sentence, question)."""
    messages = []
    for sentence, question in asked:
        turn = prompts.writing_messages(passage, sentence)
        if messages:
            turn = [{"role": "user", "content": f"Sentence: {sentence}"}]
        messages += [*turn, {"role": "assistant", "content": question}]
    return messages


def fitted_row(tokenizer, messages: list[dict], max_length: int) -> dict[str, list[int]]:
    """The row of a conversation, without the last questions that `max_length` tokens do not hold; it may be empty."""
    while len((row := prompts.conversation_row(tokenizer, messages))["input_ids"]) > max_length:
        messages = messages[:-2]
    return row
