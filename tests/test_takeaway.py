"""Tests of llama_qna/serving/exports.py, gguf.py and hub.py: exports of a random adapter on the embedded model's first
layers, loaded again for real; the hub is a stand-in."""

import copy
import gc
import json
import re
import shutil
import weakref

import httpx
import pytest
import torch

from llama_qna import UserError, cli
from llama_qna.documents.chunks import load
from llama_qna.models import adapters, planning, prompts
from llama_qna.models.base import load_base
from llama_qna.project.files import sha256
from llama_qna.project.recipe import Quantization
from llama_qna.project.variant import REPOSITORY
from llama_qna.serving import exports, gguf, hub
from tests.fixtures_models import (  # noqa: F401
    GOLD,
    shallow_folder_fixture,
    shallow_variant_fixture,
    tokenizer,
    write_variant,
)

QUESTION = "What is the traffic of a stage?"
TESTED = [row[1] for row in GOLD if row[6] == "test"]


def random_adapter(base, folder, seed):
    """An adapter that changes what the base says, saved as a checkpoint of a stage."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = get_peft_model(load_base(str(base), None), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(shallow_folder, tmp_path_factory):
    """Make a variant that looks trained: `trained("continue")`, with gold questions about its one page."""
    made = {}

    def make(stacking):
        if stacking not in made:
            variant = write_variant(tmp_path_factory.mktemp(stacking), str(shallow_folder), {"stacking": stacking})
            load(variant)
            first = random_adapter(shallow_folder, variant.pretraining / "checkpoint-3", 1)
            base = shallow_folder
            if stacking == "merge":
                base = adapters.merge_adapter(str(shallow_folder), first, variant.pretraining / "merged")
            random_adapter(base, variant.finetuning / "checkpoint-3", 2)
            made[stacking] = variant
        return made[stacking]

    return make


@pytest.fixture(scope="module")
def merged(trained):
    return exports.export(trained("continue"), "merged")


def read(folder):
    return json.loads((folder / exports.RECORD).read_text())


def answers_by_transformers(folder, model, question):
    """As a user asks who has transformers and the folder, and nothing of ours."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    asked = [{"role": "user", "content": question}]
    inputs = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return theirs.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


# --- what is written -------------------------------------------------------------------------------------------------


def test_merged_model_answers_as_the_measured_one(trained, merged):
    record = read(merged)
    (check,) = record["checks"]
    assert [row["question"] for row in check["answers"]] == TESTED
    assert (check["same"], check["rougeL"]) == (len(TESTED), 1.0)
    assert merged == trained("continue").run / "exports" / "merged"
    assert not merged.with_name("merged.partial").exists()
    assert record["files"] == {path.name: sha256(path) for path in merged.iterdir() if path.name != "export.json"}


def test_merged_weights_are_those_of_nf4_and_the_adapter(trained, merged):
    """Bit-equal to the 16-bit copies that the measured model computes with, and not the base's own."""
    variant = trained("continue")
    recipe = variant.recipe
    assert recipe.quantization.dequantize_once
    measured = load_base(recipe.base_model, recipe.quantization)
    measured = adapters.attach_adapter(measured, variant.finetuning / "checkpoint-3").get_base_model()
    found, base = load_base(str(merged), None), load_base(recipe.base_model, None)
    for part in ("self_attn.q_proj", "mlp.down_proj"):
        name = f"model.layers.1.{part}"
        assert torch.equal(found.get_submodule(name).weight, measured.get_submodule(name).base_layer.dequantized)
        assert not torch.equal(found.get_submodule(name).weight, base.get_submodule(name).weight)
    assert torch.equal(found.model.norm.weight, base.model.norm.weight)


def test_merged_folder_needs_nothing_of_ours(merged):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(merged, dtype="auto")
    assert model.dtype is torch.bfloat16
    rows = read(merged)["checks"][0]["answers"]
    assert [answers_by_transformers(merged, model, row["question"]) for row in rows] == [r["exported"] for r in rows]


