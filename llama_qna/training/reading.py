"""Rows from which a small model learns to read: quote and answer from passages, or say that they do not tell; and ask.

The examples are those of `data/reading/`. Several questions about a passage share one row as the turns of a
conversation, so that its passages are computed once; in every round they stand among other passages.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch

from llama_qna import UserError
from llama_qna.models.base import load_base, load_tokenizer, model_identity
from llama_qna.models.likelihood import nats
from llama_qna.project.data import REPLAY_TEXT
from llama_qna.project.files import read_lines, sha256
from llama_qna.project.stage import once
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.text.words import sentences_of
from llama_qna.training.conversations import Example, Pieces, fitted_row, reading, writing

QUESTIONS = 3  # of a row at most
OTHERS = 4  # pieces of other texts in a row at most
FOREIGN = 0.3  # of the rows have a question about a text that is not there
READING_SET = REPOSITORY / "data" / "reading"
MEASURED = 10  # every tenth text tells what another training leaves of the skill
MEASURED_ROWS, MEASURED_LENGTH = 40, 800  # and tokens of each
LOST = 0.1  # nats per label: a loss that rose by more is said


def read(reader: Reader) -> dict:
    """Train the adapter of a reader on the reading set.

    >>> record = read(Reader.load("reader_135m"))

    Returns:
        The stage's record.

    Raises:
        UserError: the base model cannot be had, an example is damaged, or the loss is no longer a number.
    """
    recipe = reader.recipe
    files = [*sorted(READING_SET.glob("*.jsonl")), REPLAY_TEXT]
    inputs = {path.name: sha256(path) for path in files} | model_identity(recipe.base_model)

    def load():
        return load_base(recipe.base_model, recipe.quantization)

    def work(folder: Path) -> dict:
        from llama_qna.training.trainer import train

        # --- tokenizer and rows
        tokenizer, texts = load_tokenizer(recipe.base_model), read_texts(READING_SET)
        rows = rows_of(tokenizer, texts, recipe.rounds, recipe.finetuning.max_length, recipe.seed)

        # --- model, trainer, train; the last checkpoint is what is saved
        return train(reader, "read", load, tokenizer, rows, folder)

    return once(reader, "read", recipe.model_dump(), inputs, work, resumes=True)


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
        try:
            lines = read_lines(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error})") from None
        for line in lines:
            known = [Example(e["question"], e["answer"], e["evidence"]) for e in line["answerable"]]
            unknown = [Example(e["question"]) for e in line["unanswerable"]]
            texts.append(Text(" ".join(line["passage"].split()), (*known, *unknown)))
    return texts


def rows_of(tokenizer, texts: list[Text], rounds: int, max_length: int, seed: int) -> list[dict[str, list[int]]]:
    """Rows of both skills: every example is read once a round, and asked for once in every second round.

    Returns:
        `input_ids` and `labels` of each; of a row that is longer than `max_length` the last questions are left out, and
        the row where not even the first one fits.
    """
    return _rows(tokenizer, _conversations(texts, rounds, random.Random(seed)), max_length)


def rows_beside(tokenizer, count: int, max_length: int, seed: int) -> list[dict[str, list[int]]]:
    """So many rows of the reading set, to stand among those of another training and hold a reader to its skill.

    Texts by which `reading_loss` measures it are left out, and a row that does not fit, as in `rows_of`.
    """
    if not count:
        return []
    chance = random.Random(seed)
    texts = [text for n, text in enumerate(read_texts(READING_SET)) if n % MEASURED]
    conversations = _conversations(texts, 1 + count // len(texts), chance)
    return _rows(tokenizer, chance.sample(conversations, count), max_length)


def reading_loss(model, tokenizer) -> float:
    """How badly a model reads: its mean loss on rows that `rows_beside` never gives, in nats per label."""
    conversations = _conversations(read_texts(READING_SET)[::MEASURED], 1, random.Random(0))
    rows = _rows(tokenizer, random.Random(0).sample(conversations, MEASURED_ROWS), MEASURED_LENGTH)
    return torch.cat([_nats(model, row) for row in rows]).mean().item()


@torch.inference_mode()
def _nats(model, row: dict[str, list[int]]) -> torch.Tensor:
    """The loss at each label of a row, (labels,)."""
    input_ids, labels = (torch.tensor(row[key], device=model.device) for key in ("input_ids", "labels"))  # (T,)
    hidden = model.get_decoder()(input_ids[None], use_cache=False).last_hidden_state[0, :-1]  # (T - 1, D)
    scored = labels[1:] != -100  # (T - 1,)
    return nats(model.get_output_embeddings()(hidden[scored]), labels[1:][scored])


def _rows(tokenizer, conversations: list[list[dict]], max_length: int) -> list[dict[str, list[int]]]:
    rows = [fitted_row(tokenizer, conversation, max_length) for conversation in conversations]
    return [row for row in rows if row["labels"]]


def _conversations(texts: list[Text], rounds: int, chance: random.Random) -> list[list[dict]]:
    """In each round every example is read, among other pieces than before; in every second one it is asked for."""
    pieces, conversations = Pieces([text.passage for text in texts]), []
    for number in range(rounds):
        for text in texts:
            conversations += _reading(text, texts, pieces, chance)
            if number % 2 == 0:
                conversations.append(_writing(text, chance))
    return conversations


def _reading(text: Text, texts: list[Text], pieces: Pieces, chance: random.Random) -> list[list[dict]]:
    """Two conversations in which each example of a text is asked about once, among pieces of other texts."""

    def other(question: str, away: set[str]) -> str:
        like = pieces.like(question, lambda piece, passage: passage not in away)
        return chance.choice(like or [piece for piece, _ in pieces.all])

    examples = chance.sample(text.examples, len(text.examples))
    cut = chance.randint(len(examples) - QUESTIONS, QUESTIONS)
    conversations = []
    for asked in (examples[:cut], examples[cut:]):
        foreign = chance.choice(texts)
        if chance.random() < FOREIGN and foreign is not text:
            asked = [*asked, Example(chance.choice(foreign.examples).question)]
        away = {text.passage, foreign.passage}
        passages = _cut(text.passage, chance)
        passages += [other(chance.choice(asked).question, away) for _ in range(chance.randint(0, OTHERS))]
        conversations.append(reading(list(dict.fromkeys(passages)), asked, chance))
    return conversations


def _cut(passage: str, chance: random.Random) -> list[str]:
    """A passage whole or in two pieces, as retrieval may find it."""
    sentences = sentences_of(passage)
    if len(sentences) < 4 or chance.random() < 0.4:
        return [passage]
    middle = chance.randint(2, len(sentences) - 2)
    return [" ".join(sentences[:middle]), " ".join(sentences[middle:])]


def _writing(text: Text, chance: random.Random) -> list[dict]:
    """A conversation in which a question is written about each sentence that has one."""
    sentences = sentences_of(text.passage)
    known = [example for example in text.examples if example.evidence]
    asked = []
    for example in chance.sample(known, len(known)):
        sentence = next((s for s in sentences if example.evidence.strip(" .") in s), example.evidence)
        asked.append((sentence, example.question))
    return writing(text.passage, asked)
