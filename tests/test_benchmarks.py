"""The benchmarks at their smallest, and the page that is made of their results."""

import json
import subprocess
import sys

import pytest
from pypdfium2 import PdfDocument

from benchmarks import page, report, serving, step_profile, whole_run
from benchmarks.__main__ import main
from benchmarks.job import SIZES, Job
from benchmarks.measures import STAGES, machine_name, ratios, rows, share, summary
from benchmarks.pages import document
from llama_qna.models.base import EMBEDDED
from llama_qna.models.shapes import shapes_of
from llama_qna.project import marked, provenance
from llama_qna.project.files import write_json
from llama_qna.project.variant import REPOSITORY, Variant


def measurement(seconds, items, tokens, computed=0, calls=0, peak_gib=1.0):
    return dict(seconds=seconds, items=items, tokens=tokens, computed=computed, calls=calls, peak_gib=peak_gib)


def content():
    """Two rounds of two stages on a machine that does not exist."""
    facts = {"variant": "paper_135m", "date": "2026-01-02", "git": {"commit": "0123456789abcdef"}, "limits": []}
    facts["limits"] = [{"matmul": 4e11, "copy": 1e10}, {"matmul": 6e11, "copy": 1e10}]
    training = {"study": [measurement(10, 1, 1000, peak_gib=8.0), measurement(20, 1, 1000, peak_gib=8.0)]}
    training["ours"] = [measurement(5, 1, 1500, peak_gib=2.0), measurement(5, 1, 2000, peak_gib=2.0)]
    asking = {"study": [measurement(4, 2, 40, 80, 40)] * 2, "ours": [measurement(1, 2, 40, 160, 20)] * 2}
    machine = {"cpu": "Some(R) CPU @ 2.00GHz", "cores": 2, "memory_gb": 8.0, "gpu": None}
    return {"machine": machine, "stages": {"training": facts | training, "asking": facts | asking}}


def test_ratios_are_of_rates_in_the_same_round():
    stages = content()["stages"]
    assert ratios("training", stages["training"]) == pytest.approx([3.0, 8.0])  # tokens a second
    assert ratios("asking", stages["asking"]) == pytest.approx([4.0, 4.0])  # answers a second


def test_share_of_the_limit_that_binds():
    stages, (shapes, _) = content()["stages"], shapes_of(EMBEDDED)
    weights = shapes.linear_weights
    found, limit = share("asking", stages["asking"]["study"][0], stages["asking"])
    assert (found, limit) == (pytest.approx(2 * weights * 40 / 4 / 1e10), "memory")
    adapters = 30 * 64 * (576 + 576 + 576 + 192)
    token = 4 * (weights + 49152 * 576) + 6 * adapters
    found, limit = share("training", stages["training"]["ours"][0], stages["training"])
    assert (found, limit) == (pytest.approx(300 * token / 5e11), "products")
    assert share("extraction", measurement(1, 8, 0), stages["asking"]) is None


def test_table_holds_medians_and_spread():
    table = rows(content())
    assert [(row["stage"], row["way"]) for row in table[:2]] == [("training", "the study's way"), ("training", "ours")]
    assert (table[1]["useful tokens/s"], table[1]["times as fast"]) == ("350", "5.5 [3.0, 8.0]")
    assert table[3]["items/s"] == "2.00 answers" and table[3]["peak GiB"] == "1.00"
    assert len(summary(content()).splitlines()) == 5


def test_page_names_machine_commit_and_limits():
    text = report.page([content()], None, None, [])
    assert "## Some(R) CPU @ 2.00GHz, 2 cores, 8.0 GB" in text
    assert "2026-01-02, 0123456789, 2 rounds" in text and "500 GFLOP/s, 10.0 GB/s" in text and "25% in training" in text
    figure = report.numbers([content()])
    assert figure["panels"][0]["bars"]["ours"] == pytest.approx([5.5, 4.0])
    assert figure["panels"][1]["bars"] == {"the study's way": [8.0, 1.0], "ours": [2.0, 1.0]}


def test_page_says_which_goals_were_missed_and_where_the_time_goes():
    kinds = {step_profile.MATRICES: {"seconds": 1.0, "operations": 10**12}, step_profile.PASSES: {"seconds": 3.0}}
    kinds[step_profile.PASSES]["operations"] = 0
    profile = {"seconds": 4.0, "steps": 2, "tokens": 4000, "kinds": kinds, "limits": {"matmul": 2e12, "copy": 8e9}}
    about = {"date": "2026-01-02", "git": None, "variant": "paper_135m"}
    run = about | {"seconds": 660.0, "seconds_of": {"load": 60.0, "pretrain": 300.0}}
    text = report.page([content()], profile | about, run, [])
    assert "| training, times as fast | 3 | 5.5 | reached |" in text
    assert "| training, peak memory of the study's | 20% | 25% | **missed** |" in text
    assert "| `make run` after installation, minutes | 8 | 11.0 | **missed** |" in text
    assert f"| {step_profile.MATRICES} | 500 | 25% | 1.00 |" in text and "2000 tokens and 2.00 s a step" in text
    assert "| notebooks: kernels, imports, figures | 300 |" in text


