"""Tests of llama_qna/figures.py, with made-up metrics of a run and the study's real numbers."""

import json
import shutil
import subprocess
import sys

import pytest

from llama_qna import UserError, figures
from llama_qna.variants import REPOSITORY, Variant

PUBLISHED = json.loads((REPOSITORY / "data" / "published_results.json").read_text(encoding="utf-8"))
PRETRAINING_LOG = [{"step": 2 * n, "epoch": n / 2, "loss": 3.0 / n, "learning_rate": 1e-3} for n in range(1, 7)]
FINETUNING_LOG = [{"step": 4 * n, "epoch": n / 3, "loss": 2.0 / n**2, "learning_rate": 1e-3} for n in range(1, 6)]
NAMES = ["training_loss", "perplexity", "rouge", "general_text", "ours_and_published", "summary"]


def system(stage, step, domain, general, rouge1, rouge2, rougeL):
    perplexities = {"domain": domain, "general": general}
    return {
        "name": stage if stage == "base" else f"{stage} checkpoint-{step}",
        "stage": stage,
        "step": step,
        "perplexity": {
            text: {"perplexity": value, "nll": 1.0, "tokens": 10, "bits_per_byte": 0.5}
            for text, value in perplexities.items()
        },
        "rouge": {"rouge1": rouge1, "rouge2": rouge2, "rougeL": rougeL, "questions": 20},
    }


@pytest.fixture
def metrics():
    return {
        "variant": "paper_135m",
        "base_model": "embedded/smollm2-135m-instruct",
        "protocol": {"perplexity": "sliding window", "rouge": "greedy"},
        "systems": [
            system("base", 0, 17.75, 12.0, 0.21, 0.11, 0.19),
            system("pretraining", 6, 6.5, 13.0, 0.22, 0.12, 0.20),
            system("pretraining", 12, 2.5, 15.0, 0.2345, 0.13, 0.21),
            system("finetuning", 10, 2.75, 18.0, 0.50, 0.40, 0.48),
            system("finetuning", 20, 3.0, 21.0, 0.7077, 0.60, 0.68),
        ],
    }


@pytest.fixture
def variant(tmp_path, monkeypatch, metrics):
    """A finished run of the embedded default, short of its figures."""
    (tmp_path / "paper_135m").mkdir()
    shutil.copy(REPOSITORY / "paper_135m" / "variant.yaml", tmp_path / "paper_135m")
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(tmp_path))
    variant = Variant.load("paper_135m")
    for folder, name, content in [
        (variant.evaluation, "metrics.json", metrics),
        (variant.pretraining, "log.json", PRETRAINING_LOG),
        (variant.finetuning, "log.json", FINETUNING_LOG),
    ]:
        folder.mkdir(parents=True)
        (folder / name).write_text(json.dumps(content))
    return variant


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def curves(numbers):
    return {curve["label"]: curve for panel in numbers["panels"] for curve in panel["curves"]}


