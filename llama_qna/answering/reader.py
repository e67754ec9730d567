"""Answers from passages: a quote first, then the answer that it gives; or "The documents do not say."

For a small model that has learnt to read (`training.reading`), and for those that were trained on it further. It needs
chunks and nothing else: no training on the documents that it answers about.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from llama_qna import UserError
from llama_qna.answering.retrieval import Answer, Evidence, Source
from llama_qna.answering.sentences import Sentences
from llama_qna.models import prompts
from llama_qna.models.adapters import attach_adapter
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.project.variant import Reader
from llama_qna.text.words import sentences_of, similarity

PASSAGE_TOKENS = 350  # of a prompt; the evidence is among them for 95% of the dev questions (docs/experiments.md)
QUESTION_TOKENS = 300  # a longer question leaves no room for an answer
NEW_TOKENS = 110  # of a quote and an answer
BATCH = 32
# Added to the logit of the dash that says that nothing was found; chosen on the dev questions (docs/experiments.md).
DOUBT = 0.0


class ReadingAnswerer:
    """Answers questions about chunks with a reader. Weights are loaded at the first question.

    Args:
        chunks: a table with the columns of `project.data.CHUNK_COLUMNS`.

    Raises:
        UserError: there is nothing to search, or the base model's tokenizer cannot be had.
    """

    def __init__(self, chunks: pd.DataFrame, reader: Reader):
        self.reader, self.sentences = reader, Sentences(chunks)
        self.tokenizer = load_tokenizer(reader.recipe.base_model)
        self._model = None

    def answer(self, questions: list[str], done: Callable[[int], None] = lambda count: None) -> list[Answer]:
        """Answer questions in batches, greedily.

        Returns:
            One answer a question, in order; one that the passages do not give has `said_not`.

        Raises:
            UserError: a question is empty or too long, or the reader's adapter is damaged.
        """
        from llama_qna.models.generate import generate_texts

        found = [self.passages(question) for question in questions]
        asked = [self.prompt_ids(question, sources) for question, sources in zip(questions, found, strict=True)]
        dash = prompts.encode_document(self.tokenizer, f" {prompts.NOTHING}")[0]
        texts = generate_texts(
            self.model(),
            self.tokenizer,
            asked,
            max_new_tokens=NEW_TOKENS,
            batch_size=BATCH,
            first_bias={dash: DOUBT},
            done=done,
        )
        return [answer_of(text, sources) for text, sources in zip(texts, found, strict=True)]

    def passages(self, question: str) -> list[Source]:
        """The passages that a question is answered from."""
        return self.sentences.find(question, PASSAGE_TOKENS, self._length)

    def prompt_ids(self, question: str, sources: list[Source]) -> list[int]:
        """`input_ids` of a question with its passages, (T,).

        Raises:
            UserError: the question is empty or too long.
        """
        if not question.strip():
            raise UserError("the question is empty")
        if self._length(question) > QUESTION_TOKENS:
            raise UserError(f"the question {question[:60]!r} is longer than {QUESTION_TOKENS} tokens")
        messages = prompts.reading_messages(question, [source.text for source in sources])
        return prompts.chat_ids(self.tokenizer, messages)

    def model(self):
        """The base with the reader's adapter."""
        if self._model is None:
            recipe = self.reader.recipe
            self._model = attach_adapter(load_base(recipe.base_model, recipe.quantization), self.reader.adapter)
        return self._model

    def _length(self, text: str) -> int:
        return len(prompts.encode_document(self.tokenizer, text))


def answer_of(text: str, sources: list[Source]) -> Answer:
    """What a reader wrote, taken apart: the answer, and the sentence of its passages that the quote is from."""
    quote, _, answer = (part.strip() for part in text.partition("\n"))
    if quote == prompts.NOTHING or not quote or answer == prompts.NOT_SAID:
        return Answer(prompts.NOT_SAID, tuple(sources), said_not=True)
    return Answer(answer or quote, tuple(sources), evidence_of(quote, sources))


def evidence_of(quote: str, sources: list[Source]) -> Evidence | None:
    """The sentences of the passages that hold a quote, or of one that was not copied whole the most alike one."""
    best, most = None, 0.0
    for source in sources:
        sentences = sentences_of(source.text)
        if quote in source.text:
            begin = source.text.index(quote)
            return Evidence(_holding(sentences, begin, begin + len(quote)), source)
        for sentence in sentences:
            if (alike := similarity(quote, sentence)) > most:
                best, most = Evidence(sentence, source), alike
    return best


def _holding(sentences: list[str], begin: int, end: int) -> str:
    """The sentences of a text that stand, in part, between two places of it."""
    held, position = [], 0
    for sentence in sentences:
        if position < end and position + len(sentence) > begin:
            held.append(sentence)
        position += len(sentence) + 1
    return " ".join(held)
