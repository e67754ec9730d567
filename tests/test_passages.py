"""Rows of pairs with passages: what each kind holds, read back from its tokens; and a training with them."""

import shutil
from collections import Counter
from dataclasses import replace
from random import Random

import pandas as pd
import pytest
import yaml

from llama_qna import UserError
from llama_qna.models import prompts
from llama_qna.models.lineage import checkpoints
from llama_qna.project.files import sha256, write_json
from llama_qna.project.recipe import Finetuning, Passages, Recipe
from llama_qna.project.variant import REPOSITORY, Reader, Variant
from llama_qna.text.words import content_words, without_marks
from llama_qna.training import reading, stages
from llama_qna.training.passages import passage_rows, spread
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture, tokenizer  # noqa: F401

KINDS = ("closed_book", "with_passage", "others_only", "question")
SHARES = {"closed_book": 0.25, "with_passage": 0.4, "others_only": 0.15, "question": 0.2}
ROUNDS = 3


def settings(shares=SHARES, **changed) -> Finetuning:
    known = Variant.load("paper_135m").recipe.finetuning
    return known.model_copy(update={"passages": Passages(**shares), "epochs": ROUNDS, "max_length": 700} | changed)


def only(kind: str) -> dict:
    return dict.fromkeys(KINDS, 0.0) | {kind: 1.0}


def paper(name: str) -> pd.DataFrame:
    return pd.read_csv(REPOSITORY / "data" / "paper" / f"{name}.csv", keep_default_na=False)


def trained_on(name: str) -> pd.DataFrame:
    table = paper(name)
    return table[table.split == "train"]


@pytest.fixture(scope="module")
def chunks():
    return trained_on("chunks")


@pytest.fixture(scope="module")
def pairs(chunks):
    """Twelve pairs of the paper that have a passage, and two entries of its reference list."""
    known = trained_on("qna")
    bodies = known[known.chunk_id.isin(chunks[chunks.kind == "body"].chunk_id)].drop_duplicates("chunk_id")
    return pd.concat([bodies[:12], known[known.recipe == "reference"][:2]])


def conversations(rows) -> list[tuple[str, str]]:
    """What each row asks and what it answers, without the turns' marks."""
    found = []
    for row in rows:
        asked = tokenizer().decode([t for t, label in zip(row["input_ids"], row["labels"], strict=True) if label < 0])
        said = tokenizer().decode([label for label in row["labels"] if label >= 0])
        assert said.endswith(tokenizer().eos_token)
        found.append((asked, said.removesuffix(tokenizer().eos_token).removeprefix(" ")))
    return found


def rows_of(pairs, chunks, shares=SHARES, **changed):
    return passage_rows(tokenizer(), pairs, chunks, settings(shares, **changed), 7, "small finetuning")


def passages_of(asked: str) -> list[str]:
    texts = asked.split("user\n", 1)[1].split("\n\nQuestion: ")[0]
    return [text.removeprefix("Text: ") for text in texts.split("\n\n")]


def test_a_quote_stands_in_the_passage_and_the_answer_follows(pairs, chunks):
    answers = dict(zip(pairs.Question, pairs.Answer, strict=True))
    found = conversations(rows_of(pairs[:12], chunks, only("with_passage")))
    assert len(found) == 12 * ROUNDS
    counts = Counter()
    for asked, said in found:
        question = asked.split("Question: ")[1].split(tokenizer().eos_token)[0]
        quote, answer = said.split("\n")
        passages = passages_of(asked)
        assert sum(quote in passage for passage in passages) == 1
        assert answer == answers[question] and content_words(quote, "en") & content_words(answer, "en")
        counts[len(passages)] += 1
    assert set(counts) == {1, 2, 3} and counts[1] > counts[2] + counts[3]


def test_a_passage_that_does_not_tell_is_answered_by_saying_so(pairs, chunks):
    told = {
        pair.Question: content_words(pair.Answer, "en") - content_words(pair.Question, "en")
        for pair in pairs.itertuples()
    }
    for asked, said in conversations(rows_of(pairs[:12], chunks, only("others_only"))):
        assert said == f"{prompts.NOTHING}\n{prompts.NOT_SAID}"
        question = asked.split("Question: ")[1].split(tokenizer().eos_token)[0]
        passages = passages_of(asked)
        assert passages and all(not told[question] <= content_words(passage, "en") for passage in passages)
        assert any(content_words(question, "en") & content_words(passage, "en") for passage in passages)


