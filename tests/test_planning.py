"""`models.planning` and `models.forecast`: the plan before a stage, to which it keeps, and what the terminal prints."""

import json
from dataclasses import replace

import pytest

from llama_qna import UserError
from llama_qna.models import device, forecast, plan, planning, shapes
from llama_qna.models.device import GIB, available_memory
from llama_qna.models.plan import Batch, memory, plan_stage
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.training import stages
from llama_qna.training.stages import finetune, pretrain
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture  # noqa: F401


@pytest.fixture(autouse=True)
def repository_root(monkeypatch):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(REPOSITORY))


def losses(folder):
    return [row["loss"] for row in json.loads((folder / "log.json").read_text())]


def test_stage_in_little_memory_takes_the_same_steps(shallow_variant, monkeypatch, capsys):
    """Half of the rows at once, twice a step: the same losses, with replay too, as all at once."""
    found, counted = [], memory

    def too_much_at_once(shapes, recipe, stage, batch, device):
        return counted(shapes, recipe, stage, batch, device) | ({"more": 2**50} if batch.rows > 8 else {})

    settings = {"replay_tokens": 128, "batch_size": 16}
    variant = shared.write_variant(shallow_variant.root, shallow_variant.recipe.base_model, **settings)
    for halved in (False, True):
        if halved:
            monkeypatch.setattr(plan, "memory", too_much_at_once)
            monkeypatch.setattr(plan, "WHOLE_ENOUGH", 1)
            (variant.pretraining / "run.json").unlink()
        pretrain(variant)
        found.append(losses(variant.pretraining))
    printed = capsys.readouterr().out
    assert "16 rows of up to 64 tokens at once (steps of 16 rows)" in printed
    assert "8 rows of up to 64 tokens at once, 2 times a step (steps of 16 rows)" in printed
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_stage_that_does_not_fit_is_refused_before_loading(shallow_variant, monkeypatch):
    monkeypatch.setattr(device, "main_memory", lambda: 2**28)
    monkeypatch.setattr(stages, "load_base", lambda *_, **__: pytest.fail("loaded"))
    for stage in (pretrain, lambda variant: finetune(variant, only=True)):
        with pytest.raises(UserError, match="does not fit"):
            stage(shallow_variant)


def test_merging_that_does_not_fit_is_refused_before_training():
    recipe = Variant.load("paper_13b").recipe
    assert "set `stacking: continue`" in planning.merging_refused(recipe, 16 * GIB, "cuda")
    assert planning.merging_refused(recipe, 32 * GIB, "cuda") is None
    assert planning.merging_refused(recipe.model_copy(update={"stacking": "continue"}), 16 * GIB, "cuda") is None


def test_model_of_unknown_shapes_trains_as_its_recipe_says(monkeypatch, capsys):
    variant = Variant.load("paper_135m")
    variant = replace(variant, recipe=variant.recipe.model_copy(update={"base_model": "someone/else"}))
    assert planning.for_stage(variant, "pretraining", []) == Batch(8, 512, 1, False)
    assert "no plan: base_model someone/else" in capsys.readouterr().out
    monkeypatch.setattr("llama_qna.project.processes.sharded", lambda: True)
    assert planning.for_stage(Variant.load("paper_135m"), "pretraining", []) == Batch(8, 512, 1, False)


def test_processes_on_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(device, "main_memory", lambda: 24 * GIB)
    assert available_memory("cpu") == 24 * GIB
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert available_memory("cpu") == 12 * GIB
    monkeypatch.delenv("LOCAL_WORLD_SIZE")  # a launcher that does not say it: all are here
    assert available_memory("cpu") == 6 * GIB
    split = plan_stage(Variant.load("paper_135m"), "pretraining", 12 * GIB, "cpu")
    assert (split.batch.rows, split.batch.accumulation, split.batch_size) == (2, 1, 8)


def test_memory_of_a_model_that_lives_is_not_counted_as_free(monkeypatch):
    for name, found in {
        "mem_get_info": (10 * GIB, 24 * GIB),
        "memory_reserved": 9 * GIB,
        "memory_allocated": 7 * GIB,
    }.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda found=found: found)
    assert available_memory("cuda") == 12 * GIB


# --- the terminal ----------------------------------------------------------------------------------------------------


def test_report_of_another_machine_needs_nothing_of_this_one(monkeypatch):
    monkeypatch.setattr(forecast, "measure", lambda *_: pytest.fail("measured"))
    text = forecast.report(Variant.load("paper_13b"), 22 * GIB, "cuda")
    assert "13.0 billion weights, 40 layers, by the shapes known by that name" in text
    assert "cache of keys and values" in text and "plan: finetuning: 1 rows of up to 1024 tokens at once" in text


@pytest.mark.parametrize(("name", "gib"), [("paper_7b", 13.1), ("paper_13b", 24.8)])
def test_merging_on_a_gpus_host_is_counted_in_16_bits_whatever_its_cpu_has(name, gib, monkeypatch):
    monkeypatch.setattr(plan, "bfloat16_is_fast", lambda: False)
    recipe = Variant.load(name).recipe
    assert planning.merging_refused(recipe, int((gib + 0.1) * GIB), "cuda") is None
    assert f"takes {gib} GiB" in planning.merging_refused(recipe, int((gib - 0.1) * GIB), "cuda")
    assert planning.merging_refused(recipe, int((gib + 0.1) * GIB), "cpu")  # there it computes in float32


def test_report_measures_the_limit_here(monkeypatch):
    found = Variant.load("paper_135m")
    monkeypatch.setattr(shapes, "EMBEDDED_FOLDER", REPOSITORY / "nowhere")  # not even the model has to be there
    text = forecast.report(found, 24 * GIB, seconds=0.1)
    assert "TFLOP/s in matrix products" in text and "8 rows of up to" in text


def test_plan_that_does_not_fit_is_status_2(run_cli):
    found = run_cli("plan", "paper_135m", "--memory", "500MiB")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("llama-qna: embedded/smollm2-135m-instruct does not fit: one row of")
    assert found.stderr.count("\n") == 1
