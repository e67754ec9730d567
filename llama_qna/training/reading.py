"""Rows from which a small model learns to read: quote and answer from passages, or say that they do not tell; and ask.

The examples are those of `data/reading/`. Several questions about a passage share one row as the turns of a
conversation, so that its passages are computed once; in every round they are cut anew, and stand among other passages.
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

LONGEST = 4  # sentences of a window at most; one with its neighbours, as it is read when a question is asked, has three
UNTOLD = 2  # questions a window that it does not answer, though the text around it may
BESIDE = 0.25  # of the windows stand among one or two pieces of other texts
AWAY = 0.3  # of the texts are asked about once more, with a piece of another text alone
BEST = 4  # of the pieces that share most words with a question, one is drawn


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
    """Rows of both skills: every example is read and asked for once a round.

    Returns:
        `input_ids` and `labels` of each; of a row that is longer than `max_length` the last questions are left out, and
        the row where not even the first one fits.
    """
    chance, others = random.Random(seed), Others(texts)
    conversations = []
    for _ in range(rounds):
        for text in texts:
            conversations += [*_reading(text, others, chance), _writing(text, chance)]
    rows = [_fitted(tokenizer, conversation, max_length) for conversation in conversations]
    return [row for row in rows if row["labels"]]


def _reading(text: Text, others: Others, chance: random.Random) -> list[list[dict]]:
    """Conversations about the windows into which a text is cut: what each of them tells, and what it does not.

    What a window does not tell is asked in the words of its own text, so that shared words alone do not give it away.
    """
    windows = _cut(text.passage, chance)
    told = [[example for example in text.examples if example.evidence and example.evidence in w] for w in windows]
    known = {example for examples in told for example in examples}
    unknown = [example for example in text.examples if not example.evidence]
    conversations = []
    for window, here in zip(windows, told, strict=True):
        elsewhere = [example for example in text.examples if example in known and example not in here]
        untold = chance.sample(elsewhere, min(UNTOLD, len(elsewhere)))
        asked = here + [Example(example.question) for example in untold]
        passages = [window]
        if asked and chance.random() < BESIDE:
            question = chance.choice(asked).question
            passages += dict.fromkeys(others.like(question, text.passage, chance) for _ in range(2))
        conversations.append((passages, asked))
    for example in unknown:
        chance.choice(conversations)[1].append(example)
    if chance.random() < AWAY:
        asked = [Example(example.question) for example in chance.sample(text.examples, 2)]
        conversations.append(([others.like(asked[0].question, text.passage, chance)], asked))
    return [_conversation(passages, asked, chance) for passages, asked in conversations if asked]


def _cut(passage: str, chance: random.Random) -> list[str]:
    """A passage cut between its sentences into windows of different lengths."""
    sentences, windows = sentences_of(passage), []
    while sentences:
        length = chance.randint(1, LONGEST)
        windows.append(" ".join(sentences[:length]))
        sentences = sentences[length:]
    return windows


def _conversation(passages: list[str], asked: list[Example], chance: random.Random) -> list[dict]:
    passages, asked = chance.sample(passages, len(passages)), chance.sample(asked, len(asked))
    messages = prompts.reading_messages(asked[0].question, passages)
    for example in asked:
        if example is not asked[0]:
            messages += [{"role": "user", "content": f"Question: {example.question}"}]
        messages += [{"role": "assistant", "content": prompts.reading_answer(example.evidence, example.answer)}]
    return messages


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

    def like(self, question: str, without: str, chance: random.Random) -> str:
        """A piece of another passage that shares words with a question."""
        found = [self.pieces[int(name)] for name, _ in self.index.search([question], 3 * BEST)[0]]
        pieces = [piece for piece, passage in found if passage != without][:BEST]
        return chance.choice(pieces or [piece for piece, _ in self.pieces])


def _fitted(tokenizer, messages: list[dict], max_length: int) -> dict[str, list[int]]:
    while len((row := prompts.conversation_row(tokenizer, messages))["input_ids"]) > max_length:
        messages = messages[:-2]
    return row