def test_every_figure_is_drawn_beside_its_numbers(variant):
    assert figures.draw(variant) == [variant.figures / f"{name}.png" for name in NAMES]
    for name in NAMES:
        assert (variant.figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (variant.figures / f"{name}.svg").read_text(encoding="utf-8")
    assert {path.name for path in variant.figures.iterdir()} == {"run.json"} | {
        f"{name}.{ending}" for name in NAMES for ending in ("png", "svg", "json")
    }


def test_the_numbers_of_a_figure_are_what_was_measured(variant):
    figures.draw(variant)
    loss = read(variant.figures, "training_loss")["panels"]
    for panel, log in zip(loss, (PRETRAINING_LOG, FINETUNING_LOG), strict=True):
        assert panel["curves"][0]["step"] == [entry["step"] for entry in log]
        assert panel["curves"][0]["value"] == [entry["loss"] for entry in log]

    perplexity = read(variant.figures, "perplexity")
    domain, general = perplexity["panels"][0]["curves"]
    assert domain["step"] == general["step"] == [0, 6, 12, 22, 32]  # fine-tuning counts on from step 12
    assert domain["value"] == [17.75, 6.5, 2.5, 2.75, 3.0]
    assert general["value"] == [12.0, 13.0, 15.0, 18.0, 21.0]
    assert perplexity["panels"][0]["start"] == 12
    assert perplexity["title"] == "Perplexity on the domain text falls from 17.8 to 2.5 in pretraining"

    rouge = read(variant.figures, "rouge")["panels"]
    assert [panel["title"] for panel in rouge] == ["ROUGE-1", "ROUGE-2", "ROUGE-L"]
    assert [panel["curves"][0]["value"] for panel in rouge] == [[0.50, 0.7077], [0.40, 0.60], [0.48, 0.68]]
    assert rouge[0]["curves"][0]["step"] == [10, 20]
    assert rouge[0]["levels"] == {"after pretraining": 0.2345, "base model": 0.21}

    general_text = read(variant.figures, "general_text")
    assert general_text["panels"][0]["curves"][0]["value"] == pytest.approx([0, 100 / 12, 25, 50, 75])
    assert "+25% after pretraining, +75% after fine-tuning" in general_text["title"]

    both = read(variant.figures, "ours_and_published")["panels"]
    assert both[0]["bars"] == {"base model": [17.75, 6.91, 6.56], "after pretraining": [2.5, 2.4932, 2.4792]}
    assert both[3]["bars"]["after fine-tuning"] == pytest.approx([0.68, 0.6920377, 0.3749711])
    assert [name.split(":")[0] for name in both[0]["names"]] == ["paper_135m", "Paper-7b", "MK-PhysX-7b"]
    assert all("in-sample" in name for name in both[0]["names"])

    left, right = read(variant.figures, "summary")["panels"]
    assert (left["curves"][0]["step"], left["curves"][0]["value"]) == ([0, 6, 12], [17.75, 6.5, 2.5])
    assert (right["curves"][0]["step"], right["curves"][0]["value"]) == ([0, 10, 20], [0.2345, 0.50, 0.7077])


def test_figures_are_drawn_once_and_again_when_a_number_changes(variant, metrics, capsys):
    first = figures.draw(variant)
    before = {path: path.stat().st_mtime_ns for path in first}
    assert figures.draw(variant) == first
    assert {path: path.stat().st_mtime_ns for path in first} == before
    assert "nothing has changed" in capsys.readouterr().out

    metrics["systems"][-1] = system("finetuning", 20, 4.0, 22.0, 0.8, 0.7, 0.75)
    (variant.evaluation / "metrics.json").write_text(json.dumps(metrics))
    figures.draw(variant)
    assert read(variant.figures, "rouge")["panels"][0]["curves"][0]["value"] == [0.50, 0.8]


def test_a_picture_can_be_rebuilt_from_its_numbers_to_the_byte(variant, tmp_path):
    for png in figures.draw(variant):
        again = figures._save(tmp_path, png.stem, read(variant.figures, png.stem))
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


def test_metrics_without_a_stage_are_refused(variant, metrics):
    metrics["systems"] = metrics["systems"][:3]
    (variant.evaluation / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match="hold no finetuning system"):
        figures.draw(variant)


def test_dollar_signs_in_a_description_are_text(tmp_path):
    numbers = {"title": "$\\frac$", "note": "from $5 to $6", "panels": [dict(title="", x="", y="", curves=[])]}
    numbers["panels"][0]["curves"] = [{"label": "a $ b $", "step": [0, 1], "value": [1.0, 2.0]}]
    assert figures._save(tmp_path, "dollars", numbers).is_file()


def test_results_table_holds_the_values_of_both(metrics):
    lines = figures.results_table(metrics, PUBLISHED, "SmolLM2-135M, Wicketfold paper, two CPU cores").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0][1:] == [
        "paper_135m (SmolLM2-135M, Wicketfold paper, two CPU cores)",
        "Paper-7b (Llama-2-7b-chat, CoAxNN paper, one NVIDIA L4)",
        "MK-PhysX-7b (Llama-2-7b-chat, four physics books, one NVIDIA L4)",
    ]
    assert rows[1] == ["---"] * 4
    assert rows[2:] == [
        ["Text perplexity, base model", "17.75", "6.91", "6.56"],
        ["Text perplexity, after pretraining", "2.50", "2.49", "2.48"],
        ["Text perplexity falls by a factor of", "7.10", "2.77", "2.65"],
        ["ROUGE-1, base model", "0.210", "-", "-"],
        ["ROUGE-1, after pretraining", "0.234", "-", "-"],
        ["ROUGE-1, after fine-tuning", "0.708", "0.708", "0.406"],
        ["ROUGE-2, base model", "0.110", "-", "-"],
        ["ROUGE-2, after pretraining", "0.130", "-", "-"],
        ["ROUGE-2, after fine-tuning", "0.600", "0.626", "0.262"],
        ["ROUGE-L, base model", "0.190", "-", "-"],
        ["ROUGE-L, after pretraining", "0.210", "-", "-"],
        ["ROUGE-L, after fine-tuning", "0.680", "0.692", "0.375"],
        ["General-text perplexity, base model", "12.00", "-", "-"],
        ["General-text perplexity, after pretraining", "15.00", "10.33", "-"],
        ["General-text perplexity, after fine-tuning", "21.00", "-", "-"],
    ]
    assert "paper_135m (embedded/smollm2-135m-instruct)" in figures.results_table(metrics, PUBLISHED)


