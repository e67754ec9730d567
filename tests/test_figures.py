"""Tests of llama_qna/reporting: figures.py, run_figures.py and plot.py on made-up metrics and the study's numbers."""

import json
import shutil
import subprocess
import sys
from base64 import b64decode
from io import BytesIO

import pytest
from PIL import Image

from llama_qna import UserError, publish
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import figures, plot, run_figures
from tests import fixtures_metrics as made_up

WITHOUT_GOLD = ["perplexity", "training_loss"]
NAMES = ["systems", "rouge_and_right", "memory", *WITHOUT_GOLD, "summary"]


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
    return figures.numbers(made_up.sources(metrics), made_up.ABOUT)


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


def test_publishing_replaces_the_committed_figures(variant):
    figures.draw(variant)
    target = variant.root / "figs" / "paper_135m"
    target.mkdir(parents=True)
    (target / "drawn_no_more.png").write_bytes(b"")
    publish._publish_figures(variant)
    assert {path.stem for path in target.iterdir()} == set(NAMES)
    content = figures.numbers(made_up.sources(made_up.metrics()), variant.recipe.description)
    assert {name: read(target, name) for name in NAMES} == content


def test_training_loss_is_what_was_logged(picked):
    panels = picked["training_loss"]["panels"]
    for panel, log in zip(panels, (made_up.PRETRAINING_LOG, made_up.FINETUNING_LOG), strict=True):
        assert panel["curves"][0]["step"] == [entry["step"] for entry in log]
        assert panel["curves"][0]["value"] == [entry["loss"] for entry in log]


def test_a_held_out_loss_stands_beside_the_training_loss_where_it_was_measured():
    points = [{"step": step, "trained_loss": 1.0, "heldout_loss": 3.0 - step} for step in (0, 2)]
    sources = made_up.sources(made_up.metrics()) | {"progress": {"finetuning": {"points": points}}}
    read, tuned = figures.numbers(sources, made_up.ABOUT)["training_loss"]["panels"]
    assert len(read["curves"]) == 1
    assert tuned["curves"][1] == {"label": "held out", "step": [0, 2], "value": [3.0, 1.0]}
    points[0]["heldout_loss"] = points[1]["heldout_loss"] = None
    assert len(figures.numbers(sources, made_up.ABOUT)["training_loss"]["panels"][1]["curves"]) == 1


def test_the_way_tells_what_the_run_made(picked):
    assert "way" not in picked  # no records of the stages
    found = {"load": {"documents": 2, "chunks": 83, "tokens": 11186}, "generate": {"pairs": 129, "rejected": 49}}
    found |= dict.fromkeys(("pretrain", "finetune"), {"steps": 80, "trained_parameters": 19_500_000})
    way = figures.numbers(made_up.sources(made_up.metrics()) | {"results": found}, made_up.ABOUT)["way"]
    (panel,) = way["panels"]
    texts = {box["name"]: box["text"] for row in panel["boxes"] for box in row}
    assert texts["PDF"] == "2 documents" and "11,186" in texts["Clean text"] and "129" in texts["Pairs"]
    assert {name for arrow in panel["arrows"] for name in arrow} == set(texts)
    plot.plot(way)


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
    assert numbers["title"] == "Perplexity in pretraining: trained text 17.8 → 2.5, held-out sections 20 → 14"


def test_memory_stands_beside_understanding(picked):
    numbers = picked["memory"]
    memory, understanding = numbers["panels"][0]["curves"]
    assert memory["step"] == understanding["step"] == [0, 6, 12, 22, 32]
    assert memory["value"] == [0.19, 0.20, 0.21, 0.48, 0.68]
    assert understanding["value"] == [0.18, 0.19, 0.20, 0.31, 0.30]
    assert list(numbers["panels"][0]["levels"].values()) == [0.26]  # the question itself has as much
    assert understanding["low"] == pytest.approx([0.15, 0.16, 0.17, 0.28, 0.27]) and "low" not in memory
    assert understanding["high"] == pytest.approx([0.22, 0.23, 0.24, 0.35, 0.34])


