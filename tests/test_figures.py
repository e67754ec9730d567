"""Tests of llama_qna/reporting/figures.py and plot.py, with made-up metrics of a run and the study's real numbers."""

import json
import shutil
import subprocess
import sys

import pytest

from llama_qna import UserError, publish
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import figures, plot
from tests import fixtures_metrics as made_up

PUBLISHED = json.loads((REPOSITORY / "data" / "published_results.json").read_text(encoding="utf-8"))
WITHOUT_GOLD = ["perplexity", "training_loss", "rouge", "ours_and_published", "summary"]
NAMES = ["systems", "memory_and_understanding", *WITHOUT_GOLD]


@pytest.fixture
def variant(tmp_path, monkeypatch):
    """A finished run of the embedded default, short of its figures."""
    (tmp_path / "paper_135m").mkdir()
    shutil.copy(REPOSITORY / "paper_135m" / "variant.yaml", tmp_path / "paper_135m")
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(tmp_path))
    variant = Variant.load("paper_135m")
    for folder, name, content in [
        (variant.evaluation, "metrics.json", made_up.metrics()),
        (variant.pretraining, "log.json", made_up.PRETRAINING_LOG),
        (variant.finetuning, "log.json", made_up.FINETUNING_LOG),
    ]:
        folder.mkdir(parents=True)
        (folder / name).write_text(json.dumps(content))
    return variant


@pytest.fixture
def picked():
    """The numbers of every figure of the made-up run."""
    return pick(made_up.metrics())


def pick(metrics):
    return figures.numbers(metrics, made_up.PRETRAINING_LOG, made_up.FINETUNING_LOG, PUBLISHED, made_up.ABOUT)


