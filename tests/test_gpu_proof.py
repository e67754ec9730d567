"""`benchmarks.gpu`: on a CPU every step that needs no card runs; the page is made of the results."""

import json
from types import SimpleNamespace

import pytest

from benchmarks.gpu import __main__ as proof
from benchmarks.gpu import small, steps
from benchmarks.gpu.page import PAGE, page
from llama_qna.models.device import device
from llama_qna.project.files import write_json


def test_preflight_passes_here():
    found = steps.preflight()
    assert found["device"] == device() and set(found) >= {"torch", "cuda", "driver", "cards", "missing for Triton"}


def test_steps_that_need_a_card_wait_for_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(proof, "device", lambda: "cpu")
    monkeypatch.setattr(proof.subprocess, "run", lambda *_, **__: pytest.fail("run"))
    needy = [name for name, step in steps.STEPS.items() if step.needs_card]
    assert len(needy) > 10
    assert proof.main([*needy, "--results", str(tmp_path / "gpu.json")]) == 0
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert all(found == {"passed": None, "said": "not run: needs an NVIDIA GPU"} for found in content["steps"].values())
    assert "| not run: needs an NVIDIA GPU |" in page(content)


def test_failure_of_a_step_is_a_result_and_the_others_stay(tmp_path, monkeypatch):
    results = tmp_path / "gpu.json"
    write_json(results, {"steps": {"parity": {"passed": True, "seconds": 3, "found": {"loss": 0.01}}}})
    failed = SimpleNamespace(returncode=1, stderr="Traceback\nAssertionError: it does not hold\n", stdout="")
    monkeypatch.setattr(proof.subprocess, "run", lambda *_, **__: failed)
    assert proof.main(["preflight", "--results", str(results)]) == 1
    content = json.loads(results.read_text())
    assert content["steps"]["preflight"]["said"] == "AssertionError: it does not hold"
    assert content["steps"]["parity"]["passed"]
    text = page(content)
    assert "| **fail** |" in text and "loss: 0.01" in text
    run, _, others = text.partition("**Not run:**")
    assert all((name in run) == (name in content["steps"]) and name in text for name in steps.STEPS) and others


def test_differences_that_rounding_does_not_explain_fail():
    side = {"nf4": "a", "logits": [1.0, 2.0], "nats": 2.0, "answers": ["yes", "no"], "device": "cuda"}
    side["training"] = [{"loss": 2.0, "grad_norm": 1.0}]
    assert steps.compared(side, side)["loss"] == 0
    for key, value in {"nf4": "b", "logits": [1.0, 2.2], "nats": 2.2, "answers": ["no", "yes"]}.items():
        with pytest.raises(AssertionError):
            steps.compared(side, side | {key: value})
    with pytest.raises(AssertionError, match="loss differs by"):
        steps.compared(side, side | {"training": [{"loss": 2.1, "grad_norm": 1.0}]})


def test_a_machine_without_the_embedded_model_has_a_random_one():
    tokenizer = small.byte_tokenizer()
    ids = tokenizer("The lid weighs 3 kg – ünlaut.")["input_ids"]
    assert tokenizer.decode(ids) == "The lid weighs 3 kg – ünlaut."
    assert small.random_llama(len(tokenizer)).config.vocab_size == len(tokenizer)


def test_page_calls_nothing_a_check_of_a_gpu_where_none_was_found():
    found = {"passed": True, "seconds": 3, "found": {"cards": []}}
    on_cpu = page({"steps": {"preflight": found | {"machine": {"gpu": None, "cores": 1}}}})
    assert "Nothing here has run on a GPU yet." in on_cpu
    assert "| no GPU found; passed on the CPU |" in on_cpu and "| pass |" not in on_cpu
    on_gpu = page({"steps": {"preflight": found | {"machine": {"gpu": "NVIDIA L4", "cores": 8}}}})
    assert "| pass |" in on_gpu and "yet" not in on_gpu and "no GPU found" not in on_gpu


def test_committed_page_is_that_of_the_committed_results():
    assert PAGE.read_text(encoding="utf-8") == page(json.loads(proof.RESULTS.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, step in steps.STEPS.items() if not step.needs_card])
def test_every_step_that_needs_no_card_passes(name):
    found = proof.run(name, device() != "cpu", limit=3600)  # tests share their machine
    assert found["passed"], found