def test_the_last_checkpoint_of_the_study_is_the_one_that_it_chose():
    """The table and the bars take last checkpoints; for the study these must be its `best_checkpoint`s."""
    for key in figures.STUDY:
        systems = figures._study(PUBLISHED, key)["systems"]
        for stage in ("pretraining", "finetuning"):
            last = [system for system in systems if system["stage"] == stage][-1]
            assert last["step"] == PUBLISHED["recipe"][key][stage]["best_checkpoint"]


def test_results_block_is_replaced_and_writing_it_again_changes_nothing(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{figures.BEGIN}\nold\n{figures.END}\n\nafter ü\n", encoding="utf-8")
    figures.write_results_block(readme, "| \\1 | new |\n")
    once = readme.read_text(encoding="utf-8")
    assert once == f"# Title\n\n{figures.BEGIN}\n| \\1 | new |\n{figures.END}\n\nafter ü\n"
    figures.write_results_block(readme, "| \\1 | new |\n")
    assert readme.read_text(encoding="utf-8") == once


@pytest.mark.parametrize("text", ["no marks", figures.BEGIN, f"{figures.END} {figures.BEGIN}", figures.END])
def test_a_readme_without_both_marks_is_left_alone(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="README.md has no"):
        figures.write_results_block(readme, "table")
    assert readme.read_text(encoding="utf-8") == text


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    names = ["published_perplexity", "published_general_text", "published_rouge", "published_training_loss"]
    assert figures.draw_published(folder) == [folder / f"{name}.png" for name in names]
    return {name: read(folder, name) for name in names}


def test_every_published_title_says_what_it_is(redrawn):
    for numbers in redrawn.values():
        assert numbers["title"].startswith("Published (study), one NVIDIA L4, scored on training data\n")


def test_published_perplexity_has_the_real_steps(redrawn):
    paper, physics = curves(redrawn["published_perplexity"]).values()
    assert paper["label"].startswith("Paper-7b") and physics["label"].startswith("MK-PhysX-7b")
    assert paper["step"] == list(range(0, 181, 15))
    assert physics["step"] == [0, 800, 1000, 1200, 1400, 1600, 1800, 2000, 2200, 2400, 2500]
    assert paper["value"] == [6.91, *PUBLISHED["perplexity"]["paper_7b"].values()]
    assert physics["value"] == [6.56, *PUBLISHED["perplexity"]["physics_mk_books_7b"].values()]


def test_published_general_text_starts_at_the_first_checkpoint_measured(redrawn):
    own, other = curves(redrawn["published_general_text"]).values()
    assert own["step"][0] == 0 and other["step"] == own["step"][1:]
    assert "WikiText-2" in other["label"]
    assert other["value"] == list(PUBLISHED["perplexity"]["paper_7b_on_wikitext2"].values())


def test_published_rouge_names_the_right_model(redrawn):
    """The study's own combined figure has the two models the wrong way round."""
    found = curves(redrawn["published_rouge"])
    for key, model in (("paper_7b", "Paper-7b"), ("physics_mk_books_7b", "MK-PhysX-7b")):
        for rouge, label in (("rouge1", "ROUGE-1"), ("rouge2", "ROUGE-2"), ("rougeL", "ROUGE-L")):
            curve = found.pop(f"{model}, {label}")
            assert curve["step"] == [int(step) for step in PUBLISHED["rouge"][key]]
            assert curve["value"] == [scores[rouge] for scores in PUBLISHED["rouge"][key].values()]
    assert not found


def test_published_loss_gets_its_steps_from_the_recipe(redrawn):
    panels = {panel["title"]: panel["curves"][0] for panel in redrawn["published_training_loss"]["panels"]}
    for title, key, stage, every, last in [
        ("Paper-7b: Domain pretraining", "paper_7b", "pretraining", 9, 180),
        ("Paper-7b: Q&A fine-tuning", "paper_7b", "finetuning", 9, 378),
        ("MK-PhysX-7b: Domain pretraining", "physics_mk_books_7b", "pretraining", 10, 2490),
        ("MK-PhysX-7b: Q&A fine-tuning", "physics_mk_books_7b", "finetuning", 10, 2640),
    ]:
        curve = panels.pop(title)
        assert curve["step"] == list(range(every, last + 1, every))
        assert curve["value"] == [entry["loss"] for entry in PUBLISHED["training_loss"][key][stage]]
    assert not panels


def test_drawing_needs_neither_torch_nor_pyplot(tmp_path):
    code = f"""
import sys
from pathlib import Path
sys.modules["torch"] = None  # importing it fails
from llama_qna import figures
figures.draw_published(Path({str(tmp_path)!r}))
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
