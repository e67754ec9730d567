"""The two training stages on the real model at small size."""

import json
import math
import re
import socket
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import Trainer

from llama_qna import UserError
from llama_qna.models import adapters, prompts
from llama_qna.models.base import EMBEDDED, EMBEDDED_FOLDER, load_base, load_tokenizer
from llama_qna.models.lineage import start_of_finetuning
from llama_qna.models.plan import Batch
from llama_qna.project import recipe
from llama_qna.project.data import read_chunks
from llama_qna.project.files import write_json
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.training import resume, stages, trainer
from llama_qna.training.loss import Replay, summed_losses
from llama_qna.training.stages import checkpoints, finetune, pretrain
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture, small_run_fixture  # noqa: F401
from tests.test_losses import replayed

# --- the stages on the embedded model --------------------------------------------------------------------------------

STAGES = ["pretraining", "finetuning"]


def folder_of(run, stage) -> Path:
    return getattr(run.variant, stage)


def log_of(folder):
    return json.loads((folder / "log.json").read_text())


@pytest.mark.parametrize("stage", STAGES)
def test_loss_falls_on_repeated_rows(small_run, stage):
    log = log_of(folder_of(small_run, stage))
    loss = [row["loss"] for row in log]
    assert [row["step"] for row in log] == [1, 2, 3]
    assert all(math.isfinite(row[key]) for row in log for key in ("loss", "grad_norm", "learning_rate"))
    assert loss[0] > loss[1] > loss[2]
    assert loss[2] < loss[0] - 0.2


def test_first_loss_is_the_base_models(small_run):
    """The adapter starts as nothing, so the first loss is a mean over all labels of the base model alone."""
    rows = [
        row for text in read_chunks(small_run.variant).text for row in prompts.text_rows(shared.tokenizer(), text, 64)
    ]
    assert 2 < len(rows) <= 24  # one batch holds them all
    total, labels = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row["input_ids"]])
            logits = shared.dequantized_base()(ids).logits[0, :-1].float()
            total += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            labels += ids.shape[1] - 1
    assert log_of(small_run.variant.pretraining)[0]["loss"] == pytest.approx(total / labels, rel=0.01)