def test_a_question_is_written_about_a_sentence_of_its_passage(pairs, chunks):
    for asked, said in conversations(rows_of(pairs[:12], chunks, only("question"))):
        passage, sentence = asked.split("Text: ")[1].split(tokenizer().eos_token)[0].split("\n\nSentence: ")
        assert sentence in passage and said in set(pairs.Question)


def test_closed_book_rows_are_those_of_the_study(pairs, chunks):
    plain = [prompts.training_row(tokenizer(), p.Question, p.Answer) for p in pairs.itertuples()]
    rows = rows_of(pairs, chunks, only("closed_book"))
    assert sorted(map(str, rows)) == sorted(map(str, plain * ROUNDS))


def test_the_named_evidence_is_quoted(pairs, chunks):
    pair = pairs[:1]
    text = chunks.set_index("chunk_id").text[pair.chunk_id.iloc[0]]
    sentence = without_marks(text).split(". ")[1] + "."
    named = rows_of(pair.assign(evidence=sentence), chunks, only("with_passage"))
    assert {said.split("\n")[0] for _, said in conversations(named)} == {sentence}


def test_a_pair_without_evidence_comes_closed_book(pairs, chunks):
    unknown = pairs[-2:]
    mine = pairs[:1].assign(Question="Who?", Answer="Quendrith Vasko.", evidence="")
    for table in (unknown, mine):
        plain = [prompts.training_row(tokenizer(), p.Question, p.Answer) for p in table.itertuples()]
        assert sorted(map(str, rows_of(table, chunks))) == sorted(map(str, plain * ROUNDS))


@pytest.mark.parametrize("pairs", [1, 7, 100])
@pytest.mark.parametrize("rounds", [1, 3, 5])
def test_shares_hold_over_the_epochs_and_a_pair_comes_in_several_ways(pairs, rounds):
    kinds = list(spread(SHARES, pairs, rounds, Random(1)))
    assert len(kinds) == pairs and all(len(of_pair) == rounds for of_pair in kinds)
    counts = Counter(kind for of_pair in kinds for kind in of_pair)
    for kind, share in SHARES.items():
        assert abs(counts[kind] - share * pairs * rounds) <= 1
    if rounds == 5:
        assert all(len(set(of_pair)) >= 3 for of_pair in kinds)
    assert all("question" not in of_pair for of_pair in spread(only("closed_book"), 3, 4, Random(1)))


def test_rows_are_the_same_with_the_same_seed_and_no_gold_question_is_among_them(pairs, chunks):
    rows = rows_of(pairs, chunks)
    assert rows == rows_of(pairs, chunks) and len(rows) == len(pairs) * ROUNDS
    text = "\n".join(f"{asked} {said}" for asked, said in conversations(rows))
    assert not [question for question in paper("gold").Question if question in text]


def test_rows_that_do_not_fit_are_counted_and_named_and_all_of_them_are_an_error(pairs, chunks, capsys):
    rows = rows_of(pairs[:12], chunks, max_length=150)
    assert 0 < len(rows) < 12 * ROUNDS and all(len(row["input_ids"]) <= 150 for row in rows)
    assert f"{12 * ROUNDS - len(rows)} of {12 * ROUNDS}" in capsys.readouterr().out
    with pytest.raises(UserError, match="small finetuning"):
        rows_of(pairs[:12], chunks, only("with_passage"), max_length=20)


