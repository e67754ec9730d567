"""Tests of llama_qna/reporting/card.py: committed cards are what the committed numbers make."""

import dataclasses
import json
import shutil

import pytest
from huggingface_hub import ModelCard

from llama_qna import publish
from llama_qna.models import prompts
from llama_qna.project.recipe import read_recipe
from llama_qna.project.variant import REPOSITORY
from llama_qna.reporting import card, results

PUBLISHED = ["paper_135m", "paper_reader_135m", "physics_books_135m"]


def metrics_of(name):
    return json.loads((REPOSITORY / name / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture
def facts():
    """Make the facts of a card: the recipe of a variant with some of its keys replaced, and nothing measured."""

    def make(name, metrics=None, **changed):
        recipe = read_recipe(REPOSITORY / name / "variant.yaml").model_copy(update=changed)
        return card.Facts(name, recipe, {}, metrics)

    return make


@pytest.mark.parametrize("name", PUBLISHED)
def test_committed_card_is_what_the_committed_numbers_make(name):
    committed = (REPOSITORY / name / card.CARD).read_text(encoding="utf-8")
    assert committed == card.published_card(REPOSITORY, name)


def test_every_published_variant_has_a_card():
    with_metrics = {
        path.parent.name for path in REPOSITORY.glob("*/metrics.json") if (path.parent / "variant.yaml").is_file()
    }
    assert {path.parent.name for path in REPOSITORY.glob(f"*/{card.CARD}")} == with_metrics == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_card_shows_the_prompts_that_were_measured(name):
    text = card.published_card(REPOSITORY, name)
    assert prompts.SYSTEM in text
    assert (prompts.READING in text) == (
        read_recipe(REPOSITORY / name / "variant.yaml").finetuning.passages is not None
    )
    shown = text.split("## The prompt")[1].split("```")[1].strip()
    asked = prompts.reading_messages("...", ["...", "..."])[-1]["content"]
    assert shown == asked


@pytest.mark.parametrize("name", PUBLISHED)
def test_metadata_are_what_the_hub_reads(name):
    data = ModelCard.load(REPOSITORY / name / card.CARD).data
    assert (data.base_model, data.license, data.language) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "en")
    assert (data.library_name, data.pipeline_tag) == ("peft", "text-generation")
    assert data.base_model_relation == "adapter"
    corpus = read_recipe(REPOSITORY / name / "variant.yaml").corpus
    assert data.datasets == [f"llama-qna-{corpus}"] and "qlora" in data.tags


@pytest.mark.parametrize("name", PUBLISHED)
def test_model_index_holds_the_scores_and_intervals(name):
    data = ModelCard.load(REPOSITORY / name / card.CARD).data
    metrics = metrics_of(name)
    (system,) = [system for system in metrics["systems"] if system["name"] == "finetuned"]
    found = {result.metric_name: result for result in data.eval_results if result.task_name.startswith("closed")}
    assert found.keys() == set(results.HELDOUT.values())
    for key, label in results.HELDOUT.items():
        score, result = system["scores"][key], found[label]
        assert result.metric_value == pytest.approx(score["mean"], abs=5e-5)
        assert result.metric_args["confidence_interval_95"] == pytest.approx([score["low"], score["high"]], abs=5e-5)
        assert result.dataset_split == "test"
    (chosen,) = [point for point in metrics["checkpoints"] if point["name"] == metrics["chosen"]]
    perplexities = {
        result.dataset_name: result.metric_value for result in data.eval_results if "lang" in result.task_name
    }
    for text, key in {"held-out sections": "heldout", "general English text": "general"}.items():
        assert perplexities[text] == pytest.approx(chosen["perplexity"][key]["perplexity"], abs=5e-4)


def test_card_of_the_studys_recipe_carries_metas_licence(facts):
    made = ModelCard(card.card(facts("paper_7b")))
    assert (made.data.base_model, made.data.license) == ("meta-llama/Llama-2-7b-chat-hf", "llama2")
    assert made.data.eval_results is None
    assert "bnb_4bit_compute_dtype=torch.bfloat16" in made.text or "bnb_4bit_compute_dtype=torch.float16" in made.text
    assert "This checkpoint has not been evaluated." in made.text


def test_card_of_a_users_own_base_and_corpus_claims_no_licence(facts):
    made = ModelCard(card.card(facts("paper_135m", base_model="models/mine", corpus="my_papers")))
    assert (made.data.license, made.data.license_name) == ("other", "the-licence-of-the-base-model")
    assert "who owns them decides" in made.text and "Apache-2.0" not in made.text


def test_card_without_gold_questions_has_no_scores_of_them(facts):
    metrics = {key: value for key, value in metrics_of("paper_135m").items() if key != "systems"}
    made = ModelCard(card.card(facts("paper_135m", metrics)))
    assert {result.metric_type for result in made.data.eval_results} == {"perplexity"}
    assert "gold questions, none" not in made.text and "In-sample" in made.text


def test_licences_are_those_of_the_table():
    tables = dict(card.data_licences("paper"))
    assert set(tables.values()) == {"Apache-2.0"}
    assert {"`pdfs/paper/`", "`paper/gold.csv`", "`paper/unanswerable.csv`"} <= set(tables)
    assert card.data_licences("my_papers") == []


@pytest.mark.parametrize("format", ["adapter", "merged", "gguf", "ollama"])
def test_every_format_says_how_it_is_used(format, facts):
    check = {"loaded": "loaded", "same": 9, "questions": 10, "against": "the other", "rougeL": 0.97}
    made = ModelCard(card.card(dataclasses.replace(facts("paper_135m"), format=format, checks=(check,))))
    use = made.text.partition("## Use\n")[2].partition("\n## ")[0]
    word = {"adapter": "PeftModel", "merged": "AutoModelForCausalLM", "gguf": "llama-server", "ollama": "ollama run"}
    assert word[format] in use and "<" not in use
    assert "- loaded: 9 of 10 greedy answers are those of the other; ROUGE-L between the two, mean 0.970." in made.text
    assert ("gguf" in made.data.tags) == (format in ("gguf", "ollama"))


def test_publishing_writes_the_card(tmp_path):
    for name in ("paper_135m", "data/paper"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    (tmp_path / "paper_135m" / card.CARD).unlink()
    path = publish.write_published_card(tmp_path, "paper_135m")
    assert path.read_bytes() == (REPOSITORY / "paper_135m" / card.CARD).read_bytes()
