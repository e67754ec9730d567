"""Tests of reporting/results.py and reporting/tables.py: what the tables of runs hold."""

import json

import pytest

from llama_qna import UserError
from llama_qna.project.code import code_hash
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import figures, results
from llama_qna.reporting.tables import as_text, checkpoints_table, seconds_of, systems_table, times_table
from llama_qna.run import summary
from tests import fixtures_metrics as made_up
from tests.fixtures_results import root_fixture, tables  # noqa: F401

PUBLISHED = json.loads((REPOSITORY / "data" / "published_results.json").read_text(encoding="utf-8"))


def block(**metrics):
    runs = {name: results.Run(found, f"about {name}", "paper", []) for name, found in metrics.items()}
    return results.results_block(runs, PUBLISHED)


def test_heldout_tables_hold_every_system_with_its_intervals():
    leading, overlap, _ = tables(block(paper_135m=made_up.metrics()))
    shown = ["evidence", "page", "answer or evidence", "says so, unanswerable", "says so, answerable"]
    assert leading[0] == ["system", "right", "right, not copied", "new words F1", *shown]
    assert overlap[0] == ["system", "ROUGE-1", "ROUGE-2", "ROUGE-L", "F1", "exact match"]
    for table in (leading, overlap):
        assert [row[0] for row in table[2:]] == [label for _, label, *_ in made_up.SYSTEMS]
    row = next(row for row in leading if row[0] == "fine-tuned with passages")
    means = ["0.350 [0.300, 0.400]", "0.090 [0.040, 0.140]", "0.400 [0.350, 0.450]"]
    assert row[1:] == [*means, "-", "-", "-", "0.300 [0.250, 0.350]", "0.100 [0.050, 0.150]"]
    row = next(row for row in overlap if row[0] == "fine-tuned with passages")
    assert row[3:] == ["0.450 [0.400, 0.500]", "0.430 [0.380, 0.480]", "0.080 [0.030, 0.130]"]
    best = next(row for row in leading if row[0].startswith("the best sentence"))
    assert best[4] == "0.400 [0.350, 0.450]"


def test_findings_state_the_differences_and_their_price():
    text = block(paper_135m=made_up.metrics())
    assert "**Held out: paper_135m** (about paper_135m). 50 gold questions" in text and "25 unanswerable" in text
    gain, close = "+0.130 [+0.080, +0.180] (better)", "+0.040 [-0.010, +0.090] (no clear difference)"
    above = "+0.060 [+0.010, +0.110] (better)"
    retrieved, best = "+0.120 [+0.070, +0.170] (better)", "+0.110 [+0.060, +0.160] (better)"
    tuned = "- fine-tuned against"
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        f"{tuned} base: right {gain}, new words F1 {gain}",
        f"{tuned} fine-tuned without pretraining: right {close}, new words F1 {close}",
        f"{tuned} the question itself: right {above}, new words F1 {above}, ROUGE-L {above}",
        f"- base with passages against base: right {retrieved}, new words F1 {retrieved}",
        "- best of the models (fine-tuned with passages) against the best sentence (BM25): "
        f"right {best}, new words F1 {best}",
        "- general-text perplexity, base → shipped checkpoint (finetuning checkpoint-10): 40.00 → 42.00 (+5.0%)",
    ]


def test_likelihood_of_references_stands_beside_the_answers_where_it_was_measured():
    metrics = made_up.metrics()
    by_name = {system["name"]: system for system in metrics["systems"]}
    by_name["finetuned"]["scores"]["log_likelihood"] = {"mean": -2.5, "low": -3.0, "high": -2.0}
    by_name["finetuned"]["against"]["finetuned_only"]["log_likelihood"] = {
        "mean": 0.9, "low": 0.4, "high": 1.4, "p": 0.001, "p_holm": 0.002
    }  # fmt: skip
    text = block(paper_135m=metrics)
    _, heldout, _ = tables(text)
    assert heldout[0][-1] == "reference's log-likelihood a token"
    assert {row[0]: row[-1] for row in heldout[2:]}["fine-tuned"] == "-2.500 [-3.000, -2.000]"
    assert [row[-1] for row in heldout[2:]].count("-") == len(made_up.SYSTEMS) - 1
    assert "reference's log-likelihood a token +0.900 [+0.400, +1.400] (better)" in text


def test_a_lost_comparison_is_said_plainly():
    metrics = made_up.metrics()
    for system in metrics["systems"]:
        if "best_sentence" in system["against"]:
            system["against"]["best_sentence"]["right"] |= {"mean": -0.1, "low": -0.2, "high": -0.01}
    text = block(paper_135m=metrics)
    assert "against the best sentence (BM25): right -0.100 [-0.200, -0.010] (worse)" in text


