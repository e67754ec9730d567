"""Rows from which a small model learns to read: quote and answer from passages, or say that they do not tell; and ask.

The examples are those of `data/reading/`. Several questions about a passage share one row as the turns of a
conversation, so that its passages are computed once; in every round they are cut anew, and stand among other passages.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch

from llama_qna import UserError
from llama_qna.models.base import load_base, load_tokenizer, model_identity
from llama_qna.models.likelihood import nats
from llama_qna.project.data import REPLAY_TEXT
from llama_qna.project.files import sha256
from llama_qna.project.stage import once
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.text.words import sentences_of
from llama_qna.training.conversations import BESIDE, LONGEST, Example, Pieces, fitted_row, reading, writing

UNTOLD = 2  # questions a window that it does not answer, though the text around it may
AWAY = 0.3  # of the texts are asked about once more, with a piece of another text alone
READING_SET = REPOSITORY / "data" / "reading"
MEASURED = 10  # every tenth text tells what another training leaves of the skill
MEASURED_ROWS, MEASURED_LENGTH = 40, 400  # and tokens of each
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
    pieces, conversations = Pieces([text.passage for text in texts]), []
    for _ in range(rounds):
        for text in texts:
            conversations += [*_reading(text, pieces, chance), _writing(text, chance)]
    return conversations


def _reading(text: Text, pieces: Pieces, chance: random.Random) -> list[list[dict]]:
    """Conversations about the windows into which a text is cut: what each of them tells, and what it does not.

    What a window does not tell is asked in the words of its own text, so that shared words alone do not give it away.
    """

    def other(question: str) -> str:
        like = pieces.like(question, lambda piece, passage: passage != text.passage)
        return chance.choice(like or [piece for piece, _ in pieces.all])

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
            passages += dict.fromkeys(other(question) for _ in range(2))
        conversations.append((passages, asked))
    for example in unknown:
        chance.choice(conversations)[1].append(example)
    if chance.random() < AWAY:
        asked = [Example(example.question) for example in chance.sample(text.examples, 2)]
        conversations.append(([other(asked[0].question)], asked))
    return [reading(passages, asked, chance) for passages, asked in conversations if asked]


def _cut(passage: str, chance: random.Random) -> list[str]:
    """A passage cut between its sentences into windows of different lengths."""
    sentences, windows = sentences_of(passage), []
    while sentences:
        length = chance.randint(1, LONGEST)
        windows.append(" ".join(sentences[:length]))
        sentences = sentences[length:]
    return windows


def _writing(text: Text, chance: random.Random) -> list[dict]:
    """A conversation in which a question is written about each sentence that has one."""
    sentences = sentences_of(text.passage)
    known = [example for example in text.examples if example.evidence]
    asked = []
    for example in chance.sample(known, len(known)):
        sentence = next((s for s in sentences if example.evidence.strip(" .") in s), example.evidence)
        asked.append((sentence, example.question))
    return writing(text.passage, asked)
