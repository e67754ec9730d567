"""Rows from which a small model learns to read: quote and answer from passages, or say that they do not tell; and ask.

The examples are those of `data/reading/`. They are shown as they will be met: not a whole passage but a window of
one to four sentences. Several questions about a window share one row as the turns of a conversation, so that it is
computed once; in every round the windows are others.
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
from llama_qna.text.words import content_words, sentences_of
from llama_qna.training.conversations import BESIDE, LONGEST, Example, Pieces, fitted_row, reading, writing

UNTOLD = 0.5  # of the windows are asked what stands elsewhere in their text
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
    """Rows of both skills: every example is read and asked for once a round.

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
    """In each round every text is cut into other windows, and of each is asked what it tells, and what it does not."""
    pieces, conversations = Pieces([text.passage for text in texts]), []
    for _ in range(rounds):
        for text in texts:
            conversations += _of_windows(text, pieces, chance)
    return conversations


def _of_windows(text: Text, pieces: Pieces, chance: random.Random) -> list[list[dict]]:
    """Conversations about the windows into which a text is cut: one that reads and one that asks about each."""
    windows = _cut(text.passage, chance)
    told = [[example for example in text.examples if example.evidence and example.evidence in w] for w in windows]
    known = [example for here in told for example in here]
    asked = [[*here, *_elsewhere(known, here, chance)] for here in told]
    for example in text.examples:
        if not example.evidence:  # asked where the most of its words stand, so that these do not give it away
            asked[_nearest(example.question, windows)].append(example)
    conversations = []
    for window, questions, here in zip(windows, asked, told, strict=True):
        if questions:
            beside = _beside(text, chance.choice(questions).question, pieces, chance)
            conversations.append(reading(list(dict.fromkeys([window, *beside])), questions, chance))
        if here:
            conversations.append(_writing(window, here, chance))
    return conversations


def _elsewhere(known: list[Example], here: list[Example], chance: random.Random) -> list[Example]:
    """At times a question that another window of the text answers; this one does not tell."""
    others = [example for example in known if example not in here]
    if not others or chance.random() > UNTOLD:
        return []
    return [Example(chance.choice(others).question)]


def _nearest(question: str, windows: list[str]) -> int:
    """The window with the most words of a question."""
    words = content_words(question, "en")
    return max(range(len(windows)), key=lambda n: len(words & content_words(windows[n], "en")))


def _beside(text: Text, question: str, pieces: Pieces, chance: random.Random) -> list[str]:
    """At times one or two pieces of other texts that share words with a question."""
    if chance.random() > BESIDE:
        return []
    found = pieces.like(question, lambda piece, passage: passage != text.passage)
    return chance.sample(found, min(len(found), chance.randint(1, 2)))


def _cut(passage: str, chance: random.Random) -> list[str]:
    """A passage cut between its sentences into windows of different lengths, as they are found for a question."""
    sentences, windows = sentences_of(passage), []
    while sentences:
        length = chance.randint(1, LONGEST)
        windows.append(" ".join(sentences[:length]))
        sentences = sentences[length:]
    return windows


def _writing(window: str, known: list[Example], chance: random.Random) -> list[dict]:
    """A conversation in which a question is written about each sentence of a window that has one."""
    sentences = sentences_of(window)
    asked = []
    for example in chance.sample(known, len(known)):
        sentence = next((s for s in sentences if example.evidence.strip(" .") in s), example.evidence)
        asked.append((sentence, example.question))
    return writing(window, asked)
