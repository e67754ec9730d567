"""Tests of llama_qna/pairs/qna.py: what is kept of what a model wrote, and of a user's own file; no model runs here."""

import re

import pandas as pd
import pytest

from llama_qna import UserError
from llama_qna.documents.chunks import load
from llama_qna.pairs import qna
from llama_qna.pairs.filters import REASONS
from llama_qna.pairs.writers import Candidate, Written
from llama_qna.project.data import QNA_COLUMNS, read_chunks
from llama_qna.project.stage import valid_record
from llama_qna.project.variant import Variant

# --- the stage with such a file --------------------------------------------------------------------------------------


@pytest.fixture
def variant(toy_root, edit_recipe):
    """A loaded paper whose pairs come from a file of two."""
    edit_recipe("  reference_questions: true", "  reference_questions: true\n  qna_file: mine.csv")
    (toy_root / "mine.csv").write_text(
        'Question,Answer\nWhat is a wicket?,"A small, round door."\nQ: What is NA?,A: None.\n'
    )
    variant = Variant.load("paper_135m")
    load(variant)
    return variant


def test_reference_pairs_ask_for_every_entry(variant, tmp_path):
    table = read_chunks(variant)
    pairs = qna.reference_pairs(table[table.kind == "reference"])
    assert list(pairs.columns) == QNA_COLUMNS
    by_number, by_title = pairs[::2], pairs[1::2]
    assert list(by_number.Question) == [f"What is reference [{n}]?" for n in range(1, 36)]
    assert by_number.Answer.iloc[8].startswith("Y. Kaya, S. Hong, and T. Dumitras. Shallow-Deep Networks")
    assert by_title.Question.iloc[10] == "Who wrote “Attention Is All You Need”?"
    by_id = table.set_index("chunk_id")
    for pair, other in zip(by_number.itertuples(), by_title.itertuples(), strict=True):
        number = re.search(r"\d+", pair.Question).group()
        assert by_id.text[pair.chunk_id] == f"[{number}] {pair.Answer}"
        assert by_id.page[pair.chunk_id] == pair.page
        assert (other.Answer, other.chunk_id) == (pair.Answer, pair.chunk_id)
        assert re.search("“(.*)”", other.Question)[1] in pair.Answer
    # as paper_13b/variant.yaml proposes: the pairs of one variant as the file of another
    pairs.to_csv(tmp_path / "qna.csv", index=False)
    again = qna.read_qna_file(tmp_path / "qna.csv")
    assert list(again.Question) == list(pairs.Question)
    assert list(again.Answer) == list(pairs.Answer)


def test_generate_takes_the_file_and_the_references(variant):
    table = qna.generate(variant)
    assert list(table.columns) == QNA_COLUMNS
    assert list(table.Question[:3]) == ["What is a wicket?", "What is NA?", "What is reference [1]?"]
    assert list(table.Answer[:2]) == ["A small, round door.", "None."]
    assert len(table) == 2 + 2 * 35
    record = valid_record(variant.qna, "generate")
    assert record["results"] == {"pairs": 72, "rejected": 0, "reasons": {}}
    rejected = pd.read_csv(variant.qna / "qna_rejected.csv")
    assert list(rejected.columns) == [*QNA_COLUMNS, "reason", "score"] and rejected.empty


def test_pairs_that_were_written_here_and_given_back_are_what_they_were(variant, toy_root, capsys):
    """Splits, ids and reference pairs are kept, nothing is there twice; what was edited is what stays."""
    written = qna.generate(variant).astype(str)
    written.loc[0, ["Answer", "split", "chunk_id", "document", "page"]] = ["A gate.", "heldout", "d-1", "d", "7"]
    written.loc[2, "Answer"] = "Corrected."
    capsys.readouterr()
    written.to_csv(toy_root / "mine.csv", index=False)
    pd.testing.assert_frame_equal(qna.generate(variant).astype(str), written)
    assert "left out" not in capsys.readouterr().out
    written.drop(index=[3]).to_csv(toy_root / "mine.csv", index=False)
    assert len(qna.generate(variant)) == len(written) - 1, "a reference pair that a person took out stays out"


def test_generate_again_is_skipped_until_the_file_changes(variant, toy_root, capsys):
    qna.generate(variant)
    capsys.readouterr()
    qna.generate(variant)
    assert "nothing has changed" in capsys.readouterr().out
    (toy_root / "mine.csv").write_text("Question,Answer\nWhat is new?,This one.\n")
    assert qna.generate(variant).Question[0] == "What is new?"
    assert "nothing has changed" not in capsys.readouterr().out