@pytest.mark.parametrize("stacking", ["continue", "merge"])
def test_adapter_is_one_for_the_base_itself(stacking, trained):
    """In float32, where rounding hides nothing: base + exported adapter = what fine-tuning trained."""
    variant = trained(stacking)
    folder = exports.export(variant, "adapter")
    names = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"}
    assert names <= {path.name for path in folder.iterdir()}
    base = variant.recipe.base_model
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == (base, {"continue": 8, "merge": 16}[stacking])
    start = base if stacking == "continue" else variant.pretraining / "merged"
    ids = torch.tensor([prompts.question_ids(tokenizer(), QUESTION)])
    with torch.no_grad():
        wanted = adapters.attach_adapter(load_base(str(start), None).float(), variant.finetuning / "checkpoint-3")
        found = adapters.attach_adapter(load_base(base, None).float(), folder)
        plain = load_base(base, None).float()
        wanted, found, plain = (model(ids).logits for model in (wanted, found, plain))
    effect = (plain - wanted).abs().max()
    rounded = 0.0 if stacking == "continue" else 0.1 * effect  # merging rounded the weights below to bfloat16
    assert (found - wanted).abs().max() <= rounded + 1e-4 and effect > 1
    checks = read(folder)["checks"]
    assert [check["loaded"] for check in checks] == ["on the base in NF4", "on the base in 16 bits"]
    if stacking == "continue":
        assert checks[0]["same"] == len(TESTED)


def test_models_are_loaded_one_at_a_time_and_what_does_not_fit_is_left_out(trained, tmp_path, monkeypatch, capsys):
    """A stand-in for a card that has room for the base in NF4 alone: nothing else lives when a model is loaded."""
    loaded, load = [], exports.load_base

    def alone(*arguments, **options):
        gc.collect()
        assert options.get("on") == "cpu" or all(model() is None for model in loaded), "another model is in memory"
        model = load(*arguments, **options)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(exports, "load_base", alone)
    monkeypatch.setattr(exports.planning, "fits", lambda base, quantization: quantization is not None)
    folder = exports.export(trained("continue"), "adapter", tmp_path / "adapter")
    assert [check["loaded"] for check in read(folder)["checks"]] == ["on the base in NF4"]
    assert "adapter: not asked on the base in 16 bits" in capsys.readouterr().out
    assert read(exports.export(trained("continue"), "merged", tmp_path / "merged"))["checks"] == []
    assert (tmp_path / "merged" / "README.md").is_file()


@pytest.mark.parametrize(("gib", "fits"), [(22, (True, False)), (30, (True, True)), (6, (False, False))])
def test_what_fits_is_told_by_the_plan(gib, fits, monkeypatch):
    monkeypatch.setattr(planning, "kind_of_device", lambda: "cuda")
    monkeypatch.setattr(planning, "available_memory", lambda kind: gib * 2**30)
    thirteen = "meta-llama/Llama-2-13b-chat-hf"
    assert (planning.fits(thirteen, Quantization()), planning.fits(thirteen, None)) == fits


def test_card_of_an_export_says_what_it_was_checked_for(merged):
    card = (merged / "README.md").read_text()
    text = f"loaded in 16 bits: {len(TESTED)} of {len(TESTED)} greedy answers are those of the model that was measured"
    assert text in card
    assert "has not been evaluated" in card and "model-index" not in card
    assert exports.read_checks(merged)[0].startswith(text)


def test_without_gold_questions_those_trained_on_are_asked(shallow_variant):
    assert exports._questions(shallow_variant)[0] == "What did the first test show?"


# --- the template ----------------------------------------------------------------------------------------------------


