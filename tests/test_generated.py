"""Generated pairs as questions, and as proposals for a gold file, on the shipped paper's chunks."""

import pandas as pd
import pytest

from llama_qna import UserError, cli
from llama_qna.project import generated
from llama_qna.project.generated import GENERATED, generated_questions
from llama_qna.project.gold import GOLD_COLUMNS, keep_back, read_gold
from llama_qna.project.variant import REPOSITORY, Variant

PAPER = REPOSITORY / "data" / "paper"


@pytest.fixture(scope="module")
def chunks():
    return pd.read_csv(PAPER / "chunks.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def pairs(chunks):
    """A pair about every chunk, its evidence the first sentence; about every third it is kept back."""
    table = chunks.assign(Question="What is said in " + chunks.chunk_id + "?", Answer="Nothing but " + chunks.chunk_id)
    table["evidence"] = table.text.str.split(". ", regex=False).str[0]
    table["split"] = ["heldout" if n % 3 == 0 else "train" for n in range(len(table))]
    return table.assign(recipe="reader", model="m").drop(columns=["kind", "section", "text", "tokens"])


def test_pairs_kept_from_training_are_asked_in_both_folds(pairs, chunks):
    found = generated_questions(pairs, chunks)
    kept = pairs[(pairs.split == "heldout") & pairs.chunk_id.isin(chunks[chunks.kind == "body"].chunk_id)]
    assert list(found.Question) == list(kept.Question) and list(found.evidence) == list(kept.evidence)
    assert set(found.source) == {GENERATED} and set(found.fold) == {"dev", "test"}
    assert (found.groupby(["document", "section"]).fold.nunique() == 1).all()
    assert all(chunk_id in ids for chunk_id, ids in zip(kept.chunk_id, found.chunk_ids, strict=True))


def test_without_pairs_kept_back_nothing_is_asked(pairs, chunks):
    assert generated_questions(pairs[pairs.split == "train"], chunks) is None


def test_the_questions_of_one_section_are_in_both_folds(pairs, chunks):
    found = generated_questions(pairs, chunks.assign(section=""))
    assert set(found.fold) == {"dev", "test"}


def test_of_many_those_of_all_sections_are_asked(pairs, chunks, monkeypatch):
    everything = generated_questions(pairs, chunks)
    monkeypatch.setattr(generated, "MOST_ASKED", everything.section.nunique())
    few = generated_questions(pairs, chunks)
    assert set(few.section) == set(everything.section) and few.section.is_unique


def test_a_pair_without_evidence_has_the_nearest_sentence_of_its_chunk(chunks):
    chunk = chunks[chunks.text.str.contains("wickets, after the small door")].iloc[0]
    pair = {"Question": "Why wickets?", "Answer": "After the small door in a large gate.", "evidence": ""}
    pair |= {"chunk_id": chunk.chunk_id, "split": "heldout"}
    found = generated_questions(pd.DataFrame([pair]), chunks)
    assert "small door in a large gate" in found.evidence[0] and found.kind[0] == "why"


@pytest.mark.parametrize("evidence", ["", "The lid weighs 3 kg and hangs on a chain."])
def test_a_pair_about_a_sentence_with_citation_marks_is_asked(chunks, evidence):
    """Evidence is a sentence as a model was given it, without them."""
    text = "It is old. The lid weighs 3 kg [1, 2] and hangs on a chain [3]."
    chunk = chunks[chunks.kind == "body"][:1].assign(text=text)
    pair = {"Question": "How heavy is the lid?", "Answer": "The lid weighs 3 kg.", "split": "heldout"}
    pair |= {"chunk_id": chunk.chunk_id.iloc[0], "evidence": evidence}
    found = generated_questions(pd.DataFrame([pair]), chunk)
    assert found.evidence[0] == "The lid weighs 3 kg and hangs on a chain."
    assert found.chunk_ids[0] == list(chunk.chunk_id)


def test_the_nearest_sentence_is_found_by_the_words_of_its_language(chunks):
    text = "Im Jahr 1884 kamen Brücken hinzu. Der Lauf der Ilse ist dort kurz und gerade."
    chunk = chunks[chunks.kind == "body"][:1].assign(text=text)
    pair = {"Question": "Was kam?", "Answer": "Der Bau der Brücke.", "evidence": "", "split": "heldout"}
    found = generated_questions(pd.DataFrame([pair | {"chunk_id": chunk.chunk_id.iloc[0]}]), chunk)
    assert found.evidence[0] == "Im Jahr 1884 kamen Brücken hinzu."


@pytest.mark.parametrize(
    ("question", "answer", "part"),
    [
        ("Who wrote the manual?", "Ilse Brandt wrote the manual.", "Ilse Brandt"),
        ("How heavy is the lid?", "The lid weighs 3 kg.", "weighs 3 kg"),
        ("Is the lid heavy?", "The lid is heavy.", ""),
        ("Which sizes are there?", "The sizes are: 3 | 4", ""),  # would be taken for two forms
    ],
)
def test_what_an_answer_adds_to_its_question_counts_as_right(question, answer, part):
    assert generated._new_part(question, answer) == part


@pytest.fixture
def variant(toy_root, pairs, chunks):
    variant = Variant.load("paper_135m")
    for folder, name, table in ((variant.chunks, "chunks.csv", chunks), (variant.qna, "qna.csv", pairs)):
        folder.mkdir(parents=True)
        table.to_csv(folder / name, index=False)
    return variant


def mark(path, edit, **form):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    edit(table)
    table.to_csv(path, index=False, **form)


def test_marked_proposals_are_gold_questions(variant, pairs, chunks, capsys):
    assert cli.main(["gold", "paper_135m", "--count", "20"]) == 0
    table = pd.read_csv(variant.gold, dtype=str, keep_default_na=False)
    assert list(table.columns) == [*GOLD_COLUMNS, "page", "checked"] and len(table) == 20
    assert table.Question.isin(pairs[pairs.split == "heldout"].Question).sum() > 10, "those kept back come first"
    assert table.section.nunique() > 10
    assert read_gold(variant.gold, chunks).empty

    mark(variant.gold, lambda table: table.__setitem__("checked", ["Yes", "no", *["yes"] * 3, *[""] * 15]), sep=";")
    found = read_gold(variant.gold, chunks)
    assert list(found.question_id) == [f"generated-{n:03}" for n in (1, 3, 4, 5)] and set(found.source) == {"gold"}


@pytest.mark.parametrize(("heldout", "train", "wanted"), [(0, 12, 4), (3, 12, 7), (0, 2, 1), (2, 0, 2)])
def test_a_third_of_the_pairs_trained_on_is_proposed_at_most(variant, pairs, heldout, train, wanted):
    few = [pairs[pairs.split == split].tail(count) for split, count in (("heldout", heldout), ("train", train))]
    pd.concat(few).assign(chunk_id=pairs.chunk_id[1], evidence="").to_csv(variant.qna / "qna.csv", index=False)
    assert generated.propose(variant, 30)[1] == wanted
    proposed = pd.read_csv(variant.gold, keep_default_na=False).Question
    assert proposed.isin(few[0].Question).sum() == heldout


def test_one_pair_that_is_trained_on_cannot_be_spared(variant, pairs):
    pairs[pairs.split == "train"].head(1).to_csv(variant.qna / "qna.csv", index=False)
    with pytest.raises(UserError, match="no pair to propose"):
        generated.propose(variant, 30)


def test_a_gold_file_is_never_replaced(variant, capsys):
    variant.gold.parent.mkdir()
    variant.gold.write_text("mine")
    assert cli.main(["gold", "paper_135m"]) == 2
    assert variant.gold.read_text() == "mine" and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("column", "value"), [("checked", "fine"), ("evidence", "This stands nowhere.")])
def test_a_bad_row_is_named(variant, chunks, column, value):
    generated.propose(variant, 3)
    mark(variant.gold, lambda table: (table.__setitem__("checked", "yes"), table.loc.__setitem__((1, column), value)))
    with pytest.raises(UserError, match=r"paper/gold\.csv, row 2 \(generated-002\): "):
        read_gold(variant.gold, chunks)


def test_nothing_is_trained_on_a_pair_near_a_gold_question(pairs, chunks):
    questions = generated_questions(pairs, chunks).head(1).assign(Question=pairs.Question[1].upper())
    kept = keep_back(pairs, questions)
    assert list(kept.index[kept.split != pairs.split]) == [1] and kept.split[1] == "heldout"