def test_a_run_without_fine_tuning_only_is_not_compared_with_it():
    metrics = made_up.metrics()
    metrics["systems"] = [system for system in metrics["systems"] if system["name"] != "finetuned_only"]
    for system in metrics["systems"]:
        system["against"].pop("finetuned_only")
    text = block(paper_135m=metrics)
    assert "fine-tuned without pretraining" not in text and "fine-tuned against base" in text
    assert list(systems_table(metrics).system) == [
        label for name, label, *_ in made_up.SYSTEMS if name != "finetuned_only"
    ]
    points = figures.numbers(made_up.sources(metrics), "about")["systems"]["panels"][0]["shares"]
    assert len(points) == len(made_up.SYSTEMS) - 1


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
        ["Text perplexity, after pretraining", "2.50", "2.50", "2.49", "2.47"],
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
    without_right = made_up.metrics()
    del without_right["systems"][0]["scores"]["right"]
    for old in (without_right, {"variant": "paper_135m", "systems": [{"name": "base", "scores": {}}]}):
        with pytest.raises(UserError, match="the metrics of paper_135m are of an older form: evaluate and publish"):
            block(paper_135m=old)


def test_the_last_checkpoint_of_the_study_is_the_one_that_it_chose():
    """The table and the bars take last checkpoints; for the study these must be its `best_checkpoint`s."""
    for key in results.STUDY:
        model = results.study(PUBLISHED, key)
        for stage in ("pretraining", "finetuning"):
            assert results.last(model, stage, "step") == PUBLISHED["recipe"][key][stage]["best_checkpoint"]


def test_summary_shows_memory_and_heldout_scores_and_says_which_is_which(root, monkeypatch):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    variant = Variant.load("paper_135m")
    variant.evaluation.mkdir(parents=True)
    (variant.evaluation / "metrics.json").write_text(json.dumps(made_up.metrics()))
    record = {"stage": "pretrain", "code": code_hash("pretrain"), "outputs": {}, "seconds": 12.0}
    variant.pretraining.mkdir()
    (variant.pretraining / "run.json").write_text(json.dumps(record | {"results": {"seconds_of_steps": 340.0}}))
    lines = summary(variant).splitlines()
    assert ["pretrain", "340"] in [line.split() for line in lines], "of all its starts, and not of the last alone"
    assert [line.split() for line in lines if line.startswith("ROUGE-L,")] == [
        ["ROUGE-L,", "fine-tuning", "0.210", "0.680"]
    ]
    (shown,) = [line for line in lines if line.startswith("fine-tuned with passages")]
    assert shown.removeprefix("fine-tuned with passages").split("  ")[-1].strip() == "0.450 [0.400, 0.500]"
    assert "0.350 [0.300, 0.400]" in shown
    assert "in-sample" in lines[-1] and "held out" in lines[-1]

    (variant.evaluation / "metrics.json").write_text(json.dumps(made_up.without_gold()))
    lines = summary(variant).splitlines()
    assert "in-sample" in lines[-1] and not any("held out" in line for line in lines)


def test_table_of_checkpoints_has_a_column_for_what_was_measured():
    table = checkpoints_table(made_up.metrics())
    assert list(table.columns) == [
        "checkpoint", "perplexity, text", "perplexity, held out", "perplexity, general",
        "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-L, dev",
    ]  # fmt: skip
    assert list(table.iloc[3]) == ["finetuning checkpoint-10", 2.75, 14.5, 42.0, 0.5, 0.4, 0.48, 0.31]
    plain = checkpoints_table(made_up.without_gold())
    assert "perplexity, held out" not in plain and "ROUGE-L, dev" not in plain and len(plain) == 5


def test_table_of_systems_has_a_row_for_what_was_asked():
    table = systems_table(made_up.metrics())
    assert list(table.columns) == ["system", *(f"{n} [95% interval]" for n in ("right", "new words F1", "ROUGE-L"))]
    assert list(table.system) == [label for _, label, *_ in made_up.SYSTEMS]
    means = ["0.350 [0.300, 0.400]", "0.400 [0.350, 0.450]", "0.450 [0.400, 0.500]"]
    assert list(table.iloc[7]) == ["fine-tuned with passages", *means]
    assert systems_table(made_up.without_gold()).empty
    lines = as_text(table).splitlines()
    assert lines[8].split("  ")[0] == "fine-tuned with passages"
    assert {line.index("0.") for line in lines[1:]} == {lines[0].index("right")}


def test_a_training_that_went_on_took_the_seconds_of_all_its_starts(root):
    assert seconds_of({"seconds": 137.3, "results": {"seconds_of_steps": 237.0}}) == 237.0
    assert seconds_of({"seconds": 402.6, "results": {"seconds_of_steps": 398.4}}) == 402.6
    assert seconds_of({"seconds": 5.0, "results": {}}) == 5.0
    folder = root / "paper_135m"
    (folder / "pretraining_paper").mkdir()
    record = {"seconds": 90.0, "results": {"seconds_of_steps": 280.0}, "machine": {"gpu": None, "cores": 2}}
    (folder / "pretraining_paper" / "run.json").write_text(json.dumps(record))
    assert times_table(root, "pretraining").loc["paper_135m", "CPU, minutes"] == "4.7 (2 CPU cores)"