def llama_tokenizer():
    """One that adds a start token, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    llama = copy.deepcopy(tokenizer())
    llama.bos_token = "<|endoftext|>"
    llama.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A",
        pair="<|endoftext|> $A $B",
        special_tokens=[("<|endoftext|>", llama.bos_token_id)],
    )
    llama.chat_template = "{{ bos_token }}" + tokenizer().chat_template
    return llama


def tokenizers():
    plain, plain_llama = copy.deepcopy(tokenizer()), llama_tokenizer()
    plain.chat_template = plain_llama.chat_template = None
    return {"embedded": tokenizer(), "llama": llama_tokenizer(), "plain": plain, "plain llama": plain_llama}


@pytest.mark.parametrize("kind", ["embedded", "llama", "plain", "plain llama"])
def test_saved_template_renders_our_prompts(kind, tmp_path):
    from transformers import AutoTokenizer

    ours = tokenizers()[kind]
    before = ours.chat_template
    exports.save_tokenizer(ours, tmp_path)
    assert ours.chat_template == before
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for question in (QUESTION, "  What is 84.1% of it?\n", "Who wrote 'The Salt-Water Machine'?"):
        asked = [{"role": "user", "content": question}]
        rendered = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert rendered == prompts.question_ids(ours, question)
    own = [{"role": "system", "content": "Answer in verse."}, {"role": "user", "content": QUESTION}]
    assert prompts.SYSTEM not in theirs.apply_chat_template(own, tokenize=False)


@pytest.mark.parametrize("kind", ["embedded", "llama"])
def test_modelfile_renders_our_prompts(kind):
    """Ollama's language, as far as the template uses it, is done by hand; the system message is in the first turn."""
    ours = copy.deepcopy(tokenizers()[kind])
    ours.chat_template = exports.template_with_start(ours)
    text = gguf.modelfile(ours, "small.gguf", 4)
    assert text.startswith("FROM ./small.gguf\n")
    template, system = re.findall(r'"""(.*?)"""', text, re.DOTALL)
    assert system == prompts.SYSTEM

    def turn(system, question, answer):
        parts = re.fullmatch(r"{{ if .System }}(.*){{ else }}(.*){{ end }}(.*)", template, re.DOTALL)
        chosen = parts[1].replace("{{ .System }}", system) if system else parts[2]
        whole = (chosen + parts[3]).replace("{{ .Prompt }}", question)
        return whole.replace("{{ .Response }}", answer) if answer else whole.partition("{{ .Response }}")[0]

    start = ours.bos_token if kind == "llama" else ""  # llama.cpp adds it
    assert start + turn(system, QUESTION, "") == ours.decode(prompts.question_ids(ours, QUESTION))
    roles = ["user", "assistant", "user"]
    talk = [{"role": r, "content": c} for r, c in zip(roles, [QUESTION, "A share.", "Why?"], strict=True)]
    whole = ours.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert start + turn(system, QUESTION, "A share.") + turn("", "Why?", "") == whole


# --- nothing is lost -------------------------------------------------------------------------------------------------


def test_second_export_of_the_same_writes_nothing(trained, merged, capsys):
    times = {path: path.stat().st_mtime_ns for path in merged.iterdir()}
    assert exports.export(trained("continue"), "merged", force=True) == merged
    assert {path: path.stat().st_mtime_ns for path in merged.iterdir()} == times
    assert "written before" in capsys.readouterr().out


def test_damaged_or_other_export_is_replaced_only_by_force(trained, merged, tmp_path):
    other, damaged = (shutil.copytree(merged, tmp_path / name) for name in ("other", "damaged"))
    (other / "export.json").write_text(json.dumps(read(other) | {"adapter": "another"}))
    (damaged / "model.safetensors").write_bytes(b"no weights")
    for folder in (other, damaged):
        with pytest.raises(UserError, match="exists with another export: replace it with --force"):
            exports.export(trained("continue"), "merged", folder)
    exports.export(trained("continue"), "merged", damaged, force=True)
    assert read(damaged)["files"] == read(merged)["files"]


