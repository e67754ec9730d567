"""Tests of data/reading: every example is what its README says, and none is a gold question."""

import hashlib
import json
import random
import re
from collections import Counter
from statistics import fmean, median
from typing import NamedTuple

import pandas as pd
import pytest

from llama_qna.project.gold import near
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.words import content_words

FOLDER = REPOSITORY / "data" / "reading"
KINDS = {"name", "number", "definition", "cause", "mechanism", "comparison", "yes/no", "list"}
SHORT = {"name", "number", "definition"}
REASONED = {"cause", "mechanism", "comparison", "yes/no"}
FIRST = {  # the files written first, of which two audits were drawn
    "biography_travel_methods_textbook_safety.jsonl", "letters_news_papers_tables_contracts.jsonl",
    "manuals_minutes_cookery_history_law.jsonl", "medicine_biology_engineering_finance_sport.jsonl",
    "weather_museums_software_economics_essays.jsonl",
}  # fmt: skip


class Audit(NamedTuple):
    name: str
    seed: int
    of_the_first: bool
    answerable: int  # of each file
    unanswerable: int
    floor: float
    mended: str


AUDITS = [
    Audit("audit.csv", 7, True, 32, 8, 0.9, "yes"),
    Audit("audit_2.csv", 8, True, 32, 8, 0.95, "no"),
    Audit("audit_3.csv", 9, False, 20, 5, 0.95, "no"),
]


@pytest.fixture(scope="module")
def passages():
    paths = sorted(FOLDER.rglob("*.jsonl"))
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def answerable(passages):
    return [(row["passage"], example) for row in passages for example in row["answerable"]]


@pytest.fixture(scope="module")
def questions(passages):
    return [example["question"] for row in passages for example in row["answerable"] + row["unanswerable"]]


def test_the_readme_counts_what_is_there():
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        counts = (len(rows), *(sum(len(row[kind]) for row in rows) for kind in ("answerable", "unanswerable")))
        assert f"| `{path.relative_to(FOLDER)}` | {' | '.join(map(str, counts))} |" in table


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


@pytest.mark.parametrize("audited", AUDITS, ids=lambda audited: audited.name)
def test_the_audit_is_of_the_examples_drawn_and_its_count_is_in_the_readme(audited):
    """The first is of examples as first written, its faulty ones mended since; the others are of them as they stand."""
    audit = pd.read_csv(FOLDER / audited.name, keep_default_na=False)
    chance, drawn, known = random.Random(audited.seed), [], Counter()
    for path in sorted(FOLDER.glob("*.jsonl")):
        if (path.name in FIRST) != audited.of_the_first:
            continue
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        examples = {
            (path.name, row["id"], n): example
            for row in rows
            for n, example in enumerate(row["answerable"] + row["unanswerable"])
        }
        for kind, count in (("answer", audited.answerable), ("why_not", audited.unanswerable)):
            chosen = chance.sample([key for key, example in examples.items() if kind in example], count)
            text = {key: f"{examples[key]['question']}\n{examples[key][kind]}" for key in chosen}
            drawn += [(*key, hashlib.sha256(text[key].encode()).hexdigest()[:16]) for key in chosen]
            known[kind] += count
    columns = ["file", "passage", "example", "question_sha256"]
    assert list(audit[columns].itertuples(index=False, name=None)) == sorted(drawn) and len(audit) == 200
    counts = Counter(audit.verdict)
    is_answerable = audit.example < (4 if audited.of_the_first else 5)  # so many stand first in every passage
    right = Counter(is_answerable[audit.verdict == "right"])
    found = f"{counts['right']} of 200 right, {counts['partly']} partly, {counts['wrong']} wrong"
    told = f"| `random.Random({audited.seed})` | `{audited.name}` | **{found}** | {right[True]} of {known['answer']} "
    assert told + f"| {right[False]} of {known['why_not']} |" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert counts["right"] >= audited.floor * len(audit)
    faulty = audit[audit.verdict != "right"]
    assert faulty.reason.all() and (faulty.mended == audited.mended).all()


def test_what_the_two_audits_share_was_right_in_the_second():
    first, second = (pd.read_csv(FOLDER / name, keep_default_na=False) for name in ("audit.csv", "audit_2.csv"))
    shared = second.merge(first, on=["file", "passage", "example"])
    assert len(shared) == 23 and (shared.verdict_x == "right").all()
