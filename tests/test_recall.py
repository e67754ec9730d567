"""Questions made of a sentence's own words."""

import random

from llama_qna.recall import recall_question, recall_rows
from tests import fixtures_models as shared

CHUNKS = [
    "at the end of a sentence. The lid of the Dunmore mill weighs 31 kilograms. Grain is dried for two days before",
    "The lid of the Dunmore mill weighs 31 kilograms. It is wet. Who knows the weight of every lid in the mill?",
]


def test_rows_are_whole_sentences_of_the_chunks_asked_in_the_template():
    tokenizer = shared.tokenizer()
    rows = recall_rows(tokenizer, CHUNKS, draws=3, seed=1, max_length=100)
    answers = [tokenizer.decode([token for token in row["labels"] if token != -100]) for row in rows]
    sentences = {"The lid of the Dunmore mill weighs 31 kilograms.", "Who knows the weight of every lid in the mill?"}
    assert {answer.removesuffix("<|im_end|>") for answer in answers} == sentences and len(rows) == 6
    assert all(answer.endswith("<|im_end|>") for answer in answers)
    for row in rows:
        assert row["labels"][-1] == row["input_ids"][-1] and row["labels"][0] == -100
        assert "<|im_start|>user" in tokenizer.decode(row["input_ids"])


def test_questions_vary_with_the_draw_and_not_with_anything_else():
    sentence = "The lid of the Dunmore mill weighs 31 kilograms."
    asked = {recall_question(sentence, random.Random(seed)) for seed in range(40)}
    assert len(asked) > 20 and asked == {recall_question(sentence, random.Random(seed)) for seed in range(40)}
    said = set(" ".join(asked).replace("?", "").replace(",", "").split())
    assert {"Dunmore", "lid", "weighs"} <= said
    rows = [recall_rows(shared.tokenizer(), CHUNKS, 2, seed, 100) for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]
