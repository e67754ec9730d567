"""The steps of the proof: each does its work in this process or in commands of its own, and raises where it fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.gpu import speed
from benchmarks.gpu.small import model_folder, write_variant
from llama_qna.project.variant import REPOSITORY


@dataclass(frozen=True)
class Step:
    """One step: what it shows, its work, which returns what it found, and whether there is any without a GPU."""

    shows: str
    work: Callable[[], dict]
    needs_card: bool = False


def check(holds: bool, said: str) -> None:
    """Raise AssertionError with what does not hold; unlike `assert` also under -O."""
    if not holds:
        raise AssertionError(said)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python in a process of its own; its failure is raised with its last line."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[1:4])}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return done


# --- preflight -------------------------------------------------------------------------------------------------------


def preflight() -> dict:
    """Driver, CUDA, cards, compiler, and whether bitsandbytes' library rounds a matrix to NF4 and back."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    from llama_qna.models.device import device, lacks_for_compiling

    on = device()
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).to(on)
    packed, state = quantize_4bit(weight, quant_type="nf4")
    error = (dequantize_4bit(packed, state) - weight).abs().mean().item()
    check(0.05 < error < 0.1, f"NF4 errs by {error:.3f} of a normal weight; 0.07 is right")
    driver = Path("/proc/driver/nvidia/version")
    version = re.search(r"\d{3,}\.\d+(\.\d+)?", driver.read_text()) if driver.is_file() else None
    cards = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    found = {"device": on, "torch": torch.__version__, "cuda": torch.version.cuda, "cards": cards}
    found |= {"driver": version[0] if version else None, "NF4 error": round(error, 4)}
    return found | {"missing for Triton": lacks_for_compiling()}


# --- parity ----------------------------------------------------------------------------------------------------------


def parity() -> dict:
    """The GPU against the CPU, each in a process of its own; without a GPU its way of training, on the CPU."""
    from llama_qna.models.device import device

    found, has_card = {}, device() != "cpu"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_variant(root, model_folder(root / "model"))
        for dtype in ("bfloat16", "float16") if has_card else ("bfloat16",):
            command = ["-m", "benchmarks.gpu.numbers", str(root), dtype]
            wanted = json.loads(python(*command, CUDA_VISIBLE_DEVICES="").stdout.splitlines()[-1])
            given = json.loads(python(*command, "--branch").stdout.splitlines()[-1])
            found[dtype] = compared(wanted, given)
    return found


def compared(wanted: dict, given: dict) -> dict:
    """The largest differences, relative, checked against what rounding to 16 bits explains."""

    def apart(a: list[float], b: list[float]) -> float:
        return max(abs(x - y) / max(abs(x), 1e-6) for x, y in zip(a, b, strict=True))

    check(wanted["nf4"] == given["nf4"], "the bytes of NF4 differ")
    found = {"logits": apart(wanted["logits"], given["logits"])}
    found["nats"] = apart([wanted["nats"]], [given["nats"]])
    for key in ("loss", "grad_norm"):
        found[key] = apart(*([row[key] for row in side["training"]] for side in (wanted, given)))
    for key, most in {"logits": 0.03, "nats": 0.01, "loss": 0.01, "grad_norm": 0.1}.items():
        check(found[key] <= most, f"{key} differs by {found[key]:.1%}, more than {most:.0%}")
    same = sum(a == b for a, b in zip(wanted["answers"], given["answers"], strict=True))
    check(same >= len(wanted["answers"]) / 2, f"only {same} of {len(wanted['answers'])} greedy answers are the same")
    found = {key: round(value, 4) for key, value in found.items()}
    return found | {"same answers": f"{same} of {len(wanted['answers'])}", "against": given["device"]}


# --- every stage through the terminal --------------------------------------------------------------------------------


def stages(stacking: str) -> dict:
    """Every verb on a small variant; pretraining is killed after its first checkpoint, and goes on from there."""
    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_variant(root, model_folder(root / "model"), stacking=stacking)

        def verb(*arguments: str) -> str:
            started = time.perf_counter()
            said = python("-m", "llama_qna", *arguments, LLAMA_QNA_ROOT=str(root))
            seconds[" ".join(arguments).replace(" small", "")] = round(time.perf_counter() - started, 1)
            return said.stdout + said.stderr

        verb("load", "small")
        verb("generate", "small")
        kill_at_checkpoint(root)
        check("going on from checkpoint-" in verb("pretrain", "small"), "pretraining began anew after a kill")
        for arguments in (["finetune", "small"], ["finetune", "small", "--without-pretraining"], ["evaluate", "small"]):
            verb(*arguments)
        for system in ("finetuned", "base+passages"):
            verb("ask", "small", "What failed in 1921?", "--system", system)
        for to in ("merged", "adapter"):
            verb("export", "small", "--to", to)
        check("--lora-modules" in verb("serve", "small", "--print"), "the engine's command names no adapters")
        metrics = json.loads((root / "runs" / "small" / "evaluation" / "metrics.json").read_text())
    return {"checkpoints measured": len(metrics["checkpoints"]), "seconds": seconds}