def test_other_folders_are_never_replaced(trained, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="exists and is no export"):
        exports.export(trained("continue"), "merged", tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_failed_export_leaves_the_old_one(trained, merged, tmp_path, monkeypatch):
    folder = shutil.copytree(merged, tmp_path / "out")
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(exports, "save_tokenizer", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        exports.export(trained("continue"), "merged", folder, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (folder / "config.json").read_text() == "{}"


@pytest.mark.parametrize("to", ["gguf", "ollama"])
def test_missing_converter_is_one_line(to, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "TOOLS", tmp_path / "nothing")
    with pytest.raises(UserError, match="run `make gguf` first"):
        exports.export(trained("continue"), to, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_converter_that_fails_is_one_line(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    (tools / "xllamacpp").mkdir(parents=True)
    (tools / "convert_hf_to_gguf.py").write_text("raise SystemExit('Model FooForCausalLM is not supported')")
    monkeypatch.setattr(gguf, "TOOLS", tools)
    with pytest.raises(UserError, match="could not write a.gguf: Model FooForCausalLM is not supported"):
        gguf.convert(tmp_path, tmp_path / "a.gguf")


def test_untrained_variant_is_refused(tmp_path, shallow_folder):
    with pytest.raises(UserError, match="no trained model on this machine"):
        exports.export(write_variant(tmp_path, str(shallow_folder)), "merged")


# --- llama.cpp itself ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not (REPOSITORY / ".gguf").exists(), reason="needs `make gguf`")
def test_llama_cpp_answers_from_the_file(trained, tmp_path):
    import gguf

    folder = exports.export(trained("continue"), "ollama", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"small-q8_0.gguf", "Modelfile", "README.md", "export.json"}
    fields = gguf.GGUFReader(folder / "small-q8_0.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == exports.template_with_start(tokenizer())
    (check,) = read(folder)["checks"]
    assert check["loaded"].startswith("in llama.cpp") and len(check["answers"]) == len(TESTED)
    assert all(row["exported"] for row in check["answers"])


# --- the hub ---------------------------------------------------------------------------------------------------------


class Hub:
    """A stand-in for `HfApi` that keeps what it was told, or fails."""

    told: list = []
    failure = None

    def create_repo(self, repository, **options):
        if Hub.failure:
            raise Hub.failure
        Hub.told.append(("create_repo", repository, options))
        return f"https://huggingface.co/{repository}"

    def upload_folder(self, **options):
        Hub.told.append(("upload_folder", options["repo_id"], sorted(p.name for p in options["folder_path"].iterdir())))


@pytest.fixture
def stand_in(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(Hub, "told", [])
    monkeypatch.setattr(Hub, "failure", None)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    return Hub


def refusal(status):
    from huggingface_hub.errors import HfHubHTTPError

    request = httpx.Request("POST", "https://huggingface.co/api/repos/create")
    return HfHubHTTPError("the hub's own\nlong words", response=httpx.Response(status, request=request))


def test_push_makes_a_private_repository(merged, stand_in):
    assert hub.push(merged, "someone/small") == "https://huggingface.co/someone/small"
    created, uploaded = stand_in.told
    assert created == ("create_repo", "someone/small", {"private": True, "exist_ok": True})
    assert uploaded == ("upload_folder", "someone/small", sorted(path.name for path in merged.iterdir()))


@pytest.mark.parametrize(
    ("failure", "complaint"),
    [
        (refusal(401), "the hub does not know this token (401)"),
        (refusal(403), "this account may not write there (403)"),
        (refusal(500), "the hub's own long words (500)"),
        (
            httpx.ConnectError("[Errno -3] Temporary failure"),
            "the hub cannot be reached ([Errno -3] Temporary failure)",
        ),
    ],
)
def test_refused_push_is_one_line(failure, complaint, merged, stand_in):
    stand_in.failure = failure
    with pytest.raises(UserError) as caught:
        hub.push(merged, "someone/small")
    assert str(caught.value) == f"--push someone/small: {complaint}"


def test_push_without_a_token_or_a_name_does_no_work(stand_in, monkeypatch, capsys):
    monkeypatch.setattr("llama_qna.serving.exports.export", lambda *_: pytest.fail("worked before it looked"))
    assert cli.main(["export", "paper_135m", "--to", "merged", "--push", "a/b/c"]) == 2
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert cli.main(["export", "paper_135m", "--to", "merged", "--push", "someone/small"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("llama-qna: --push a/b/c: ")
    assert lines[1:] == ["llama-qna: --push needs an account of the hub: run `hf auth login`, or set HF_TOKEN"]
    assert stand_in.told == []


def test_command_exports_and_pushes(trained, merged, stand_in, monkeypatch, capsys):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(trained("continue").root))
    assert cli.main(["export", "small", "--to", "merged", "--push", "someone/small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "merged: written before, nothing has changed"
    assert lines[1] == exports.read_checks(merged)[0]
    assert lines[2:] == ["runs/small/exports/merged", "https://huggingface.co/someone/small"]
