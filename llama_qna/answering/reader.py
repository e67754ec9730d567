"""Answers from passages, with their evidence; or "The documents do not say."

For a small model that has learnt to read and to ask (`training.reading`); no training on the documents is needed. It is
asked three things, of which it can do each better than all at once: how likely somebody would ask the question about a
sentence that shares words with it (Sachan et al. 2022, arXiv:2204.07496), whether that sentence alone tells the answer,
and what the answer is, once the sentence is quoted. The first two together choose the sentence; the second says whether
the documents tell. Whether a question is about them at all the model does not know: that is told by how many of its
words stand around the sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pandas as pd

from llama_qna import UserError
from llama_qna.answering.retrieval import Answer, Evidence
from llama_qna.answering.sentences import Sentences
from llama_qna.models import prompts
from llama_qna.models.base import load_tokenizer
from llama_qna.models.folded import load_reader
from llama_qna.models.likelihood import answer_log_likelihoods, doubts_of
from llama_qna.project.variant import Reader
from llama_qna.text.right import is_taken_from

READ = 5  # sentences that are read for a question; chosen on the dev questions, as what follows (docs/experiments.md)
DOUBT = -0.2  # log-probability of the dash, in nats, from which the answer is that the documents do not say
SHARE = 0.25  # of a question's words, which have to stand around the sentence; likewise
QUESTION_TOKENS = 300  # a longer question leaves no room for an answer
NEW_TOKENS = 48  # of an answer
BATCH = 32


def check_text(question: str) -> None:
    """Refuse a question that is empty, or holds bytes that are no text."""
    if not question.strip():
        raise UserError("the question is empty")
    if question != question.encode(errors="replace").decode():
        raise UserError("the question holds bytes that are no text in UTF-8")


def check_question(tokenizer, question: str) -> None:
    """Refuse a question that cannot be asked.

    Raises:
        UserError: it is empty or too long, or holds bytes that are no text.
    """
    check_text(question)
    if len(prompts.encode_document(tokenizer, question)) > QUESTION_TOKENS:
        raise UserError(f"the question {question[:60]!r} is longer than {QUESTION_TOKENS} tokens")


class ReadingAnswerer:
    """Answers questions about sentences with a model that has learnt to read and to ask.

    Args:
        model: gives the model, which is asked for when there is a question; see `of` for that of a reader.
    """

    def __init__(self, sentences: Sentences, tokenizer, model: Callable):
        self.sentences, self.tokenizer, self.model = sentences, tokenizer, model

    @classmethod
    def of(cls, chunks: pd.DataFrame, reader: Reader) -> ReadingAnswerer:
        """One that answers about chunks with a reader, whose weights are loaded at the first question.

        Args:
            chunks: a table with the columns of `project.data.CHUNK_COLUMNS`.

        Raises:
            UserError: there is nothing to search, or the base model's tokenizer cannot be had.
        """
        return cls(Sentences(chunks), load_tokenizer(reader.recipe.base_model), cache(partial(load_reader, reader)))

    def answer(self, questions: list[str]) -> list[Answer]:
        """Answer questions, greedily.

        Returns:
            One answer a question, in order, with its evidence and all passages that were read, the best first; one that
            they do not give has `said_not` and no evidence.

        Raises:
            UserError: a question is empty or too long, or the model's adapter is damaged.
        """
        for question in questions:
            check_question(self.tokenizer, question)
        found = []
        for start in range(0, len(questions), BATCH):
            found += self._answer(questions[start : start + BATCH])
        return found

    def _answer(self, questions: list[str]) -> list[Answer]:
        from llama_qna.models.generate import generate_texts

        # --- which sentences
        ranked = self.ranked(questions, [self.sentences.find(question, READ) for question in questions])
        passages = [[self.sentences.passage(n) for n, _ in found] for found in ranked]

        # --- whether the best one is about the question, and tells the answer
        best = {at: found[0] for at, found in enumerate(ranked) if found}
        told = {at: n for at, (n, doubt) in best.items() if doubt < DOUBT and self._is_about(questions[at], n)}

        # --- what it is, after the quote
        sentences = {at: self.sentences.all[n].text for at, n in told.items()}
        quoted = [self.prompt_ids(questions[at], text) + self._ids(f" {text}\n") for at, text in sentences.items()]
        texts = generate_texts(self.model(), self.tokenizer, quoted, max_new_tokens=NEW_TOKENS, batch_size=BATCH)
        found = [Answer(prompts.NOT_SAID, tuple(sources), said_not=True) for sources in passages]
        for (at, sentence), text in zip(sentences.items(), texts, strict=True):
            # who puts the words of a sentence together anew often says something else (docs/experiments.md)
            said = text if is_taken_from(text, sentence) else sentence
            found[at] = Answer(said, tuple(passages[at]), Evidence(sentence, passages[at][0]))
        return found

    def ranked(self, questions: list[str], found: list[list[int]]) -> list[list[tuple[int, float]]]:
        """The sentences found for each question, the best first: the number of each and its doubt, in nats.

        A sentence is good if the question is likely after it, and if it seems to tell the answer.
        """
        asked = [self._ids(f" {question}") + [self.tokenizer.eos_token_id] for question in questions]
        pairs = [(at, n) for at, numbers in enumerate(found) for n in numbers]
        shown = [prompts.writing_messages(self.sentences.passage(n).text, self.sentences.all[n].text) for _, n in pairs]
        prompt_ids = [prompts.chat_ids(self.tokenizer, messages) for messages in shown]
        likely = answer_log_likelihoods(self.model(), prompt_ids, [asked[at] for at, _ in pairs])
        alone = [self.prompt_ids(questions[at], self.sentences.all[n].text) for at, n in pairs]
        doubts = doubts_of(self.model(), self.tokenizer, alone)
        scores = [nats - prompts.DOUBT_WEIGHT * doubt for nats, doubt in zip(likely, doubts, strict=True)]
        ranked = sorted(zip(scores, pairs, doubts, strict=True), reverse=True)
        return [[(n, doubt) for _, (place, n), doubt in ranked if place == at] for at in range(len(questions))]

    def _is_about(self, question: str, sentence: int) -> bool:
        return self.sentences.share(question, sentence) >= SHARE

    def prompt_ids(self, question: str, passage: str) -> list[int]:
        """`input_ids` of a question with a passage, (T,), ready for the quote."""
        return prompts.chat_ids(self.tokenizer, prompts.reading_messages(question, [passage]))

    def _ids(self, text: str) -> list[int]:
        return prompts.encode_document(self.tokenizer, text)
