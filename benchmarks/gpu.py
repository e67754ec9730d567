"""7B and 13B at their true shapes with random weights on one NVIDIA GPU, in its memory or under a cap.

For each model, in a process of its own: two training steps of 8 rows of 1,024 tokens as `llama-qna pretrain` takes
them, tokens a second, peak memory, the share of the measured bf16 limit, and answers a second at batch 32. With
`--trl` the same model, rows and adapters also go through TRL's `SFTTrainer` with its defaults. Not measured on a GPU.

    python benchmarks/gpu.py [--memory 22GiB] [--rows 8] [--length 1024] [--trl] [VARIANT ...]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from llama_qna import UserError
from llama_qna.models.device import GIB, parse_memory
from llama_qna.models.shapes import shapes_of
from llama_qna.project import provenance
from llama_qna.project.files import write_json
from llama_qna.project.variant import Variant

RESULTS = Path(__file__).parent / "results"


def ours(name: str, memory: int | None, rows: int, length: int) -> dict:
    from llama_qna.training.rehearsal import rehearse

    return rehearse(Variant.load(name), memory, rows, length)


def trl_defaults(name: str, memory: int | None, rows: int, length: int) -> dict:
    """Two steps of `SFTTrainer` on the same model with the recipe's adapters; all its other settings are TRL's own."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from llama_qna.models import adapters
    from llama_qna.training import rehearsal

    recipe = Variant.load(name).recipe
    shapes, _ = shapes_of(recipe.base_model)
    if memory:
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory / torch.cuda.mem_get_info()[1]))
    draw, seconds = random.Random(recipe.seed), []

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - self.started)

    ids = [draw.choices(range(3, shapes.vocabulary), k=length) for _ in range(2 * rows)]
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(folder, max_steps=2, per_device_train_batch_size=rows, max_length=length, report_to="none")
        SFTTrainer(
            model=rehearsal.random_model(shapes, recipe.quantization),
            args=config,
            train_dataset=Dataset.from_list([{"input_ids": row, "labels": row} for row in ids]),
            processing_class=rehearsal.any_tokenizer(),
            peft_config=adapters.lora_config(recipe.lora),
            callbacks=[Clock()],
        ).train()
    return {
        "seconds_of_steps": seconds,
        "tokens_per_second": rows * length / seconds[-1],
        "peak": rehearsal.peak("cuda"),
    }


WAYS = {"ours": ours, "trl": trl_defaults}


def child(way: str, name: str, options) -> dict:
    """One way with one model in a process of its own; its failure, such as memory running out, is a result too."""
    command = [sys.executable, __file__, "--child", way, "--rows", str(options.rows), "--length", str(options.length)]
    command += ["--memory", options.memory] if options.memory else []
    found = subprocess.run([*command, name], capture_output=True, text=True)
    lines = (found.stderr if found.returncode else found.stdout).strip().splitlines()
    return {"failed": lines[-1] if lines else ""} if found.returncode else json.loads(lines[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variants", nargs="*", default=["paper_7b", "paper_13b"], metavar="VARIANT")
    parser.add_argument("--memory", metavar="SIZE", help="cap, such as 22GiB; by default the whole card")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--trl", action="store_true", help="also TRL's defaults")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    memory = parse_memory(options.memory) if options.memory else None
    if options.child:
        print(json.dumps(WAYS[options.child](options.variants[0], memory, options.rows, options.length)))
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError("no NVIDIA GPU here; on a CPU: llama-qna plan VARIANT --rehearse")
    found = {}
    print(f"{'':24}{'tokens/s':>10}{'peak GiB':>10}{'of limit':>10}{'answers/s':>11}")
    for name in options.variants:
        for way in ("ours", "trl") if options.trl else ("ours",):
            result = found[f"{name}, {way}"] = child(way, name, options)
            if "failed" in result:
                print(f"{name + ', ' + way:24}{result['failed'][:90]}")
                continue
            share = f"{result['share_of_limit']:.0%}" if "share_of_limit" in result else "-"
            answers = f"{result['answers_per_second']:.1f}" if "answers_per_second" in result else "-"
            numbers = f"{result['tokens_per_second']:>10.0f}{result['peak'] / GIB:>10.1f}"
            print(f"{name + ', ' + way:24}{numbers}{share:>10}{answers:>11}", flush=True)
    about = {"memory": options.memory, "rows": options.rows, "length": options.length, "found": found}
    about |= {"date": datetime.now(UTC).date().isoformat(), "git": provenance.git_state()}
    card = torch.cuda.get_device_name().lower().replace(" ", "_")
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"gpu_{card}.json", about | {"machine": provenance.machine()})


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"gpu.py: {error}")
