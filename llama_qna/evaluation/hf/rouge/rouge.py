"""ROUGE-1, -2 and -L as a metric of Hugging Face `evaluate` that loads from this folder, without the hub.

>>> rouge = evaluate.load("llama_qna/evaluation/hf/rouge")
>>> rouge.compute(predictions=["a small door"], references=["the small door"])["rouge1"]

The metric `rouge` of the hub, as the study used it, computes the same with the same package: F1 of each answer (Lin
2004, google's `rouge-score`, no stemming), and the mean over all answers.
"""

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

NAMES = ["rouge1", "rouge2", "rougeL"]


class Rouge(evaluate.Metric):
    """Takes `predictions` and `references`, N texts each, and returns the three means, each from 0 to 1."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references):
        scorer = RougeScorer(NAMES)
        scores = [scorer.score(reference, said) for said, reference in zip(predictions, references, strict=True)]
        return {name: sum(score[name].fmeasure for score in scores) / len(scores) for name in NAMES}
