"""Perplexity in the study's arithmetic as a metric of Hugging Face `evaluate` that loads from this folder.

>>> perplexity = evaluate.load("llama_qna/evaluation/hf/perplexity")
>>> perplexity.compute(predictions=texts, model=model, tokenizer=tokenizer)["perplexity"]

It follows the guide "Perplexity of fixed-length models" of Hugging Face's transformers: windows that overlap, each
scored where the one before did not reach. Like the study it takes the mean of the windows' means, so a short last
window weighs as much as a full one. `evaluation.perplexity.perplexity` divides sums once instead.
"""

import math

import datasets
import evaluate
import torch


class Perplexity(evaluate.Metric):
    """Takes texts as `predictions`, which are joined by blank lines, a model and its tokenizer."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    @torch.inference_mode()
    def _compute(self, predictions, model, tokenizer, window=1024, stride=512):
        ids = tokenizer("\n\n".join(predictions), return_tensors="pt").input_ids.to(model.device)  # (1, T)
        losses, reached = [], 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + window, ids.shape[1])
            read = ids[:, begin:end]
            labels = read.clone()
            labels[:, : reached - begin] = -100  # scored by the window before
            losses.append(model(read, labels=labels).loss.item())
            reached = end
            if end == ids.shape[1]:
                break
        return {"perplexity": math.exp(sum(losses) / len(losses))}
