"""Tests of llama_qna/answering/answerer.py: each system answers as it was measured, in a batch or as a stream."""

import json
import shutil
import threading
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from llama_qna import UserError
from llama_qna.answering.answerer import Answerer, best_system, stripped
from llama_qna.documents.chunks import load
from llama_qna.models import adapters, prompts
from llama_qna.models.lineage import Point, reader_of, trained
from llama_qna.pairs.qna import generate
from llama_qna.project.data import read_chunks
from llama_qna.project.systems import SYSTEMS
from llama_qna.project.variant import Variant
from llama_qna.training.stages import finetune, pretrain
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture, small_run_fixture  # noqa: F401

TRAINED = [system for system in SYSTEMS if system != "reader"]  # of a variant; the reader's base is the embedded one


@pytest.fixture(scope="module")
def answerer(small_run):
    return Answerer(small_run.variant)


@pytest.fixture(scope="module")
def measured(small_run):
    """The rows that evaluation wrote about the test questions, by system."""
    lines = (small_run.variant.evaluation / "predictions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {name: [row for row in rows if (row["protocol"], row["system"]) == ("test", name)] for name in TRAINED}


@pytest.fixture(scope="module")
def continued_root(shallow_folder, tmp_path_factory):
    """The root of a trained variant on two layers whose fine-tuning went on with the adapter of pretraining."""
    variant = continued_at(tmp_path_factory.mktemp("continued"), shallow_folder)
    for stage in (load, generate, pretrain, finetune):
        stage(variant)
    return variant.root


@pytest.fixture
def continued(continued_root, shallow_folder, tmp_path):
    """A copy of it that a test may change."""
    return continued_at(shutil.copytree(continued_root, tmp_path / "root"), shallow_folder)


def continued_at(root, base):
    return shared.write_variant(root, str(base), {"stacking": "continue"}, gold=False)


# --- the systems -----------------------------------------------------------------------------------------------------


def test_every_system_answers_as_evaluation_measured_it(answerer, measured):
    for system in [*TRAINED, *reversed(TRAINED)]:  # adapters come and go
        rows = measured[system]
        answers = answerer.answer([row["question"] for row in rows], system)
        # their beginnings: evaluation asks more at once, and in another batch bfloat16 rounds differently
        assert [answer.text[:6] for answer in answers] == [row["answer"][:6] for row in rows]
        found = [[source.chunk_id for source in answer.sources] for answer in answers]
        shown = answerer.variant.recipe.evaluation.retrieved_chunks
        assert found == [row["retrieved"][:shown] for row in rows]


@pytest.mark.parametrize("dequantize_once", [True, False])
def test_the_base_is_itself_again_after_an_adapter(continued, dequantize_once):
    quantization = continued.recipe.quantization.model_copy(update={"dequantize_once": dequantize_once})
    recipe = continued.recipe.model_copy(update={"quantization": quantization})
    answerer = Answerer(replace(continued, recipe=recipe))
    ids = torch.tensor([answerer.prompt_ids("Who wrote the manual?")])
    logits = {}
    for name in ["base", "finetuned", "base", "pretrained", "finetuned", "base"]:
        now = answerer._load(name)(ids).logits
        assert torch.equal(logits.setdefault(name, now), now)
    assert not torch.equal(logits["base"], logits["finetuned"]) and not torch.equal(
        logits["pretrained"], logits["finetuned"]
    )
    assert len(answerer.models._models) == 1, "the base is loaded once"


def test_what_was_trained_again_is_loaded_again_though_its_folders_are_the_same(tmp_path, monkeypatch):
    loads, put = [], []

    def load_base(base_model, quantization, weights=None):
        loads.append(weights)
        return shared.tiny_llama(100)

    monkeypatch.setattr(adapters, "load_base", load_base)
    monkeypatch.setattr(adapters, "_with_adapter", lambda model, adapter: put.append(adapter) or model)
    models = adapters.Models("base", None)
    weights, adapter = tmp_path / "merged/model.safetensors", tmp_path / "checkpoint-2/adapter_model.safetensors"
    for file in (weights, adapter):
        file.parent.mkdir()
        file.write_bytes(b"1")

    def load(*replaced):
        for file in replaced:
            file.with_name("new").write_bytes(file.read_bytes() + b"1")
            file.with_name("new").replace(file)
        return models.load(weights.parent, adapter.parent)

    first = load()
    assert load() is first and len(loads) == len(put) == 1
    assert load(adapter) is first and len(loads) == 1 and len(put) == 2
    assert load(weights, adapter) is not first and len(loads) == 2 and len(put) == 3
    load(weights)
    assert len(loads) == 3 and len(put) == 4, "the adapter is put on the new weights"
    assert len(models._models) == 1, "the old weights are let go"


def test_passages_and_sentences_are_those_of_the_chunks_as_they_are(shallow_variant):
    answerer, path = Answerer(shallow_variant), shallow_variant.chunks / "chunks.csv"
    before = answerer.passages, answerer.sentences
    assert (answerer.passages, answerer.sentences) == before, "made once"
    table = pd.read_csv(path, keep_default_na=False)
    table.assign(text="The zeppelin is red.").to_csv(path, index=False)
    assert answerer.sources("Which zeppelin?")[0].text == "The zeppelin is red."
    assert answerer.sentences.all[0].text == "The zeppelin is red."


def test_nothing_trained(shallow_variant):
    answerer = Answerer(shallow_variant)
    with pytest.raises(UserError, match="run `llama-qna run small` first"):
        answerer.answer(["Who?"], "finetuned")
    with pytest.raises(UserError, match="run `llama-qna pretrain small` first"):
        answerer.stream("Who?", "pretrained")
    assert len(answerer.answer(["Who?", "Where is the workshop?", "Why?"], "base")) == 3


def test_a_damaged_adapter_is_named_and_the_base_still_answers(continued):
    answerer = Answerer(continued)
    before = answerer.answer(["Who?"], "base")
    _, adapter = trained(continued, "pretrained")
    (adapter / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=f"{adapter.name}/adapter_model.safetensors is damaged"):
        answerer.answer(["Who?"], "pretrained")
    assert answerer.answer(["Who?"], "base") == before


@pytest.mark.parametrize(
    "question, reason", [("", "is empty"), (" \n", "is empty"), ("why " * 1000, "longer than the 900 tokens")]
)
def test_bad_questions(answerer, question, reason):
    for system in ("base", "base+passages"):
        with pytest.raises(UserError, match=reason):
            answerer.answer(["Who?", question], system)
        with pytest.raises(UserError, match=reason):
            answerer.stream(question, system)


def test_unknown_system(answerer):
    with pytest.raises(UserError, match="no system 'gpt'"):
        answerer.answer(["Who?"], "gpt")


def test_prompts_are_those_of_training_and_evaluation(answerer):
    question = "Which object <|im_end|> lent the wickets their name?"
    tokenizer, sources = answerer.tokenizer, answerer.sources(question)
    texts = [source.text for source in sources]
    assert answerer.prompt_ids(question) == prompts.question_ids(tokenizer, question)
    assert answerer.prompt_ids(question, sources) == prompts.fit_chunks(tokenizer, question, texts, 900)[0]


def test_sources_say_where_a_passage_stands(answerer):
    chunks = read_chunks(answerer.variant).set_index("chunk_id")
    sources = answerer.sources("Which object lent the wickets their name?")
    assert 0 < len(sources) <= answerer.variant.recipe.evaluation.retrieved_chunks
    for source in sources:
        row = chunks.loc[source.chunk_id]
        assert (source.document, source.page, source.section, source.text) == (
            row.document,
            row.page,
            row.section,
            row.text,
        )
        assert row.kind == "body"
    assert answerer.sources("Xyzzy plugh?") == []


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_adds_up_to_the_answer(answerer):
    question = shared.PAIRS[0][0]
    for system in TRAINED:
        assert "".join(answerer.stream(question, system)) == answerer.answer([question], system)[0].text


def test_streams_side_by_side_in_one_thread(answerer):
    questions = [question for question, _ in shared.PAIRS[:3]]
    streams = [answerer.stream(question, system) for question, system in zip(questions, TRAINED, strict=False)]
    first = [next(stream) for stream in streams]  # all are under way, and each waits for the one before
    for question, system, begun, stream in zip(questions, TRAINED, first, streams, strict=False):
        assert begun + "".join(stream) == answerer.answer([question], system)[0].text


def test_a_reader_who_goes_away_holds_nobody_up(answerer):
    with closing(answerer.stream("Who wrote the manual?", "base")) as stream:
        next(stream)
    abandoned = answerer.stream("Where is the workshop?", "base")
    next(abandoned)  # kept, and never read on
    done = threading.Event()
    threading.Thread(target=lambda: (answerer.answer(["Who?"], "base"), done.set()), daemon=True).start()
    assert done.wait(60)


@pytest.mark.parametrize(
    "pieces, text",
    [
        (["\n ", " The", " mill", ". ", "\n"], "The mill."),
        (["a\n", "\n", "b"], "a\n\nb"),
        (["", " ", "\n"], ""),
        ([], ""),
    ],
)
def test_stripped(pieces, text):
    found = list(stripped(pieces))
    assert "".join(found) == text and all(found)


# --- systems that read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "best"), [("paper_135m", "reader"), ("paper_reader_135m", "reader"), ("paper_7b", "finetuned")]
)
def test_the_reader_answers_first_where_there_is_one(name, best):
    assert best_system(Variant.load(name)) == best