def test_shares_that_are_no_whole_are_refused(edit_recipe):
    shares = "passages: {closed_book: 0.5, with_passage: 0.6, others_only: 0, question: 0}"
    edit_recipe("  folder: finetuning_qna_paper", f"  folder: finetuning_qna_paper\n  {shares}")
    with pytest.raises(UserError, match=r"finetuning\.passages.*1\.1") as caught:
        Variant.load("paper_135m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["paper_7b", "paper_13b", "physics_mk_books_7b"])
def test_the_studys_recipes_show_the_switch(name):
    assert Variant.load(name).recipe.finetuning.passages is None
    text = (REPOSITORY / name / "variant.yaml").read_text(encoding="utf-8")
    switched = Recipe.model_validate(yaml.safe_load(text.replace("  # passages: ", "  passages: ")))
    assert switched.finetuning.passages == Variant.load("paper_reader_135m").recipe.finetuning.passages


def test_the_recipe_with_passages_shares_pairs_and_evaluation_with_the_paper():
    ours, paper = (Variant.load(name).recipe for name in ("paper_reader_135m", "paper_135m"))
    assert ours.finetuning.passages and ours.start == "reader_135m"
    assert ours.quantization == Reader.load("reader_135m").recipe.quantization
    for key in ("corpus", "base_model", "seed", "notebooks", "chunking", "heldout", "generation", "evaluation"):
        assert getattr(ours, key) == getattr(paper, key)


# --- rows of the reading set beside others ---------------------------------------------------------------------------


def test_rows_beside_are_no_rows_by_which_reading_is_measured():
    texts = [" ".join(text.passage.split()) for text in reading.read_texts(reading.READING_SET)[:: reading.MEASURED]]
    rows = reading.rows_beside(tokenizer(), 25, 700, seed=3)
    assert 20 <= len(rows) <= 25 and rows == reading.rows_beside(tokenizer(), 25, 700, seed=3)
    for asked, _ in conversations(rows):
        assert not any(text[:80] in asked for text in texts)
    assert reading.rows_beside(tokenizer(), 0, 400, seed=3) == []


@pytest.fixture
def skilled(shallow_variant, monkeypatch):
    """Writes variants on two layers that start from a short training on the reading set, in place of the reader's."""
    base, root = shallow_variant.recipe.base_model, shallow_variant.root
    top = {"quantization": {"bits": 16, "dequantize_once": True}, "stacking": "continue"}
    taught = shared.write_variant(root, base, top, gold=False, reading_rows=2, max_length=256, epochs=1)
    stages.pretrain(taught)
    adapter = root / "skill" / "adapter"
    shutil.copytree(checkpoints(taught.pretraining)[-1], adapter)
    weights = sha256(adapter / "adapter_model.safetensors")
    write_json(adapter.parent / "run.json", {"outputs": {"adapter/adapter_model.safetensors": weights}})
    recipe = Reader.load("reader_135m").recipe
    recipe = recipe.model_copy(update={"base_model": base, "quantization": taught.recipe.quantization})
    monkeypatch.setattr(Reader, "load", lambda name: Reader("skill", root, recipe))
    monkeypatch.setattr(reading, "MEASURED_ROWS", 3)
    return lambda **stage: shared.write_variant(root, base, top | {"start": "skill"}, gold=False, epochs=1, **stage)


def test_a_training_that_undoes_the_reading_says_so_with_both_losses(skilled, capsys):
    losses = stages.pretrain(skilled(learning_rate=0.2))["results"]["reading_loss"]
    assert losses["after"] > losses["before"] + reading.LOST
    assert "reading is undone" in capsys.readouterr().out


def test_training_with_passages_and_rows_of_the_reading_set(skilled, pairs, chunks, capsys):
    variant = skilled(max_length=300, max_steps=1, learning_rate=1e-4)
    given = variant.recipe.finetuning.model_copy(update={"passages": Passages(**SHARES), "reading_rows": 0.5})
    variant = replace(variant, recipe=variant.recipe.model_copy(update={"finetuning": given}))
    chunks.to_csv(variant.chunks / "chunks.csv", index=False)
    pairs.to_csv(variant.qna / "qna.csv", index=False)
    record = stages.finetune(variant, only=True)
    assert record["results"]["rows"] > len(pairs) and "chunks.csv" in record["inputs"]
    assert set(record["results"]["reading_loss"]) == {"before", "after"}
    assert "reading is undone" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_shipped_recipe_goes_on_from_the_reader(tmp_path, pairs, chunks):
    known = Variant.load("paper_reader_135m")
    step = known.recipe.finetuning.model_copy(update={"max_steps": 1})
    variant = replace(known, root=tmp_path, recipe=known.recipe.model_copy(update={"finetuning": step}))
    for folder, name, table in ((variant.chunks, "chunks", chunks), (variant.qna, "qna", pairs)):
        folder.mkdir(parents=True)
        table.to_csv(folder / f"{name}.csv", index=False)
    losses = stages.finetune(variant, only=True)["results"]["reading_loss"]
    assert 0 < losses["before"] < 1 and abs(losses["after"] - losses["before"]) < reading.LOST
