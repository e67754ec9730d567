"""The loader on a few synthetic layouts, and the page with what it makes of all of them (`benchmarks/layouts.py`)."""

import json

import pytest

from benchmarks import layouts
from llama_qna.project import marked
from tests.layouts import LAYOUTS, build
from tests.layouts.scoring import character_error_rate, heading_scores, leaks

BY_NAME = {layout.name: layout for layout in LAYOUTS}
SOME = ["t_en_essay", "t_de_titelblatt", "r_en_journal", "r_fr_accents", "r_zh_wenzhang"]
READ_WELL = [
    "t_en_stamp",
    "t_en_runin",
    "t_fr_memoire",
    "r_en_across_three",
    "r_en_preprint",
    "r_de_zeitschrift",
    "r_zh_xuebao",
]


@pytest.mark.parametrize("name", SOME)
def test_truth_agrees_with_itself(name, tmp_path):
    case = build(BY_NAME[name], tmp_path)
    assert case.path.read_bytes().startswith(b"%PDF")
    assert case.headings and case.body
    assert character_error_rate(case.body, case) == 0.0
    assert heading_scores(case.headings, case) == (1, 0)
    assert leaks(case.body, case) == []


@pytest.mark.parametrize("mark, made", [("result", layouts.result), ("measured", layouts.table)])
def test_page_holds_what_the_results_make(mark, made):
    facts = json.loads(layouts.RESULTS.read_text(encoding="utf-8"))
    assert marked.read(layouts.PAGE, mark) == made(facts).rstrip() + "\n"


def test_results_are_of_the_layouts_that_are_there():
    facts = json.loads(layouts.RESULTS.read_text(encoding="utf-8"))
    measured = [(row["name"], row["tries"]) for row in facts["layouts"]]
    assert measured == [(layout.name, layout.tries) for layout in LAYOUTS]


@pytest.mark.parametrize("name", READ_WELL)
def test_what_the_loader_reads_well_stays_so(name, tmp_path):
    case = build(BY_NAME[name], tmp_path)
    paragraphs, headings = layouts.read_ours(case.path)
    assert character_error_rate(paragraphs, case) <= layouts.GOOD
    assert heading_scores(headings, case) == (1, 0)
