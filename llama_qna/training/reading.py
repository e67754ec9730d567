"""Rows from which a small model learns to read: quote and answer from passages, or say that they do not tell; and ask.

The examples are those of `data/reading/`. Several questions about a passage share one row as the turns of a
conversation, so that its passages are computed once; in every round they stand in another order, among other passages.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from llama_qna import UserError
from llama_qna.models import prompts
from llama_qna.models.base import load_base, load_tokenizer, model_identity
from llama_qna.project.data import REPLAY_TEXT
from llama_qna.project.files import sha256
from llama_qna.project.stage import once
from llama_qna.project.variant import Reader
from llama_qna.text.search import Search
from llama_qna.text.words import sentences_of

QUESTIONS = 3  # of a row at most
OTHERS = 4  # passages of other texts in a row at most
FOREIGN = 0.3  # of the rows have a question about a text that is not there
BEST = 4  # of the passages that share most words with a question, one is drawn


def read(reader: Reader) -> dict:
    """Train the adapter of a reader on the reading set.

    >>> record = read(Reader.load("reader_135m"))

    Returns:
        The stage's record.

    Raises:
        UserError: the base model cannot be had, an example is damaged, or the loss is no longer a number.
    """
    recipe = reader.recipe
    files = [*sorted(reader.examples.glob("*.jsonl")), REPLAY_TEXT]
    inputs = {path.name: sha256(path) for path in files} | model_identity(recipe.base_model)

    def work(folder: Path) -> dict:
        from llama_qna.training.trainer import train

        # --- tokenizer and rows
        tokenizer = load_tokenizer(recipe.base_model)
        texts = read_texts(reader.examples)
        rows = rows_of(tokenizer, texts, recipe.rounds, recipe.finetuning.max_length, recipe.seed)

        # --- model: loaded again where memory runs out
        def load():
            return load_base(recipe.base_model, recipe.quantization)

        # --- train; the last checkpoint is what is saved
        return train(reader, "read", load, tokenizer, rows, folder)

    return once(reader, "read", recipe.model_dump(), inputs, work, resumes=True)


@dataclass(frozen=True)
class Example:
    """A question about a passage; without evidence the passage does not tell."""

    question: str
    answer: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class Text:
    """A passage of the reading set with its examples."""

    passage: str
    examples: tuple[Example, ...]


def read_texts(folder: Path) -> list[Text]:
    """The passages of a reading set, in the order of its files.

    Raises:
        UserError: a file is damaged.
    """
    texts = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in _lines(path):
            known = [Example(e["question"], e["answer"], e["evidence"]) for e in line["answerable"]]
            unknown = [Example(e["question"]) for e in line["unanswerable"]]
            texts.append(Text(" ".join(line["passage"].split()), (*known, *unknown)))
    return texts


def _lines(path: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def rows_of(tokenizer, texts: list[Text], rounds: int, max_length: int, seed: int) -> list[dict[str, list[int]]]:
    """Rows of both skills: every example is read once a round, and asked for once in every second round.

    Returns:
        `input_ids` and `labels` of each; of a row that is longer than `max_length` the last questions are left out, and
        the row where not even the first one fits.
    """
    chance, others = random.Random(seed), Others(texts)
    conversations = []
    for number in range(rounds):
        for text in texts:
            conversations += _reading(text, others, chance)
            if number % 2 == 0:
                conversations.append(_writing(text, chance))
    rows = [_fitted(tokenizer, conversation, max_length) for conversation in conversations]
    return [row for row in rows if row["labels"]]


def _reading(text: Text, others: Others, chance: random.Random) -> list[list[dict]]:
    """Conversations in which each example of a text is asked about once, among passages of other texts."""
    examples = chance.sample(text.examples, len(text.examples))
    cut = chance.randint(len(examples) - QUESTIONS, QUESTIONS)
    conversations = []
    for asked in (examples[:cut], examples[cut:]):
        foreign = chance.choice(others.texts)
        if chance.random() < FOREIGN and foreign is not text:
            asked = [*asked, Example(chance.choice(foreign.examples).question)]
            chance.shuffle(asked)
        count, away = chance.randint(0, OTHERS), {text.passage, foreign.passage}
        passages = [others.like(chance.choice(asked).question, away, chance) for _ in range(count)]
        passages = list(dict.fromkeys([*passages, *_cut(text.passage, chance)]))
        chance.shuffle(passages)
        messages = prompts.reading_messages(asked[0].question, passages)
        for example in asked:
            if example is not asked[0]:
                messages += [{"role": "user", "content": f"Question: {example.question}"}]
            answer = prompts.reading_answer(example.evidence, example.answer)
            messages += [{"role": "assistant", "content": answer}]
        conversations.append(messages)
    return conversations


def _writing(text: Text, chance: random.Random) -> list[dict]:
    """A conversation in which a question is written about each sentence that has one."""
    sentences, messages = sentences_of(text.passage), []
    known = [example for example in text.examples if example.evidence]
    for example in chance.sample(known, len(known)):
        sentence = next((s for s in sentences if example.evidence.strip(" .") in s), example.evidence)
        turn = prompts.writing_messages(text.passage, sentence)
        if messages:
            turn = [{"role": "user", "content": f"Sentence: {sentence}"}]
        messages += [*turn, {"role": "assistant", "content": example.question}]
    return messages


def _cut(passage: str, chance: random.Random) -> list[str]:
    """A passage whole or in two pieces, as retrieval may find it."""
    sentences = sentences_of(passage)
    if len(sentences) < 4 or chance.random() < 0.4:
        return [passage]
    middle = chance.randint(2, len(sentences) - 2)
    return [" ".join(sentences[:middle]), " ".join(sentences[middle:])]


class Others:
    """Pieces of all texts, found by the words that they share with a question."""

    def __init__(self, texts: list[Text]):
        self.texts = texts
        self.pieces = []  # (piece, passage)
        for text in texts:
            sentences = sentences_of(text.passage)
            for start in range(0, len(sentences), 3):
                self.pieces.append((" ".join(sentences[start : start + 3]), text.passage))
        self.index = Search([str(n) for n in range(len(self.pieces))], [piece for piece, _ in self.pieces])

    def like(self, question: str, without: set[str], chance: random.Random) -> str:
        """A piece of another passage that shares words with a question."""
        found = [self.pieces[int(name)] for name, _ in self.index.search([question], 3 * BEST)[0]]
        pieces = [piece for piece, passage in found if passage not in without][:BEST]
        return chance.choice(pieces or [piece for piece, _ in self.pieces])


def _fitted(tokenizer, messages: list[dict], max_length: int) -> dict[str, list[int]]:
    while len((row := prompts.conversation_row(tokenizer, messages))["input_ids"]) > max_length:
        messages = messages[:-2]
    return row
