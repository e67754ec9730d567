"""Tests of llama_qna/results.py and of what publishing makes of it: the results block of the README."""

import json
import shutil

import pytest

from llama_qna import UserError, publishing, results, runs
from llama_qna.variants import REPOSITORY, Variant
from tests import fixtures_metrics as made_up

PUBLISHED = json.loads((REPOSITORY / "data" / "published_results.json").read_text(encoding="utf-8"))


def block(**metrics):
    return results.results_block(metrics, PUBLISHED, {name: f"about {name}" for name in metrics})


def tables(text):
    """The Markdown tables of a text: a list of rows each, each row a list of cells."""
    parts = [part for part in text.split("\n\n") if part.startswith("|")]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()] for part in parts]


def test_heldout_table_holds_every_system_with_its_intervals():
    heldout, _ = tables(block(paper_135m=made_up.metrics()))
    assert heldout[:2] == [["system", "ROUGE-L", "F1", "exact match", "supported by the document"], ["---"] * 5]
    assert [row[0] for row in heldout[2:]] == [label for _, label, *_ in made_up.SYSTEMS]
    assert heldout[7] == [
        "fine-tuned with retrieval",
        "0.450 [0.400, 0.500]",
        "0.430 [0.380, 0.480]",
        "0.080 [0.030, 0.130]",
        "0.600 [0.550, 0.650]",
    ]


def test_findings_state_the_differences_and_their_price():
    text = block(paper_135m=made_up.metrics())
    assert "**Held out: paper_135m** (about paper_135m). 50 gold questions" in text
    better = "(better)"
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- pretraining, then fine-tuning against base: "
        f"ROUGE-L +0.130 [+0.080, +0.180] {better}, F1 +0.130 [+0.080, +0.180] {better}",
        "- pretraining, then fine-tuning against fine-tuning only: "
        "ROUGE-L +0.040 [-0.010, +0.090] (no clear difference), F1 +0.040 [-0.010, +0.090] (no clear difference)",
        "- best other system (fine-tuned with retrieval) against base with retrieval: "
        f"ROUGE-L +0.130 [+0.080, +0.180] {better}, F1 +0.130 [+0.080, +0.180] {better}",
        "- general-text perplexity, base → shipped checkpoint (finetuning checkpoint-10): 40.00 → 42.00 (+5.0%)",
    ]


def test_a_lost_comparison_is_said_plainly():
    metrics = made_up.metrics()
    for system in metrics["systems"]:
        if "base_retrieval" in system["against"]:
            system["against"]["base_retrieval"]["rougeL"] |= {"mean": -0.1, "low": -0.2, "high": -0.01}
    text = block(paper_135m=metrics)
    assert "against base with retrieval: ROUGE-L -0.100 [-0.200, -0.010] (worse)" in text


def test_a_run_without_fine_tuning_only_is_not_compared_with_it():
    metrics = made_up.metrics()
    metrics["systems"] = [system for system in metrics["systems"] if system["name"] != "finetuning_only"]
    for system in metrics["systems"]:
        system["against"].pop("finetuning_only")
    text = block(paper_135m=metrics)
    assert "fine-tuning only" not in text and "pretraining, then fine-tuning against base" in text


def test_in_sample_table_holds_ours_beside_the_study():
    physics = made_up.metrics("physics_books_135m")
    physics["checkpoints"][0]["perplexity"]["domain"]["perplexity"] = 25.0
    *_, rows = tables(block(paper_135m=made_up.metrics(), physics_books_135m=physics))
    assert rows[0] == [
        "score",
        "paper_135m (about paper_135m)",
        "physics_books_135m (about physics_books_135m)",
        "Paper-7b (Llama-2-7b-chat, CoAxNN paper, one NVIDIA L4)",
        "MK-PhysX-7b (Llama-2-7b-chat, four physics books, one NVIDIA L4)",
    ]
    assert rows[2:] == [
        ["Text perplexity, base model", "17.75", "25.00", "6.91", "6.56"],
        ["Text perplexity, after pretraining", "2.50", "2.50", "2.49", "2.48"],
        ["Text perplexity falls by a factor of", "7.10", "10.00", "2.77", "2.65"],
        ["ROUGE-1, base model", "0.210", "0.210", "-", "-"],
        ["ROUGE-1, after pretraining", "0.234", "0.234", "-", "-"],
        ["ROUGE-1, after fine-tuning", "0.708", "0.708", "0.708", "0.406"],
        ["ROUGE-2, base model", "0.110", "0.110", "-", "-"],
        ["ROUGE-2, after pretraining", "0.130", "0.130", "-", "-"],
        ["ROUGE-2, after fine-tuning", "0.600", "0.600", "0.626", "0.262"],
        ["ROUGE-L, base model", "0.190", "0.190", "-", "-"],
        ["ROUGE-L, after pretraining", "0.210", "0.210", "-", "-"],
        ["ROUGE-L, after fine-tuning", "0.680", "0.680", "0.692", "0.375"],
        ["General-text perplexity, base model", "40.00", "40.00", "-", "-"],
        ["General-text perplexity, after pretraining", "41.00", "41.00", "10.33", "-"],
        ["General-text perplexity, after fine-tuning", "43.00", "43.00", "-", "-"],
        ["By the study's arithmetic: text perplexity falls by a factor of", "6.00", "6.00", "2.77", "2.65"],
        ["By the study's arithmetic: ROUGE-1, after fine-tuning", "0.718", "0.718", "0.708", "0.406"],
        ["By the study's arithmetic: ROUGE-2, after fine-tuning", "0.610", "0.610", "0.626", "0.262"],
        ["By the study's arithmetic: ROUGE-L, after fine-tuning", "0.690", "0.690", "0.692", "0.375"],
    ]