def kill_at_checkpoint(root: Path) -> None:
    """Begin pretraining, and SIGKILL it when its first checkpoint is whole."""
    environment = os.environ | {"LLAMA_QNA_ROOT": str(root)}
    command = [sys.executable, "-m", "llama_qna", "pretrain", "small"]
    child = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    partial_folder = root / "runs" / "small" / "pretraining_paper.partial"
    while child.poll() is None:
        if list(partial_folder.glob("checkpoint-*/manifest.json")):
            child.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    child.wait()


# --- faults ----------------------------------------------------------------------------------------------------------


def out_of_memory() -> dict:
    """More answers at once than a GPU holds: fewer rows, the same texts. On a CPU the refusal is made."""
    from unittest import mock

    import torch

    from llama_qna.models import batches, generate
    from llama_qna.models.base import load_base, load_tokenizer
    from llama_qna.models.prompts import question_ids
    from llama_qna.project.recipe import Quantization

    write = generate._write

    def little(model, prompts, *rest):
        if model.device.type == "cpu" and len(prompts) > 8:
            raise RuntimeError("out of memory")
        return write(model, prompts, *rest)

    with tempfile.TemporaryDirectory() as folder:
        base = str(model_folder(Path(folder)))
        model, tokenizer = load_base(base, Quantization()), load_tokenizer(base)
    asked = [question_ids(tokenizer, f"What is the number {n}?") for n in range(64)]
    options = {"max_new_tokens": 8, "batch_size": 64, "done": lambda count: None}
    wanted = generate.generate_texts(model, tokenizer, asked, **options | {"batch_size": 8})
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.1 * torch.cuda.memory_reserved() / torch.cuda.mem_get_info()[1])
    unlimited = mock.patch.object(generate, "rows_that_fit", lambda *_: None)  # so that memory does run out
    tried = mock.patch.object(batches, "release", mock.Mock(wraps=batches.release))
    with unlimited, tried as released, mock.patch.object(generate, "_write", little):
        given = generate.generate_texts(model, tokenizer, asked, **options)
    check(released.called, "memory did not run out")
    same = sum(a == b for a, b in zip(wanted, given, strict=True))
    check(same >= 0.8 * len(wanted), f"only {same} of {len(wanted)} texts are the same")
    return {"retreats": released.call_count, "same texts": f"{same} of {len(wanted)}"}


def overflow() -> dict:
    """Steps in float16 whose gradients overflow are left out, and the log can be written."""
    from unittest import mock

    import torch

    from benchmarks.gpu.numbers import numbers
    from llama_qna.project.variant import Variant

    scaler = partial(torch.amp.GradScaler, init_scale=2.0**60)  # no gradient of a loss times that is finite
    with tempfile.TemporaryDirectory() as name:
        write_variant(Path(name), model_folder(Path(name) / "model"))
        os.environ["LLAMA_QNA_ROOT"] = name
        with mock.patch("torch.amp.GradScaler", scaler):
            log = numbers(Variant.load("small"), branch=False)["training"]
    norms = [row["grad_norm"] for row in log]
    check(None in norms, f"no step overflowed: {norms}")
    return {"gradient norms": norms}


def two_cards() -> dict:
    """One process uses one of several GPUs, and says so."""
    import torch

    check(torch.cuda.device_count() > 1, "there is one GPU alone")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_variant(root, model_folder(root / "model"))
        for verb in ("load", "generate", "pretrain"):
            said = python("-m", "llama_qna", verb, "small", LLAMA_QNA_ROOT=name).stdout
    check("this process uses the first" in said, "nothing was said of the other GPU")
    return {"cards": torch.cuda.device_count()}


CAPS = {"22GiB": ("paper_7b", "paper_13b"), "14.5GiB": ("paper_7b",)}
STEPS = {
    "preflight": Step("driver, CUDA, bitsandbytes' library, Triton, cards", preflight),
    "parity": Step("the GPU's way against the CPU's on a small Llama", parity),
    "stages, continue": Step("every verb, SIGKILL and resume, one adapter going on", partial(stages, "continue")),
    "stages, merge": Step("every verb, SIGKILL and resume, a merged base in between", partial(stages, "merge")),
    "out of memory": Step("fewer rows when memory runs out, the same texts", out_of_memory),
    "overflow": Step("a float16 step that overflows, in a log that can be written", overflow, needs_card=True),
    "two cards": Step("one process uses one of several GPUs", two_cards, needs_card=True),
}
for cap, names in CAPS.items():
    for name in names:
        for way in speed.WAYS:
            shows = f"{name} at true shape, random weights, under a cap of {cap}: {speed.WAYS[way]}"
            STEPS[f"{name}, {cap}, {way}"] = Step(shows, partial(speed.measure, way, name, cap), needs_card=True)