@pytest.mark.parametrize("stage", STAGES)
def test_checkpoints_every_save_steps_and_at_the_end(small_run, stage):
    folder = folder_of(small_run, stage)
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-2", "checkpoint-3"]
    for checkpoint in checkpoints(folder):
        names = {path.name for path in checkpoint.iterdir()}
        assert names == {"adapter_model.safetensors", "adapter_config.json", "recipe.json", "manifest.json"}
        config = json.loads((checkpoint / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == EMBEDDED
        assert (config["r"], config["lora_alpha"]) == (8, 16)
        recipe = json.loads((checkpoint / "recipe.json").read_text())
        assert recipe == small_run.variant.recipe.model_dump()
        weights = load_file(checkpoint / "adapter_model.safetensors")
        assert len(weights) == 30 * 7 * 2
        assert all(weight.isfinite().all() and weight.any() for weight in weights.values())


def test_checkpoints_are_sorted_by_number(tmp_path):
    for name in ("checkpoint-100", "checkpoint-9", "checkpoint-20", "checkpoint-x", "checkpoint-3.partial"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]


def test_records_count_what_was_trained(small_run):
    chunks = read_chunks(small_run.variant)
    pretrained, finetuned = small_run.pretrained["results"], small_run.finetuned["results"]
    assert pretrained["rows"] > len(chunks) and finetuned["rows"] == len(shared.PAIRS)
    assert pretrained["tokens_per_epoch"] - pretrained["rows"] == (chunks.tokens - 1).sum(), "each is predicted once"
    assert pretrained["steps"] == finetuned["steps"] == 3
    q, k, mlp = 576 + 576, 576 + 192, 576 + 1536  # in and out of each matrix
    assert pretrained["trained_parameters"] == 30 * 8 * (2 * q + 2 * k + 3 * mlp)
    assert pretrained["final_loss"] == log_of(small_run.variant.pretraining)[-1]["loss"]
    assert small_run.pretrained["skipped"] is small_run.finetuned["skipped"] is False


def test_merged_model_holds_the_last_checkpoint(small_run):
    folder = small_run.variant.pretraining / "merged"
    merged = load_file(folder / "model.safetensors")
    base = load_file(EMBEDDED_FOLDER / "model.safetensors")
    adapter = load_file(small_run.variant.pretraining / "checkpoint-3" / "adapter_model.safetensors")
    name = "model.layers.0.mlp.down_proj"
    change = 16 / 8 * adapter[f"base_model.model.{name}.lora_B.weight"].float()
    change = change @ adapter[f"base_model.model.{name}.lora_A.weight"].float()
    wanted = (base[f"{name}.weight"].float() + change).to(torch.bfloat16)
    assert not torch.equal(merged[f"{name}.weight"], base[f"{name}.weight"])
    assert (merged[f"{name}.weight"] != wanted).float().mean() < 0.2  # PEFT rounds the change to bfloat16 first
    assert torch.equal(merged["model.norm.weight"], base["model.norm.weight"])
    with torch.no_grad():
        logits = load_base(EMBEDDED, None, weights=folder)(torch.tensor([[1, 2, 3]])).logits
    assert logits.isfinite().all()
    assert load_tokenizer(str(folder)).pad_token == shared.tokenizer().pad_token


def test_second_call_skips(small_run, capsys):
    times = [(folder_of(small_run, stage) / "run.json").stat().st_mtime_ns for stage in STAGES]
    assert pretrain(small_run.variant) == small_run.pretrained | {"skipped": True}
    assert finetune(small_run.variant) == small_run.finetuned | {"skipped": True}
    assert capsys.readouterr().out.count("done before") == 2
    assert times == [(folder_of(small_run, stage) / "run.json").stat().st_mtime_ns for stage in STAGES]


def test_no_file_names_this_machine(small_run):
    root = small_run.variant.root
    private = {str(root), str(REPOSITORY), str(Path.home()) + "/", str(Path.cwd())}
    texts = [p for p in small_run.variant.run.rglob("*") if p.suffix in (".json", ".jsonl", ".csv", ".md", ".txt")]
    assert sum(path.name == "run.json" for path in texts) == 6
    for path in texts:
        found = [word for word in private if word in path.read_text()]
        assert not found, f"{path.relative_to(root)} holds {found}"
        if path.name == "run.json":
            assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", path.read_text())


# --- replay, and what fine-tuning starts from -------------------------------------------------------------------------


def test_replay_holds_the_model_to_its_base(shallow_variant):
    """After the same steps on the same rows, general text diverges less."""
    distances = []
    for tokens in (0, 128):
        settings = {"replay_tokens": tokens, "learning_rate": 1e-2, "max_steps": 4, "batch_size": 4}
        variant = shared.write_variant(shallow_variant.root, shallow_variant.recipe.base_model, **settings)
        pretrain(variant)
        recipe = variant.recipe
        model = adapters.attach_adapter(
            load_base(recipe.base_model, recipe.quantization), checkpoints(variant.pretraining)[-1]
        )
        for layer in model.modules():  # the divergence is that of the layers as they were trained, not folded
            if hasattr(layer, "merged_adapters"):
                layer.merged_adapters = []
        distances.append(replayed(model, Replay(shared.tokenizer(), tokens=512, seed=7)).item())
    assert distances[1] < distances[0]


def test_continued_adapter_starts_where_pretraining_ended(shallow_variant):
    """Its first loss is that of the pretrained model, and not that of the base."""
    top = {"stacking": "continue"}
    variant = shared.write_variant(shallow_variant.root, shallow_variant.recipe.base_model, top, learning_rate=3e-2)
    pretrain(variant)
    assert not (variant.pretraining / "merged").exists()
    assert start_of_finetuning(variant) == (None, checkpoints(variant.pretraining)[-1])
    finetune(variant)
    finetune(variant, only=True)
    continued, alone = (log_of(folder)[0]["loss"] for folder in (variant.finetuning, variant.finetuning_only))
    recipe, tokenizer = variant.recipe, shared.tokenizer()
    model = adapters.attach_adapter(
        load_base(recipe.base_model, recipe.quantization), checkpoints(variant.pretraining)[-1]
    )
    rows = [prompts.training_row(tokenizer, question, answer) for question, answer in shared.PAIRS]
    loss, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids, labels = (torch.tensor([row[key]]) for key in ("input_ids", "labels"))
            loss += summed_losses(model.get_base_model(), ids, torch.ones_like(ids), labels)[0].item()
            count += (labels[:, 1:] != -100).sum().item()
    assert continued == pytest.approx(loss / count, rel=0.02)
    assert abs(continued - alone) > 0.05


# --- a stage is done once, and whole, or not at all ------------------------------------------------------------------


@pytest.fixture
def wild_rates(monkeypatch):
    """Learning rates that no recipe may have, to make a loss explode at once."""
    monkeypatch.setattr(recipe, "LARGEST", 1e40)


def with_stage(variant, **stage):
    return shared.write_variant(variant.root, variant.recipe.base_model, **stage)


def test_new_learning_rate_trains_again_and_the_same_seed_gives_the_same_weights(shallow_variant):
    path = shallow_variant.pretraining / "checkpoint-3" / "adapter_model.safetensors"
    assert not pretrain(shallow_variant)["skipped"]
    first = load_file(path)
    assert pretrain(shallow_variant)["skipped"]
    slower = with_stage(shallow_variant, learning_rate=1e-5)
    assert not pretrain(slower)["skipped"]
    second = load_file(path)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert pretrain(slower)["skipped"]
    assert not pretrain(with_stage(shallow_variant))["skipped"]
    again = load_file(path)
    for name in first:
        torch.testing.assert_close(first[name], again[name], msg=name)


def test_fewer_steps_than_logging_steps_are_one_row_in_the_log(shallow_variant):
    results = pretrain(with_stage(shallow_variant, logging_steps=10))["results"]
    (row,) = log_of(shallow_variant.pretraining)
    assert (row["step"], row["loss"]) == (3, results["final_loss"]) and row["epoch"] > 0 and row["loss"] > 1


def test_exploded_loss_is_one_clear_error(shallow_variant, wild_rates):
    wild = with_stage(shallow_variant, learning_rate=1e30)
    with pytest.raises(
        UserError, match=r"small pretraining_paper: the loss became nan at step 2; try a lower learning_rate"
    ):
        pretrain(wild)
    assert not wild.pretraining.exists()
    with pytest.raises(UserError, match="run `llama-qna pretrain small` first"):
        finetune(wild)


def test_failed_stage_leaves_the_earlier_result(shallow_variant, wild_rates):
    record = pretrain(shallow_variant)
    with pytest.raises(UserError, match="step 2"):
        pretrain(with_stage(shallow_variant, learning_rate=1e30))
    assert pretrain(with_stage(shallow_variant)) == record | {"skipped": True}


def test_exploded_loss_between_two_logs_is_an_error(shallow_variant, wild_rates):
    """The last steps may fall behind the last log; what they broke must not be merged."""
    wild = with_stage(shallow_variant, learning_rate=1e30, logging_steps=10)
    with pytest.raises(UserError, match="the loss became"):
        pretrain(wild)
    assert not wild.pretraining.exists()


def test_finetuning_starts_from_the_pretrained_model(small_run):
    """On the merged weights its first loss is not that of the base, from which the other one starts."""
    variant = small_run.variant
    merged, base = (log_of(folder)[0]["loss"] for folder in (variant.finetuning, variant.finetuning_only))
    assert abs(merged - base) > 0.01


def test_finetuning_learns_answers_alone_and_the_end(shallow_variant, monkeypatch):
    """What reaches the loss: labels on the answer and its end-of-text token, nowhere else, padding least of all."""
    seen = []

    def summed(*a, **batch):
        seen.append(batch)
        return summed_losses(*a, **batch)

    monkeypatch.setattr("llama_qna.training.loss.summed_losses", summed)
    pretrain(shallow_variant)
    seen.clear()
    finetune(shallow_variant)
    tokenizer = shared.tokenizer()
    learnt = [tokenizer.decode(row[row != -100]) for row in seen[0]["labels"]]
    assert sorted(learnt) == sorted(answer + tokenizer.eos_token for _, answer in shared.PAIRS)
    assert not seen[0]["attention_mask"].all()
    assert (seen[0]["labels"][seen[0]["attention_mask"] == 0] == -100).all()


# --- what a GPU would say --------------------------------------------------------------------------------------------


def test_step_whose_gradients_overflowed_is_null_in_the_log(tmp_path):
    history = [{"step": 1, "loss": 2.5, "grad_norm": math.inf}, {"step": 2, "loss": 2.0, "grad_norm": 1.0, "other": 3}]
    log = trainer.log_of([*history, {"train_runtime": 1.0}])
    assert log == [{"step": 1, "loss": 2.5, "grad_norm": None}, {"step": 2, "loss": 2.0, "grad_norm": 1.0}]
    write_json(tmp_path / "log.json", log)


def test_one_process_uses_one_gpu_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(trainer, "device", lambda: "cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(trainer, "lacks_for_compiling", lambda: [])
    trainer._check_gpu()
    assert capsys.readouterr().out.startswith("2 GPUs are visible; this process uses the first")
    monkeypatch.setattr(trainer, "SFTConfig", lambda **options: SimpleNamespace(n_gpu=2, **options))
    variant = Variant.load("paper_135m")
    config = trainer.sft_config(variant, variant.recipe.pretraining, Path("nowhere"), Batch(8, 512, 1, False))
    assert config._n_gpu == 1


def test_without_a_compiler_the_loss_is_computed_uncompiled(monkeypatch, capsys):
    from trl.kernels import chunked_logprob

    monkeypatch.setattr(chunked_logprob, "_TRITON_AVAILABLE", True)
    monkeypatch.setattr(trainer, "device", lambda: "cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(trainer, "lacks_for_compiling", lambda: ["C compiler", "Python.h"])
    assert chunked_logprob._use_triton(torch.device("cuda"))
    trainer._check_gpu()
    assert not chunked_logprob._use_triton(torch.device("cuda"))
    said = capsys.readouterr().out
    assert said.startswith("no C compiler and no Python.h") and "python3-dev" in said


def test_scaler_of_a_gpu_is_left_out_where_there_is_none(tmp_path):
    kept = torch.amp.GradScaler("cpu", init_scale=8.0)
    kept.scale(torch.ones(1))  # which makes it
    torch.save(kept.state_dict(), tmp_path / "scaler.pt")
    going_on = object.__new__(type("Trainer", (resume.Resumable, Trainer), {}))
    for scaler in (None, torch.amp.GradScaler("cpu")):
        going_on.accelerator = SimpleNamespace(scaler=scaler)
        going_on._load_scaler(str(tmp_path))
    assert scaler.get_scale() == 8.0


def test_adapters_are_float32_on_a_gpu_and_keep_every_bit_that_was_loaded(monkeypatch):
    """TRL rounds those of a 4-bit model to bfloat16."""
    model, loaded = torch.nn.Linear(4, 4), torch.randn(4, 4)
    for where, dtype, wanted in (
        ("cpu", torch.bfloat16, torch.bfloat16),
        ("cpu", torch.float32, torch.float32),
        ("cuda:0", torch.bfloat16, torch.float32),
        ("cuda:0", torch.float16, torch.float32),
    ):
        monkeypatch.setattr(trainer, "device", lambda where=where: where)
        monkeypatch.setattr("llama_qna.training.cpu.layers.quicken", lambda model: None)
        model.weight.data = loaded.bfloat16()
        trainer._set_types(model, dtype, {"weight": loaded})
        assert model.weight.dtype is wanted
        assert torch.equal(model.weight, loaded) or wanted is torch.bfloat16


def test_a_stage_lets_its_model_go(shallow_variant, monkeypatch):
    """The next stage has the memory: nothing of the model lives when the stage has ended."""
    made, load = [], stages.load_base

    def watched(*arguments, **options):
        model = load(*arguments, **options)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(stages, "load_base", watched)
    pretrain(replace(shallow_variant, recipe=shallow_variant.recipe.model_copy(update={"stacking": "continue"})))
    assert made and all(model() is None for model in made)