def test_a_run_without_gold_questions_is_in_the_second_table_only():
    plain = made_up.without_gold("mine")
    text = block(mine=plain)
    assert len(tables(text)) == 1 and "Held out" not in text and "arithmetic" not in text
    *_, last = tables(block(mine=plain, paper_135m=made_up.metrics()))
    assert last[-1] == ["By the study's arithmetic: ROUGE-L, after fine-tuning", "-", "0.690", "0.692", "0.375"]


def test_metrics_of_the_older_form_are_refused():
    with pytest.raises(
        UserError, match="the metrics of paper_135m are of an older form: evaluate and publish it again"
    ):
        block(paper_135m={"variant": "paper_135m", "systems": [{"name": "base"}]})


def test_the_last_checkpoint_of_the_study_is_the_one_that_it_chose():
    """The table and the bars take last checkpoints; for the study these must be its `best_checkpoint`s."""
    for key in results.STUDY:
        model = results.study(PUBLISHED, key)
        for stage in ("pretraining", "finetuning"):
            assert results.last(model, stage, "step") == PUBLISHED["recipe"][key][stage]["best_checkpoint"]


def test_results_block_is_replaced_and_writing_it_again_changes_nothing(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{results.BEGIN}\nold\n{results.END}\n\nafter ü\n", encoding="utf-8")
    results.write_results_block(readme, "| \\1 | new |\n")
    once = readme.read_text(encoding="utf-8")
    assert once == f"# Title\n\n{results.BEGIN}\n| \\1 | new |\n{results.END}\n\nafter ü\n"
    results.write_results_block(readme, "| \\1 | new |\n")
    assert readme.read_text(encoding="utf-8") == once


@pytest.mark.parametrize("text", ["no marks", results.BEGIN, f"{results.END} {results.BEGIN}", results.END])
def test_a_readme_without_both_marks_is_left_alone(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="README.md has no"):
        results.write_results_block(readme, "table")
    assert readme.read_text(encoding="utf-8") == text


@pytest.fixture
def root(tmp_path):
    """A root with two published variants and a recipe that nothing was published of."""
    for name in ("paper_135m", "physics_books_135m", "paper_7b"):
        (tmp_path / name).mkdir()
        shutil.copy(REPOSITORY / name / "variant.yaml", tmp_path / name)
    for name, machine in (("paper_135m", {"gpu": None, "cores": 2}), ("physics_books_135m", {"gpu": "L4", "cores": 8})):
        (tmp_path / name / "metrics.json").write_text(json.dumps(made_up.metrics(name)))
        (tmp_path / name / "run.json").write_text(json.dumps({"machine": machine}))
    return tmp_path


def test_readme_gets_every_published_variant(root):
    text = publishing.readme_results(root)
    assert len(tables(text)) == 3
    head = tables(text)[-1][0]
    assert [cell.split(" ")[0] for cell in head[1:3]] == ["paper_135m", "physics_books_135m"]
    assert head[1].endswith(", 2 CPU cores)") and head[2].endswith(", L4)")


def test_summary_shows_memory_and_heldout_scores_and_says_which_is_which(root, monkeypatch):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    variant = Variant.load("paper_135m")
    variant.evaluation.mkdir(parents=True)
    (variant.evaluation / "metrics.json").write_text(json.dumps(made_up.metrics()))
    lines = runs.summary(variant).splitlines()
    assert [line.split() for line in lines if line.startswith("ROUGE-L,")] == [
        ["ROUGE-L,", "fine-tuning", "0.210", "0.680"]
    ]
    (shown,) = [line for line in lines if line.startswith("fine-tuned with retrieval")]
    assert shown.removeprefix("fine-tuned with retrieval").split("  ")[-1].strip() == "0.430 [0.380, 0.480]"
    assert "0.450 [0.400, 0.500]" in shown
    assert "in-sample" in lines[-1] and "held out" in lines[-1]

    (variant.evaluation / "metrics.json").write_text(json.dumps(made_up.without_gold()))
    lines = runs.summary(variant).splitlines()
    assert "in-sample" in lines[-1] and not any("held out" in line for line in lines)


def test_table_of_checkpoints_has_a_column_for_what_was_measured():
    table = runs.systems_table(made_up.metrics())
    assert list(table.columns) == [
        "checkpoint", "perplexity, text", "perplexity, held out", "perplexity, general",
        "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-L, dev",
    ]  # fmt: skip
    assert list(table.iloc[3]) == ["finetuning checkpoint-10", 2.75, 14.5, 42.0, 0.5, 0.4, 0.48, 0.31]
    plain = runs.systems_table(made_up.without_gold())
    assert "perplexity, held out" not in plain and "ROUGE-L, dev" not in plain and len(plain) == 5