def test_gold_questions_that_leave_no_pair_to_train_on_are_named(variant, edit_recipe):
    edit_recipe("reference_questions: true", "reference_questions: false")
    variant = Variant.load("paper_135m")
    chunk = read_chunks(variant).query("kind == 'body'").iloc[0]
    place = {"document": chunk.document, "section": chunk.section, "chunk_split": chunk.split, "fold": "dev"}
    row = {"Answer": "This.", "variants": "", "kind": "other", "evidence": chunk.text[:40]} | place
    rows = [row | {"question_id": name, "Question": name} for name in ("What is a wicket?", "What is NA?")]
    variant.gold.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows[:1]).to_csv(variant.gold, index=False)
    assert list(qna.generate(variant).split) == ["heldout", "train"]
    pd.DataFrame(rows).to_csv(variant.gold, index=False)
    with pytest.raises(UserError, match="paper/gold.csv: its questions leave no pair to train on"):
        qna.generate(variant)


def test_generate_before_load_says_what_to_run(toy_root):
    with pytest.raises(UserError, match="no chunks yet for paper_135m: run `llama-qna load paper_135m` first"):
        qna.generate(Variant.load("paper_135m"))


# --- what is kept of what a model wrote ------------------------------------------------------------------------------

FACTS = {  # answer: question
    "The Alder bridge was built in 1884 by two brothers.": "In what year was the Alder bridge built?",
    "Ilse Brandt wrote the manual of the harbour crane.": "Who wrote the manual of the harbour crane?",
    "The lid of the great kiln weighs three tonnes.": "How many tonnes does the lid of the great kiln weigh?",
    "Tungsten lines the walls of the Corvane furnace.": "Which metal lines the walls of the Corvane furnace?",
}


def body_of(*rows):
    """Chunks of a document `d`, each given as (split, text)."""
    return pd.DataFrame(
        [
            {"chunk_id": f"d-{n:04}", "document": "d", "page": 1, "kind": "body", "split": split, "text": text}
            for n, (split, text) in enumerate(rows)
        ]
    )


def candidate(answer, question=None, score=-0.3, **details):
    return Candidate(question or FACTS[answer], answer, **({"check": answer, "score": score} | details))


@pytest.fixture
def judge(toy_root, edit_recipe):
    """Judge the candidates of every chunk, given as one list a chunk, with two pairs a chunk wanted."""
    edit_recipe("pairs_per_chunk: 3", "pairs_per_chunk: 2")
    variant = Variant.load("paper_135m")

    def judged(body, *candidates):
        written = {chunk_id: [Written(one)] for chunk_id, one in zip(body.chunk_id, candidates, strict=True)}
        return qna.judge(variant, body, written)

    return judged


WHOLE = " ".join(FACTS)
BRIDGE, MANUAL, LID, FURNACE = FACTS


def test_every_candidate_is_kept_or_rejected_with_its_reason(judge):
    body = body_of(("train", WHOLE), ("train", WHOLE))
    pairs, rejected = judge(
        body,
        [candidate(BRIDGE), candidate(MANUAL, "What does the text say of Ilse Brandt?")],
        [candidate(BRIDGE), candidate(LID, score=-9.0), Candidate("Sure!", "", problem="no labels")],
    )
    assert list(pairs.Question) == [FACTS[BRIDGE]]
    assert set(zip(rejected.chunk_id, rejected.reason, strict=True)) == {
        ("d-0000", "refers to the text"),
        ("d-0001", "duplicate"),
        ("d-0001", "unlikely question"),
        ("d-0001", "no pair in the response: no labels"),
    }
    assert len(rejected) == 4 and rejected.Question[rejected.score.isna()].tolist() == ["Sure!"], "with its raw text"
    assert set(QNA_COLUMNS) <= set(pairs.columns) and set(QNA_COLUMNS) <= set(rejected.columns)
    assert {reason.split(":")[0] for reason in rejected.reason} <= set(REASONS)


def test_the_best_question_about_each_sentence_is_kept(judge):
    """More pairs than wanted: the second best question about a sentence goes before the best about another."""
    pairs, rejected = judge(
        body_of(("train", WHOLE)),
        [
            candidate(BRIDGE, score=-0.1),
            candidate(BRIDGE, "Who built the Alder bridge as brothers?", score=-0.2),
            candidate(MANUAL, score=-0.4),
        ],
    )
    assert sorted(pairs.Answer) == sorted([BRIDGE, MANUAL])
    assert list(rejected.reason) == ["more pairs than wanted"]
    assert list(rejected.Question) == ["Who built the Alder bridge as brothers?"]