def test_operations_of_a_step_are_told_apart():
    def kind(name, *shapes):
        return step_profile.kind(name, [list(shape) for shape in shapes], 49152, 64)

    assert kind("aten::mm", (100, 576), (576, 960)) == step_profile.MATRICES
    assert (
        kind("aten::mm", (100, 576), (576, 128))
        == kind("aten::addmm_", (9, 9), (9, 64), (64, 9))
        == step_profile.ADAPTERS
    )
    assert kind("aten::mm", (100, 576), (576, 49152)) == step_profile.HEAD
    assert kind("aten::bmm", (3, 8, 64), (3, 64, 8)) == step_profile.ATTENTION
    assert kind("aten::_softmax_backward_data", (3, 8)) == step_profile.WEIGHTS
    assert kind("aten::mul", (3, 8), (3, 8)) == step_profile.PASSES
    assert kind("_NormBackward") == step_profile.BETWEEN
    assert step_profile.operations("aten::mm", [[100, 576], [576, 960], [100, 960]]) == 2 * 100 * 576 * 960
    assert step_profile.operations("aten::baddbmm_", [[3, 8, 5], [3, 8, 64], [3, 64, 5]]) == 2 * 3 * 8 * 64 * 5
    assert step_profile.operations("aten::addmm_", [[8, 5], [8, 64], [64, 5]]) == 2 * 8 * 64 * 5
    assert step_profile.operations("aten::mul", [[8, 5], [8, 5]]) == 0


def test_whole_run_is_read_from_its_records(tmp_path, monkeypatch):
    variant = Variant("paper_135m", tmp_path, Variant.load("paper_135m").recipe)
    monkeypatch.setattr(whole_run.Variant, "load", lambda name: variant)
    monkeypatch.setattr(whole_run, "REPOSITORY", tmp_path)
    for seconds, stage in enumerate(whole_run.STAGES):
        about = {"git": None, "machine": {}, "versions": {}, "finished": "2026-01-02T03:04:05", "seconds": seconds}
        variant.stage_folders[stage].mkdir(parents=True)
        write_json(variant.stage_folders[stage] / "run.json", about)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    whole_run.main("100")
    found = json.loads((tmp_path / "benchmarks/results/run.json").read_text())
    assert found["seconds_of"]["figures"] == 5 and found["seconds"] == 100 and found["date"] == "2026-01-02"


def test_committed_page_and_figure_are_those_of_the_committed_results():
    contents = report.machines()
    assert report.PAGE.read_text(encoding="utf-8") == report.page(contents, **report.others())
    figure = REPOSITORY / "figs/performance.json"
    if contents:
        assert json.loads(figure.read_text(encoding="utf-8")) == report.numbers(contents)
        assert all(facts["size"] == "full" and len(facts["ours"]) >= 3 for facts in contents[0]["stages"].values())
    assert figure.exists() == bool(contents)


def test_machine_is_named_by_its_hardware():
    assert machine_name(content()["machine"]) == "some-cpu-2-cores"
    assert machine_name(content()["machine"] | {"gpu": "NVIDIA H100 80GB HBM3"}) == "nvidia-h100-80gb-hbm3"


def test_document_has_as_many_pages_as_wanted():
    job = Job(Variant.load("paper_135m"), SIZES["full"] | {"pages": 100})  # more than all that are shipped
    with document(job) as path:
        with PdfDocument(path) as pdf:
            assert len(pdf) == 100
    assert not path.exists()


@pytest.mark.slow
def test_one_stage_is_measured_in_both_ways(tmp_path, capsys):
    assert main(["extraction", "--rounds", "1", "--size", "small", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.stem == machine_name(provenance.machine())
    facts = json.loads(path.read_text())["stages"]["extraction"]
    assert [facts[way][0]["items"] for way in ("study", "ours")] == [8, 8]
    assert all(facts[way][0]["seconds"] > 0 and facts[way][0]["peak_gib"] > 0.01 for way in ("study", "ours"))
    assert facts["limits"][0]["matmul"] > 0 and facts["limits"][0]["copy"] > 0
    assert "pages" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("way", ["study", "ours"])
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "extraction"])
def test_every_stage_runs(stage, way):
    if stage in ("sweep", "asking") and not (Variant.load("paper_135m").finetuning / "run.json").is_file():
        pytest.skip("needs a finished run of paper_135m (make run)")
    command = [sys.executable, "-m", "benchmarks.job", stage, way, "paper_135m", "small"]
    child = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert child.returncode == 0, child.stderr[-2000:]
    facts = json.loads(child.stdout.splitlines()[-1])
    assert facts["seconds"] > 0 and facts["peak_gib"] > 0.1
    assert facts["items"] > 0 and (facts["tokens"] > 0 or stage == "generation")  # a question may be its form alone
    assert facts["calls"] > 0 or stage == "training"
    if stage == "sweep":
        assert facts["items"] == SIZES["small"]["checkpoints"]


@pytest.mark.parametrize(
    "of, page", [(serving, "docs/serving.md"), (page, "docs/page/README.md")], ids=["serving", "page"]
)
def test_pages_hold_the_tables_of_their_results(of, page):
    assert marked.read(REPOSITORY / page, "measured") == of.table(json.loads(of.RESULTS.read_text())).rstrip() + "\n"