def measured(variant, content):
    (variant.evaluation / "metrics.json").write_text(json.dumps(content))


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_every_figure_is_drawn_beside_its_numbers(variant):
    assert figures.draw(variant) == [variant.figures / f"{name}.png" for name in NAMES]
    for name in NAMES:
        assert (variant.figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (variant.figures / f"{name}.svg").read_text(encoding="utf-8")
    assert {path.name for path in variant.figures.iterdir()} == {"run.json"} | {
        f"{name}.{ending}" for name in NAMES for ending in ("png", "svg", "json")
    }


def test_a_run_without_gold_questions_has_no_figures_of_them(variant):
    measured(variant, made_up.without_gold())
    assert figures.draw(variant) == [variant.figures / f"{name}.png" for name in WITHOUT_GOLD]
    assert {path.stem for path in variant.figures.glob("*.png")} == set(WITHOUT_GOLD)
    assert [curve["label"] for curve in read(variant.figures, "perplexity")["panels"][0]["curves"]] == [
        "trained text",
        "general text",
    ]
    summary = read(variant.figures, "summary")
    right = summary["panels"][1]["curves"][-1]
    assert (right["label"], right["step"], right["value"]) == ("ROUGE-L", [0, 10, 20], [0.21, 0.48, 0.68])
    assert "in-sample" in summary["note"]


def test_publishing_replaces_the_committed_figures(variant):
    figures.draw(variant)
    target = variant.root / "figs" / "paper_135m"
    target.mkdir(parents=True)
    (target / "drawn_no_more.png").write_bytes(b"")
    publish._publish_figures(variant)
    assert {path.stem for path in target.iterdir()} == set(NAMES)
    content = figures.numbers(
        made_up.metrics(), made_up.PRETRAINING_LOG, made_up.FINETUNING_LOG, PUBLISHED, variant.recipe.description
    )
    assert {name: read(target, name) for name in NAMES} == content


def test_training_loss_is_what_was_logged(picked):
    panels = picked["training_loss"]["panels"]
    for panel, log in zip(panels, (made_up.PRETRAINING_LOG, made_up.FINETUNING_LOG), strict=True):
        assert panel["curves"][0]["step"] == [entry["step"] for entry in log]
        assert panel["curves"][0]["value"] == [entry["loss"] for entry in log]


def test_perplexity_of_three_texts_stands_in_one_picture(picked):
    numbers = picked["perplexity"]
    (panel,) = numbers["panels"]
    trained, heldout, general = panel["curves"]
    for curve in panel["curves"]:
        assert curve["step"] == [0, 6, 12, 22, 32]  # fine-tuning counts on from step 12
    assert trained["value"] == [17.75, 6.5, 2.5, 2.75, 3.0]
    assert heldout["value"] == [20.0, 15.0, 14.0, 14.5, 15.0]
    assert general["value"] == [40.0, 40.5, 41.0, 42.0, 43.0]
    assert panel["marks"] == {"fine-tuning starts": 12, "shipped checkpoint": 22}
    assert numbers["title"] == (
        "Pretraining: perplexity 17.8 → 2.5 on trained text, 20 → 14 held out;\n"
        "general text 40 → 42 (+5.0%) at the shipped checkpoint"
    )


def test_memory_stands_beside_understanding(picked):
    numbers = picked["memory_and_understanding"]
    memory, understanding = numbers["panels"][0]["curves"]
    assert memory["step"] == understanding["step"] == [0, 6, 12, 22, 32]
    assert memory["value"] == [0.19, 0.20, 0.21, 0.48, 0.68]
    assert understanding["value"] == [0.18, 0.19, 0.20, 0.31, 0.30]
    assert list(numbers["panels"][0]["levels"].values()) == [0.26]  # the question itself has as much
    assert understanding["low"] == pytest.approx([0.15, 0.16, 0.17, 0.28, 0.27]) and "low" not in memory
    assert understanding["high"] == pytest.approx([0.22, 0.23, 0.24, 0.35, 0.34])
    # the title is about the checkpoint that ships, not about the last one
    assert "0.19 → 0.48 on training questions" in numbers["title"]
    assert "0.18 → 0.31 on held-out questions" in numbers["title"]
    assert "87 training questions; 30 gold questions of the fold dev" in numbers["note"]


def test_systems_stand_with_their_intervals_beside_the_base(picked):
    numbers = picked["systems"]
    right, new_words = numbers["panels"]
    rouge = [rougeL for *_, rougeL in made_up.SYSTEMS]
    assert [point["name"] for point in right["points"]] == [label for _, label, *_ in made_up.SYSTEMS]
    assert [point["mean"] for point in right["points"]] == pytest.approx([mean - 0.1 for mean in rouge])
    assert [point["mean"] for point in new_words["points"]] == pytest.approx([mean - 0.05 for mean in rouge])
    assert [(point["low"], point["high"]) for point in right["points"][7:8]] == [
        (pytest.approx(0.30), pytest.approx(0.40))
    ]
    best = "the best sentence (BM25)"
    assert (right["levels"], new_words["levels"]) == ({best: pytest.approx(0.24)}, {best: pytest.approx(0.29)})
    kinds = ["the question alone"] * 4 + ["with retrieved chunks"] * 2 + ["with the right chunk"]
    assert [point["kind"] for point in right["points"]] == ["no model"] * 2 + kinds + ["no model"]
    # who is given the right chunk, or is the evidence, scores more, but is told where the answer stands
    assert numbers["title"] == (
        f"Held-out questions, best model: fine-tuned with passages\nright 0.350, +0.110 [+0.060, +0.160] against {best}"
    )
    assert "50 gold questions" in numbers["note"] and "base given the right chunk is a bound" in numbers["note"]
    assert "the gold evidence sentence is a bound" in numbers["note"]


def test_an_interval_is_drawn_from_low_to_high():
    points = [{"name": "a", "kind": "k", "mean": 0.3, "low": 0.2, "high": 0.5}]
    panel = dict(title="", x="ROUGE-L (0-1)", y="", points=points, levels={"base": 0.1})
    (axis,) = plot.plot({"title": "", "panels": [panel]}).axes
    (bar,) = [collection for collection in axis.collections if hasattr(collection, "get_segments")]
    (left, row), (right, _) = bar.get_segments()[0]
    assert (left, right, row) == (pytest.approx(0.2), pytest.approx(0.5), 0)
    assert [text.get_text() for text in axis.texts] == ["0.300"]


def test_rouge_is_of_the_training_questions(picked):
    numbers = picked["rouge"]
    panels = numbers["panels"]
    assert [panel["title"] for panel in panels] == ["ROUGE-1", "ROUGE-2", "ROUGE-L"]
    assert [panel["curves"][0]["value"] for panel in panels] == [[0.50, 0.7077], [0.40, 0.60], [0.48, 0.68]]
    assert panels[0]["curves"][0]["step"] == [10, 20]
    assert panels[0]["levels"] == {"after pretraining": 0.2345, "base model": 0.21}
    assert numbers["title"] == "ROUGE-L on the training questions rises from 0.21 to 0.68 in fine-tuning"


def test_ours_stands_beside_the_study_by_its_own_arithmetic(picked):
    both = picked["ours_and_published"]
    panels = both["panels"]
    assert panels[0]["bars"] == {"base model": [18.0, 6.91, 6.56], "after pretraining": [3.0, 2.4932, 2.4792]}
    assert panels[3]["bars"]["after fine-tuning"] == pytest.approx([0.69, 0.6920377, 0.3749711])
    assert [name.split(":")[0] for name in panels[0]["names"]] == ["paper_135m", "Paper-7b", "MK-PhysX-7b"]
    assert all("in-sample" in name for name in panels[0]["names"])
    assert "all by the study's arithmetic" in both["note"]


def test_without_the_studys_arithmetic_our_last_checkpoints_stand_beside_it():
    both = pick(made_up.without_gold())["ours_and_published"]
    assert both["panels"][0]["bars"]["base model"][0] == 17.75
    assert both["panels"][3]["bars"]["after fine-tuning"][0] == 0.68
    assert "last checkpoint of each stage" in both["note"]


def test_summary_shows_reading_and_answering(picked):
    left, right = picked["summary"]["panels"]
    assert left | {"title": ""} == picked["perplexity"]["panels"][0]
    assert right["points"] == picked["systems"]["panels"][0]["points"]


def test_figures_are_drawn_once_and_again_when_a_number_changes(variant, capsys):
    first = figures.draw(variant)
    before = {path: path.stat().st_mtime_ns for path in first}
    assert figures.draw(variant) == first
    assert {path: path.stat().st_mtime_ns for path in first} == before
    assert "nothing has changed" in capsys.readouterr().out

    content = made_up.metrics()
    content["checkpoints"][-1]["rouge"]["rouge1"] = 0.8
    measured(variant, content)
    figures.draw(variant)
    assert read(variant.figures, "rouge")["panels"][0]["curves"][0]["value"] == [0.50, 0.8]


def test_a_picture_can_be_rebuilt_from_its_numbers_to_the_byte(variant, tmp_path):
    for png in figures.draw(variant):
        again = plot.save(tmp_path, png.stem, read(variant.figures, png.stem))
        for ending in (".png", ".svg", ".json"):
            assert again.with_suffix(ending).read_bytes() == png.with_suffix(ending).read_bytes(), png.stem + ending


@pytest.mark.parametrize(
    "stage, name, message",
    [
        ("evaluation", "metrics.json", "no metrics yet for paper_135m: run `llama-qna evaluate paper_135m` first"),
        ("pretraining", "log.json", "no log yet for paper_135m: run `llama-qna pretrain paper_135m` first"),
        ("finetuning", "log.json", "no log yet for paper_135m: run `llama-qna finetune paper_135m` first"),
    ],
)
def test_a_missing_input_names_the_stage_that_makes_it(variant, stage, name, message):
    (getattr(variant, stage) / name).unlink()
    with pytest.raises(UserError) as error:
        figures.draw(variant)
    assert str(error.value) == message
    assert not variant.figures.exists()


def test_metrics_without_a_stage_are_refused(variant):
    content = made_up.metrics()
    measured(variant, content | {"checkpoints": content["checkpoints"][:3]})
    with pytest.raises(UserError, match="the metrics of paper_135m hold no finetuning checkpoint"):
        figures.draw(variant)
    assert not variant.figures.exists()


def test_dollar_signs_in_a_description_are_text(tmp_path):
    numbers = {"title": "$\\frac$", "note": "from $5 to $6", "panels": [dict(title="", x="", y="", curves=[])]}
    numbers["panels"][0]["curves"] = [{"label": "a $ b $", "step": [0, 1], "value": [1.0, 2.0]}]
    assert plot.save(tmp_path, "dollars", numbers).is_file()


def test_drawing_needs_neither_torch_nor_pyplot(tmp_path):
    code = f"""
import sys
from pathlib import Path
sys.modules["torch"] = None  # importing it fails
from llama_qna.reporting import figures
figures.draw_published(Path({str(tmp_path)!r}))
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