def test_near_duplicate_of_a_training_question_goes_from_the_heldout_sections(judge):
    """Though the held-out section comes first in the document."""
    body = body_of(("heldout", WHOLE), ("train", WHOLE))
    pairs, rejected = judge(
        body,
        [candidate(BRIDGE, "In what year was the old Alder bridge built?"), candidate(MANUAL)],
        [candidate(BRIDGE)],
    )
    assert dict(zip(pairs.Question, pairs.split, strict=True)) == {FACTS[MANUAL]: "heldout", FACTS[BRIDGE]: "train"}
    assert list(rejected.split) == ["heldout"] and list(rejected.reason) == ["duplicate"]


def test_answer_of_a_training_pair_is_not_asked_for_in_the_heldout_sections(judge):
    body = body_of(("train", WHOLE), ("heldout", WHOLE))
    pairs, rejected = judge(
        body, [candidate(BRIDGE)], [candidate(BRIDGE, "Which bridge did two brothers finish in 1884?"), candidate(LID)]
    )
    assert list(pairs.Answer) == [BRIDGE, LID]
    assert list(rejected.reason) == ["duplicate"]


def test_two_questions_about_one_sentence_of_the_training_sections_are_no_duplicates(judge):
    pairs, rejected = judge(
        body_of(("train", WHOLE)), [candidate(BRIDGE), candidate(BRIDGE, "Who built the Alder bridge as brothers?")]
    )
    assert len(pairs) == 2 and rejected.empty


def test_groups_in_any_order_are_judged_as_all_at_once(judge):
    body = body_of(("heldout", WHOLE), ("train", WHOLE), ("train", WHOLE))
    other = "In what year was the old Alder bridge built?"
    written = [
        [candidate(BRIDGE, other), candidate(MANUAL)],
        [candidate(BRIDGE), candidate(LID), candidate(FURNACE), candidate(MANUAL, "Who?")],
        [candidate(BRIDGE, other, score=-0.2), candidate(MANUAL)],
    ]
    at_once = judge(body, *written)
    piecewise = qna.Judge(Variant.load("paper_135m"), body)
    for n in (2, 0, 1):
        for one in written[n]:
            piecewise.add(f"d-{n:04}", Written([one]))
            piecewise.verdict()
    for found, wanted in zip(piecewise.verdict(), at_once, strict=True):
        pd.testing.assert_frame_equal(found, wanted)
    assert sum(piecewise.counts) == sum(map(len, written))


def test_where_no_section_is_held_out_some_questions_are(judge):
    """Which ones, their words tell: the same at every run, whatever stands beside them."""
    names = [f"{a}{b}" for a in ("Mar", "Tor", "Bel", "Kas", "Lun") for b in ("ne", "vik", "den", "holm", "by", "gard")]
    lids = list(zip(names, names[::-1], range(11, 41), strict=True))
    made = [
        (f"The {a} lid of {b} weighs {n} tonnes.", f"How many tonnes does the {a} lid of {b} weigh?")
        for a, b, n in lids
    ]
    first, again = (
        judge(
            body_of(*(("train", fact) for fact, _ in rows)),
            *([candidate(*row)] for row in rows),
        )[0]
        for rows in (made, made[::-1])
    )
    assert len(first) == len(made)
    assert set(first.split) == {"train", "heldout"} and (first.split == "train").mean() > 0.6
    assert dict(zip(first.Question, first.split, strict=True)) == dict(zip(again.Question, again.split, strict=True))


def test_nothing_written_is_nothing_kept_and_nothing_rejected(judge):
    pairs, rejected = judge(body_of(("train", WHOLE)), [])
    assert pairs.empty and rejected.empty
    assert list(pairs.columns) == list(rejected.columns)


@pytest.mark.parametrize(
    "text, previous, wanted",
    [
        ("and the second half ends here.", "The first half of a sentence", True),
        ("A new sentence begins.", "The sentence before it has ended.", False),
        ("overlaps with the one before it, and goes on.", "This sentence overlaps with the one before it,", True),
        (
            "It overlaps from its very start on, and then goes on.",
            "It ended. It overlaps from its very start on, and then goes",
            False,
        ),
        ("The first chunk of a document.", "", False),
        ("Another one.", "She said “no.”", False),
    ],
)
def test_chunk_that_begins_within_a_sentence(text, previous, wanted):
    assert qna.continues(text, previous) is wanted