def test_a_system_is_right_says_so_or_is_wrong(picked):
    answerable, unanswerable = picked["systems"]["panels"]
    names = [label for _, label, *_ in made_up.SYSTEMS]
    for panel in (answerable, unanswerable):
        assert [row["name"] for row in panel["shares"]] == names
        assert all(sum(row["parts"].values()) == pytest.approx(1) for row in panel["shares"] if row["parts"])
    rights = [row["parts"]["right"] for row in answerable["shares"]]
    assert rights == pytest.approx([rougeL - 0.1 for *_, rougeL in made_up.SYSTEMS])
    row = answerable["shares"][7]
    assert (row["low"], row["high"]) == (pytest.approx(0.30), pytest.approx(0.40))
    with_evidence = [row["name"] for row in answerable["shares"] if "dot" in row]
    assert with_evidence == ["the best sentence (BM25)", "the gold evidence sentence"]
    asked = [row["name"] for row in unanswerable["shares"] if row["parts"]]
    assert asked == [label for _, label, _, context, _ in made_up.SYSTEMS if context in ("retrieved", "no model")]
    # who is given the right chunk, or is the evidence, is right more often, but is told where the answer stands
    assert picked["systems"]["title"] == "Right: fine-tuned with passages 35%, the best sentence (BM25) 24%"
    assert "50 gold questions" in picked["systems"]["note"]


def test_an_interval_is_drawn_from_low_to_high_and_a_row_without_parts_is_named():
    rows = [{"name": "a", "parts": {"right": 0.3, "wrong": 0.7}, "low": 0.2, "high": 0.5}, {"name": "b", "parts": {}}]
    (axis,) = plot.plot({"title": "", "panels": [dict(title="", x="", shares=rows)]}).axes
    (bar,) = [collection for collection in axis.collections if hasattr(collection, "get_segments")]
    (left, _), (right, _) = bar.get_segments()[0]
    assert (left, right) == (pytest.approx(0.2), pytest.approx(0.5))
    assert [text.get_text() for text in axis.texts] == ["30%", "70%", "not asked"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]


def test_names_at_the_ends_of_curves_do_not_lie_on_each_other():
    curves = [{"label": label, "step": [0, 1], "value": [1.0, 0.5]} for label in ("one", "two", "three")]
    (axis,) = plot.plot({"title": "", "panels": [dict(title="", x="", y="", curves=curves)]}).axes
    heights = sorted(text.xy[1] for text in axis.texts)
    assert len(heights) == 3 and all(above - below > 0.05 for below, above in zip(heights, heights[1:], strict=False))


def test_rouge_stands_beside_right(picked):
    numbers = picked["rouge_and_right"]
    values = {row["name"]: row["values"] for row in numbers["panels"][0]["dots"]}
    assert values["the question itself"] == pytest.approx({"ROUGE-L": 0.27, "right": 0.17})
    assert numbers["title"] == "The question itself as the answer: ROUGE-L 0.27, right 17%"


def test_evidence_is_the_marked_part_of_the_page(tmp_path):
    page = Image.new("RGB", (600, 2000), "white")
    page.paste("yellow", (50, 980, 550, 1020))
    content = figures.evidence("Why?", "Because.", "a paper, page 1", page, [(25, 490, 275, 510)], scale=2)
    png = plot.save(tmp_path, "evidence", content)
    shown = Image.open(BytesIO(b64decode(read(tmp_path, "evidence")["panels"][0]["picture"]))).convert("RGB")
    assert shown.width == 600 and shown.height == 40 + 2 * 2 * figures.AROUND
    assert shown.getpixel((300, shown.height // 2)) == (255, 255, 0)
    assert png.is_file() and content["title"] == "Why?" and "page 1" in content["note"]


def test_summary_shows_answering_and_reading(picked):
    left, right = picked["summary"]["panels"]
    assert right["curves"] == picked["perplexity"]["panels"][0]["curves"]
    names = [row["name"] for row in left["shares"]]
    assert names == [label for name, label, *_ in made_up.SYSTEMS if name in run_figures.SHORT]


def test_figures_are_drawn_once_and_again_when_a_number_changes(variant, capsys):
    first = figures.draw(variant)
    before = {path: path.stat().st_mtime_ns for path in first}
    assert figures.draw(variant) == first
    assert {path: path.stat().st_mtime_ns for path in first} == before
    assert "nothing has changed" in capsys.readouterr().out

    content = made_up.metrics()
    content["checkpoints"][-1]["sample"]["rouge"]["rougeL"] = 0.8
    measured(variant, content)
    figures.draw(variant)
    assert read(variant.figures, "memory")["panels"][0]["curves"][0]["value"][-1] == 0.8


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
