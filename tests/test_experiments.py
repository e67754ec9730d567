"""docs/experiments.md and benchmarks/results/experiments.json: what is printed, and what is computed from answers."""

import json
import subprocess
import sys
from statistics import fmean

import pytest

from benchmarks import experiment_scores, lesson
from llama_qna.project import marked
from llama_qna.project.data import read_table
from llama_qna.project.files import read_json
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.text import scores

FOLDER = REPOSITORY / "benchmarks"
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


def test_a_change_is_compared_with_the_experiment_without_it():
    one = CONTENT["experiments"]["text 8, pairs 12"]
    changed = one | {"settings": one["settings"] | {"rank": 16}}
    found = experiment_scores.compared(CONTENT["experiments"] | {"changed": changed})
    compared = [d for d in found if d["of"][0] == "changed" and d["against"][0] == "text 8, pairs 12"]
    assert [d["of"][1] for d in compared] == [d["against"][1] for d in compared] == list(one["points"])
    assert all(d["rougeL"]["mean"] == 0 for d in compared)