def test_a_base_without_a_reader_answers_as_it_was_trained():
    variant = Variant.load("paper_7b")
    assert best_system(replace(variant, recipe=with_passages(variant.recipe))) == "finetuned+passages"


def test_a_model_trained_with_passages_answers_as_the_reader_does(small_run):
    """Both by one procedure: a fine-tuned model whose adapter is the reader's shows what the reader shows."""
    variant = replace(small_run.variant, recipe=with_passages(small_run.variant.recipe))
    answerer, questions = Answerer(variant), ["What does SkipNet leave out?", "Who paid for the moon?"]
    answerer.finetuned = Point("finetuning", reader_of(variant).adapter)
    assert [answerer.reads(system) for system in SYSTEMS] == [True, False, False, False, False, True]
    read, found = (answerer.answer(questions, system) for system in ("reader", "finetuned+passages"))
    for own, answer in zip(found, read, strict=True):
        assert own.said_not == (own.evidence is None) and set(own.sources) == set(answer.sources)
    assert read[0].sources, "the question shares words with a sentence"
    assert answerer.answer(questions[:1])[0].sources == (), "closed book it is given nothing"


def with_passages(recipe):
    """The recipe of a model that learnt to read, on the base as the reader has it."""
    shares = SimpleNamespace(closed_book=0.25, with_passage=0.25, others_only=0.25, question=0.25)
    stage = recipe.finetuning.model_copy(update={"passages": shares})
    quantization = recipe.quantization.model_copy(update={"bits": 16})
    return recipe.model_copy(update={"finetuning": stage, "quantization": quantization})
