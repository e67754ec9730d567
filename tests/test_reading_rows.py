"""The rows from which a model learns to read: what is labelled, and what stands in the passages."""

import random

import pytest

from llama_qna import UserError
from llama_qna.models import prompts
from llama_qna.models.base import load_tokenizer
from llama_qna.project.recipe import EMBEDDED
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.training.conversations import Pieces
from llama_qna.training.reading import _of_windows, read_texts, rows_of


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(EMBEDDED)


@pytest.fixture(scope="module")
def texts():
    return read_texts(REPOSITORY / "data" / "reading")


def test_labels_are_what_the_assistant_says_and_its_ends(tokenizer):
    messages = prompts.reading_messages("Who built it?", ["Oduya built it.", "It rains."])
    messages += [{"role": "assistant", "content": prompts.reading_answer("Oduya built it.", "Oduya.")}]
    messages += [{"role": "user", "content": "Question: When?"}]
    messages += [{"role": "assistant", "content": prompts.reading_answer("", "")}]
    row = prompts.conversation_row(tokenizer, messages)
    labelled = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    end = tokenizer.eos_token
    assert tokenizer.decode(labelled) == f" Oduya built it.\nOduya.{end} -\n{prompts.NOT_SAID}{end}"
    assert all(label in (-100, token) for token, label in zip(row["input_ids"], row["labels"], strict=True))


def test_the_first_prompt_of_a_row_is_the_one_that_is_asked_later(tokenizer):
    messages = prompts.reading_messages("Who?", ["Oduya built it."])
    prompt = prompts.chat_ids(tokenizer, messages)
    row = prompts.conversation_row(tokenizer, [*messages, {"role": "assistant", "content": "x"}])
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [-100] * len(prompt)


def asked_of(text, pieces, chance):
    """The turns of the conversations that read a text: passages, question, what is answered."""
    for messages in _of_windows(text, pieces, chance):
        if messages[0]["content"] == prompts.READING:
            passages, turns = messages[1]["content"].split("\n\nQuestion: ")[0], messages[1:]
            for question, answer in zip(turns[::2], turns[1::2], strict=True):
                yield passages, question["content"].split("Question: ")[-1], answer["content"]


def test_what_a_window_tells_is_answered_by_its_evidence_and_what_no_window_tells_is_asked_too(texts):
    pieces, chance = Pieces([text.passage for text in texts[:40]]), random.Random(5)
    answered = 0
    for text in texts[:20]:
        turns = list(asked_of(text, pieces, chance))
        told = {question: answer for _, question, answer in turns if not answer.startswith(prompts.NOTHING + "\n")}
        unknown = {example.question for example in text.examples if not example.evidence}
        assert unknown <= {question for _, question, _ in turns} - set(told)
        evidence = {example.question: example.evidence for example in text.examples}
        assert all(answer.split("\n")[0] == evidence[question] for question, answer in told.items())
        answered += len(told)
    assert answered > 0.9 * sum(bool(example.evidence) for text in texts[:20] for example in text.examples)


def test_who_is_told_that_the_documents_do_not_say_has_no_evidence_before_him(texts):
    pieces, chance = Pieces([text.passage for text in texts]), random.Random(6)
    evidence = {example.question: example.evidence for text in texts for example in text.examples if example.evidence}
    refused = answered = 0
    for text in texts[::10]:
        for passages, question, answer in asked_of(text, pieces, chance):
            if answer.startswith(prompts.NOTHING + "\n"):
                refused += 1
                assert question not in evidence or evidence[question] not in passages
            else:
                answered += 1
                assert answer.split("\n")[0] in passages
    assert 0.3 < refused / (refused + answered) < 0.6


def test_rows_keep_to_their_length_and_end_with_an_end(tokenizer, texts):
    rows = rows_of(tokenizer, texts[:12], rounds=2, max_length=900, seed=1)
    assert len(rows) > 12 * 2 * 2  # of reading and of writing, in two rounds
    assert rows == rows_of(tokenizer, texts[:12], rounds=2, max_length=900, seed=1)
    short = rows_of(tokenizer, texts[:12], rounds=2, max_length=400, seed=1)
    assert 0 < len(short) <= len(rows)
    for row in short:
        assert len(row["input_ids"]) <= 400
        assert row["labels"][-1] == tokenizer.eos_token_id


def test_a_damaged_example_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"passage": ', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl"):
        read_texts(tmp_path)


def test_the_shipped_recipe_is_read():
    recipe = Reader.load("reader_135m").recipe
    assert recipe.base_model == EMBEDDED
    assert recipe.lora.r <= 24  # 15 MB in 16 bits
    with pytest.raises(UserError):
        Reader.load("reader_of_nothing")
