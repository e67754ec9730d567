"""docs/experiments.md and benchmarks/results/experiments.json: what is printed, and what is computed from answers."""

import json
import re
import subprocess
import sys
from statistics import fmean

import pandas as pd
import pytest

from benchmarks import experiment_scores, experiments, lesson
from llama_qna.project import gold, marked
from llama_qna.project.data import read_table
from llama_qna.project.files import read_json
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.text import scores

FOLDER, PAPER = REPOSITORY / "benchmarks", REPOSITORY / "data" / "paper"
NUMBER = re.compile(r"(?<!\w)\d+(?:[.,]\d+)*")
CONTENT = json.loads((FOLDER / "results" / "experiments.json").read_text(encoding="utf-8"))


def test_page_holds_the_tables_that_the_script_prints():
    command = [sys.executable, "-m", "benchmarks.experiments", "--table"]
    printed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=REPOSITORY).stdout
    page = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert page.split("<!-- experiments:begin -->\n")[1].split("<!-- experiments:end -->")[0] == printed


def test_page_holds_the_lesson_that_its_file_tells():
    told = lesson.tables(read_json(lesson.RESULTS))
    assert marked.read(lesson.PAGE, "lesson") == f"{told}\n"


def test_differences_are_those_of_the_scores():
    computed = experiment_scores.compared(CONTENT["experiments"])
    assert [(d["of"], d["against"]) for d in computed] == [(d["of"], d["against"]) for d in CONTENT["differences"]]
    for found, stored in zip(computed, CONTENT["differences"], strict=True):
        assert all(found[score] == pytest.approx(stored[score]) for score in experiment_scores.SCORES)


def test_scores_are_those_of_the_answers():
    questions = read_table(Variant.load("paper_135m").gold, "gold.csv", ["question_id", "Answer", "fold"])
    dev = questions[questions.fold == "dev"]
    for experiment in CONTENT["experiments"].values():
        for point in experiment["points"].values():
            answers = point["answers"]
            assert [row["question_id"] for row in answers] == list(dev.question_id)
            for row, reference in zip(answers, dev.Answer, strict=True):
                assert scores.rouge(row["answer"], reference)["rougeL"] == pytest.approx(row["rougeL"])
                assert scores.token_f1(row["answer"], [reference]) == pytest.approx(row["f1"])
            for score in ("rougeL", "f1"):
                assert point[score] == pytest.approx(fmean(row[score] for row in answers))


def test_every_training_chunk_has_one_paraphrase_with_the_same_numbers():
    chunks = training_rows("chunks.csv").query("kind == 'body'")
    paraphrases = experiments.read_data("paraphrases.csv")
    assert list(paraphrases.chunk_id) == list(chunks.chunk_id)
    for chunk, paraphrase in zip(chunks.text, paraphrases.text, strict=True):
        assert set(NUMBER.findall(paraphrase)) == set(NUMBER.findall(chunk))
        assert paraphrase != chunk


def test_every_training_pair_has_two_other_wordings_that_are_far_from_gold_questions():
    pairs, wordings = training_rows("qna.csv"), experiments.read_data("questions.csv")
    assert list(wordings.pair) == [question for question in pairs.Question for _ in range(2)]
    assert not set(wordings.Question) & set(wordings.pair) and wordings.Question.is_unique
    asked = list(pd.read_csv(PAPER / "gold.csv").Question)
    assert not [question for question in wordings.Question if gold.near(question, asked)]


def training_rows(name: str) -> pd.DataFrame:
    return pd.read_csv(PAPER / name).query("split == 'train'")


class Tokenizer:
    """Words for tokens; what a row says can be read back."""

    chat_template, all_special_tokens, bos_token_id, eos_token_id = "chat", [], None, "end"

    def __call__(self, text, **options):
        return {"input_ids": text.split()}

    def apply_chat_template(self, turns, **options):
        return " ".join(turn["content"] for turn in turns)


def test_paraphrases_take_every_second_epoch_of_text():
    trained = training_rows("chunks.csv")
    plain = experiments.text_epochs(Tokenizer(), trained, experiments.Setting(12, text=3))
    mixed = experiments.text_epochs(Tokenizer(), trained, experiments.Setting(12, text=3, paraphrases=True))
    assert [mixed[0], mixed[2]] == [plain[0], plain[2]] and len(mixed[1]) == len(plain[1])
    changed = [old != new for old, new in zip(plain[1], mixed[1], strict=True)]
    assert changed == list(trained.kind == "body")


def test_wordings_take_turns_and_all_are_asked_equally_often():
    pairs = training_rows("qna.csv")
    plain = experiments.pair_epochs(Tokenizer(), pairs, None, experiments.Setting(3))
    mixed = experiments.pair_epochs(Tokenizer(), pairs, None, experiments.Setting(3, variants=True))
    assert list(map(len, mixed)) == list(map(len, plain)) == [len(pairs)] * 3
    for place, row in enumerate(plain[0]):
        forms = [epoch[place] for epoch in mixed]
        assert row in forms and len({tuple(form["input_ids"]) for form in forms}) == 3
        answers = [[label for label in form["labels"] if label != -100] for form in [row, *forms]]
        assert answers == answers[:1] * 4


def test_a_change_is_compared_with_the_experiment_without_it():
    one = CONTENT["experiments"]["text 8, pairs 12"]
    changed = one | {"settings": one["settings"] | {"rank": 16}}
    found = experiment_scores.compared(CONTENT["experiments"] | {"changed": changed})
    compared = [d for d in found if d["of"][0] == "changed" and d["against"][0] == "text 8, pairs 12"]
    assert [d["of"][1] for d in compared] == [d["against"][1] for d in compared] == list(one["points"])
    assert all(d["rougeL"]["mean"] == 0 for d in compared)
