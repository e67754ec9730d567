"""Every shipped recipe runs through the terminal's `run`: two layers, the real quantizer, two steps, three pages."""

import json

import pypdfium2
import pytest
import yaml

from llama_qna import cli
from llama_qna.project.variant import REPOSITORY, variant_names

TOY_STAGE = {"max_steps": 2, "save_steps": 1, "logging_steps": 1, "max_length": 128}


@pytest.fixture(scope="module")
def toy_model(tmp_path_factory):
    """A two-layer Llama with random weights and the embedded model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llama_qna.models.base import EMBEDDED, load_tokenizer

    folder = tmp_path_factory.mktemp("toy_llama")
    tokenizer = load_tokenizer(EMBEDDED)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def toy_recipe(name: str, model) -> dict:
    """A shipped recipe with another base and fewer steps; everything else as shipped."""
    recipe = yaml.safe_load((REPOSITORY / name / "variant.yaml").read_text())
    recipe["base_model"] = str(model)
    recipe.pop("start", None)  # there is no reader for this base
    recipe["generation"] |= {"max_new_tokens": 4, "attempts": 1, "method": "multi_pair"}
    recipe["pretraining"] |= TOY_STAGE
    recipe["finetuning"] |= TOY_STAGE
    recipe["evaluation"] |= {"window": 256, "stride": 256, "max_new_tokens": 4, "max_questions": 2}
    if not recipe["generation"].get("reference_questions"):  # random weights write no usable pair
        recipe["generation"]["qna_file"] = "pairs.csv"
    return recipe


# a recipe much like another one's, which runs always
SLOW = {"paper_7b", "paper_13b", "paper_reader_135m", "physics_books_135m"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in variant_names(REPOSITORY)]
)
def test_recipe_runs_end_to_end(name, toy_model, tmp_path, monkeypatch, capsys):
    recipe = toy_recipe(name, toy_model)
    (tmp_path / name).mkdir()
    (tmp_path / name / "variant.yaml").write_text(yaml.safe_dump(recipe))
    pdfs = tmp_path / "data" / "pdfs" / recipe["corpus"]
    pdfs.mkdir(parents=True)
    paper, pages = pypdfium2.PdfDocument(REPOSITORY / "data/pdfs/paper/wicketfold.pdf"), pypdfium2.PdfDocument.new()
    pages.import_pages(paper, [0, 6, 7])  # the last two with the references
    pages.save(pdfs / "pages.pdf")
    (tmp_path / "pairs.csv").write_text("Question,Answer\nWhat is a wicket?,A small door in a gate.\n" * 8)
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(tmp_path))

    assert cli.main(["run", name]) == 0
    said = capsys.readouterr().out
    run = tmp_path / "runs" / name
    for stage in ("pretraining", "finetuning"):
        folder = run / recipe[stage]["folder"]
        assert [row["step"] for row in json.loads((folder / "log.json").read_text())] == [1, 2]
        assert {p.name for p in folder.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
        adapter = json.loads((folder / "checkpoint-2" / "adapter_config.json").read_text())
        assert (adapter["r"], adapter["lora_alpha"]) == (recipe["lora"]["r"], recipe["lora"]["alpha"])
    scored = json.loads((run / "evaluation" / "metrics.json").read_text())["checkpoints"]
    assert [(s["stage"], s["step"]) for s in scored] == [
        ("base", 0), ("pretraining", 1), ("pretraining", 2), ("finetuning", 1), ("finetuning", 2)
    ]  # fmt: skip
    # a random model spreads its guesses over the whole vocabulary
    assert scored[0]["perplexity"]["domain"]["perplexity"] == pytest.approx(49152, rel=0.2)
    assert "ROUGE-L" in said and "seconds per stage" in said
