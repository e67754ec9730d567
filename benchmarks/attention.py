"""What plain products are worth where a CPU answers: `python -m benchmarks.attention`, on the embedded base in NF4.

The test questions about the paper with two chunks each, and a text in windows, by PyTorch's attention with all prompts
at once, by it with as many as `plan.CPU_TOKENS` allows, and by `models.attention`. Writes
`benchmarks/results/attention.json`, which `benchmarks.report` reads.
"""

from __future__ import annotations

import time
from pathlib import Path
from unittest import mock

from benchmarks import report
from llama_qna.answering.retrieval import Passages, fitted_prompt
from llama_qna.evaluation.perplexity import perplexity
from llama_qna.evaluation.reading import published
from llama_qna.models import attention, batches
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.models.generate import generate_texts
from llama_qna.project import provenance
from llama_qna.project.data import GENERAL_TEXT
from llama_qna.project.files import write_json
from llama_qna.project.recipe import EMBEDDED, Quantization

RESULTS = Path(__file__).parent / "results" / "attention.json"
NEW_TOKENS, CHUNKS, WINDOW = 64, 2, 1024
WAYS = {  # name -> attention, tokens of prompts at once
    "PyTorch's attention, all prompts at once": ("sdpa", 10**9),
    "PyTorch's attention, fewer at once": ("sdpa", batches.CPU_TOKENS),
    "plain products, fewer at once": (attention.NAME, batches.CPU_TOKENS),
}


def measure() -> dict:
    """Seconds and perplexity of each way, on the same prompts and text."""
    chunks, gold, _ = published("paper")
    questions = list(gold[gold.fold == "test"].Question)
    model, tokenizer = load_base(EMBEDDED, Quantization(dequantize_once=True)), load_tokenizer(EMBEDDED)
    found = Passages(chunks).find(questions, CHUNKS)
    prompts = [fitted_prompt(tokenizer, *asked)[0] for asked in zip(questions, found, strict=True)]
    text, ways = GENERAL_TEXT.read_text(encoding="utf-8"), {}
    for name, (implementation, tokens) in WAYS.items():
        model.set_attn_implementation(implementation)
        with mock.patch.object(batches, "CPU_TOKENS", tokens):
            start = time.perf_counter()
            generate_texts(model, tokenizer, prompts, max_new_tokens=NEW_TOKENS, batch_size=len(prompts))
            answers = time.perf_counter() - start
        read = perplexity(model, tokenizer, text, WINDOW, WINDOW)["perplexity"]
        ways[name] = {"answers": answers, "reading": time.perf_counter() - start - answers, "perplexity": read}
    return {"questions": len(prompts), "tokens": sum(map(len, prompts)), "ways": ways} | provenance.measured()


if __name__ == "__main__":
    write_json(RESULTS, measure())
    report.write()
