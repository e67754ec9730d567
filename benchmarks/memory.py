"""How well `llama-qna plan` predicts: peaks of real training steps in processes of their own, beside the prediction.

Each case trains the embedded model two steps on random tokens with the real trainer. The peak is the largest resident
size of the process (VmHWM). Run it after a change of the training path and set the constants of
`llama_qna/models/plan.py` anew.

    python benchmarks/memory.py            # all cases, about ten minutes on one core
    python benchmarks/memory.py 8x256      # the cases whose name begins so
"""

import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from llama_qna.models.plan import Batch, mapped_file, memory
from llama_qna.models.shapes import shapes_of
from llama_qna.project import provenance
from llama_qna.project.files import write_json
from llama_qna.project.stage import add_to_note
from llama_qna.project.variant import Variant

RESULTS = Path(__file__).parent / "results" / "memory.json"
STEPS = 2
SHORTEST = 40  # tokens, where lengths differ: as those of the shipped papers' chunks
CASES = {
    "1x64": {},
    "8x64": {},
    "8x128, short answers": {"labelled": 32},
    "8x256": {},
    "8x256, short answers": {"labelled": 32},
    "8x256, checkpointing": {"checkpointing": True},
    "8x256, replay": {"replay_tokens": 128},
    "8x256, dequantized each time": {"dequantize_once": False},
    "8x256, q and v": {"target_modules": ["q_proj", "v_proj"]},
    "2x512": {},
    "4x512": {},
    "8x512": {},
    "8x349, mixed lengths": {"mixed": True, "steps": 12},
    "8x512, checkpointing": {"checkpointing": True},
}


def case(name: str) -> tuple[Variant, Batch, int]:
    """The variant, the batch and the scored tokens of a row of one case."""
    settings = CASES[name]
    rows, length = map(int, name.split(",")[0].split("x"))
    variant = Variant.load("paper_135m")
    recipe = variant.recipe
    labelled = settings.get("labelled", length)
    stage = recipe.pretraining.model_copy(
        update={
            "batch_size": rows,
            "max_length": length,
            "max_steps": settings.get("steps", STEPS),
            "save_steps": STEPS,
        }
        | {"logging_steps": 1, "replay_tokens": settings.get("replay_tokens", 0)}
    )
    once = settings.get("dequantize_once", recipe.quantization.dequantize_once)
    recipe = recipe.model_copy(
        update={
            "pretraining": stage,
            "quantization": recipe.quantization.model_copy(update={"dequantize_once": once}),
            "lora": recipe.lora.model_copy(
                update={"target_modules": settings.get("target_modules", recipe.lora.target_modules)}
            ),
        }
    )
    mixed = settings.get("mixed", False)
    batch = Batch(rows, length, 1, settings.get("checkpointing", False), mixed)
    return replace(variant, recipe=recipe), batch, labelled


def predicted(name: str) -> int:
    """Bytes at the peak of a case, by the plan."""
    variant, batch, _ = case(name)
    shapes, _ = shapes_of(variant.recipe.base_model)
    parts = memory(shapes, variant.recipe, variant.recipe.pretraining, batch, "cpu")
    return sum(parts.values()) + mapped_file(shapes)


def measured(name: str) -> int:
    """Bytes at the peak of a case, in a process of its own."""
    found = subprocess.run([sys.executable, __file__, "--child", name], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"{name}: {found.stderr[-2000:]}")
    return int(found.stdout.split()[-1])


def train(name: str) -> int:
    """Train a case in this process; its largest resident size in bytes."""
    from llama_qna.models.base import load_base, load_tokenizer
    from llama_qna.training.rehearsal import peak
    from llama_qna.training.trainer import train_once

    variant, batch, labelled = case(name)
    recipe, draw = variant.recipe, random.Random(0)
    tokenizer = load_tokenizer(recipe.base_model)
    model = load_base(recipe.base_model, recipe.quantization)
    rows = []
    for number in range(recipe.pretraining.max_steps * batch.rows):
        length = draw.randint(SHORTEST, batch.length) if batch.padded and number else batch.length
        ids = draw.choices(range(100, len(tokenizer)), k=length)
        rows.append({"input_ids": ids, "labels": [-100] * (length - labelled) + ids[max(0, length - labelled) :]})
    batch = replace(batch, peak=predicted(name))
    with tempfile.TemporaryDirectory() as folder:
        add_to_note(Path(folder), key=name)
        train_once(variant, "pretrain", model, tokenizer, rows, Path(folder), batch)
    return peak("cpu")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(train(sys.argv[2]))
        return
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    found = {}
    print(f"{'case':32}{'measured GiB':>14}{'predicted':>11}{'error':>8}")
    for name in (name for name in CASES if name.startswith(wanted)):
        real, thought = measured(name), predicted(name)
        found[name] = {"measured": real, "predicted": thought, "error": round(thought / real - 1, 3)}
        print(f"{name:32}{real / 2**30:>14.2f}{thought / 2**30:>11.2f}{thought / real - 1:>+8.1%}", flush=True)
    if not wanted:
        about = {"cases": found, "machine": provenance.machine(), "versions": provenance.versions()}
        write_json(RESULTS, about | {"git": provenance.git_state()})


if __name__ == "__main__":
    main()
