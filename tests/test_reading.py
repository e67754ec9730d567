"""Tests of data/reading: every example is what its README says, and none is a gold question."""

import hashlib
import json
import random
import re
from collections import Counter
from statistics import fmean, median

import pandas as pd
import pytest

from llama_qna.project.gold import near
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.words import content_words

FOLDER = REPOSITORY / "data" / "reading"
KINDS = {"name", "number", "definition", "cause", "mechanism", "comparison", "yes/no", "list"}
SHORT = {"name", "number", "definition"}
REASONED = {"cause", "mechanism", "comparison", "yes/no"}


@pytest.fixture(scope="module")
def passages():
    lines = [line for path in sorted(FOLDER.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def answerable(passages):
    return [(row["passage"], example) for row in passages for example in row["answerable"]]


@pytest.fixture(scope="module")
def questions(passages):
    return [example["question"] for row in passages for example in row["answerable"] + row["unanswerable"]]


def test_the_readme_counts_what_is_there():
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        counts = (len(rows), *(sum(len(row[kind]) for row in rows) for kind in ("answerable", "unanswerable")))
        assert f"| `{path.name}` | {' | '.join(map(str, counts))} |" in table


def test_passages_have_their_length_and_a_name_of_their_own(passages):
    assert all(60 <= len(row["passage"].split()) <= 220 and "\n" not in row["passage"] for row in passages)
    assert len({row["id"] for row in passages}) == len(passages) == len({row["passage"] for row in passages})


def test_evidence_and_short_forms_are_verbatim(answerable):
    for passage, example in answerable:
        assert example["kind"] in KINDS and example["evidence"] in passage
        assert example["evidence"] != passage
        assert ("short" in example) == (example["kind"] in SHORT)
        if "short" in example:
            assert example["short"] in passage and example["short"].lower() in example["answer"].lower()
        if example["kind"] == "yes/no":
            assert re.match(r"(Yes|No)\b", example["answer"])


def test_answers_are_short_and_questions_use_other_words(answerable):
    assert median(len(example["answer"].split()) for _, example in answerable) <= 15
    shared = []
    for _, example in answerable:
        asked = content_words(example["question"], "en")
        shared.append(len(asked & content_words(example["evidence"], "en")) / max(1, len(asked)))
    assert fmean(shared) <= 0.4
    assert fmean(example["kind"] in REASONED for _, example in answerable) >= 0.35


def test_questions_are_not_of_one_mould(questions):
    words = [re.findall(r"\w+", question.lower()) for question in questions]
    openings = Counter(tuple(row[:2]) for row in words)
    assert max(openings.values()) <= 0.15 * len(questions) and len(set(questions)) == len(questions)
    runs = Counter(run for row in words for run in {tuple(row[n : n + 6]) for n in range(len(row) - 5)})
    assert max(runs.values()) <= 0.01 * len(questions)


@pytest.mark.parametrize("corpus", ["paper", "physics_reader"])
def test_no_gold_question_is_in_it(questions, corpus):
    gold = list(pd.read_csv(REPOSITORY / "data" / corpus / "gold.csv", keep_default_na=False).Question)
    assert not [question for question in questions if near(question, gold)]


@pytest.mark.parametrize(
    "name, seed, floor, mended", [("audit.csv", 7, 0.9, "yes"), ("audit_2.csv", 8, 0.95, "no")], ids=["first", "second"]
)
def test_the_audit_is_of_the_examples_drawn_and_its_count_is_in_the_readme(name, seed, floor, mended):
    """The first is of examples as first written, its faulty ones mended since; the second is of them as they stand."""
    audit = pd.read_csv(FOLDER / name, keep_default_na=False)
    chance, drawn = random.Random(seed), []
    for path in sorted(FOLDER.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        examples = {
            (path.name, row["id"], n): example
            for row in rows
            for n, example in enumerate(row["answerable"] + row["unanswerable"])
        }
        for kind, count in (("answer", 32), ("why_not", 8)):
            chosen = chance.sample([key for key, example in examples.items() if kind in example], count)
            text = {key: f"{examples[key]['question']}\n{examples[key][kind]}" for key in chosen}
            drawn += [(*key, hashlib.sha256(text[key].encode()).hexdigest()[:16]) for key in chosen]
    columns = ["file", "passage", "example", "question_sha256"]
    assert list(audit[columns].itertuples(index=False, name=None)) == sorted(drawn) and len(audit) == 200
    counts = Counter(audit.verdict)
    right = Counter((audit.example < 4)[audit.verdict == "right"])  # each passage has four answerable questions first
    found = f"{counts['right']} of 200 right, {counts['partly']} partly, {counts['wrong']} wrong"
    told = f"| `random.Random({seed})` | `{name}` | **{found}** | {right[True]} of 160 | {right[False]} of 40 |"
    assert told in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert counts["right"] >= floor * len(audit) and counts["wrong"] == 0
    faulty = audit[audit.verdict != "right"]
    assert faulty.reason.all() and (faulty.mended == mended).all()


def test_what_the_two_audits_share_was_right_in_the_second():
    first, second = (pd.read_csv(FOLDER / name, keep_default_na=False) for name in ("audit.csv", "audit_2.csv"))
    shared = second.merge(first, on=["file", "passage", "example"])
    assert len(shared) == 23 and (shared.verdict_x == "right").all()
