"""Scores of strings: plain functions, no model."""

from __future__ import annotations

import re

from rouge_score.rouge_scorer import RougeScorer

ROUGE_NAMES = ["rouge1", "rouge2", "rougeL"]
_scorer = RougeScorer(ROUGE_NAMES, use_stemmer=False)  # no stemming, as in the study


def rouge(answer: str, reference: str) -> dict[str, float]:
    """ROUGE-1, -2 and -L F1 of one answer, 0 to 1 (Lin 2004, as in google's `rouge-score`, without stemming).

    A label such as `Answer:` is stripped from both sides: the study left it in its references, and every answer that
    repeated it scored a word for free.
    """
    scores = _scorer.score(strip_label(reference), strip_label(answer))
    return {name: scores[name].fmeasure for name in ROUGE_NAMES}


def mean_rouge(scores: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each ROUGE over the questions."""
    return {name: sum(score[name] for score in scores) / len(scores) for name in ROUGE_NAMES}


def strip_label(text: str) -> str:
    return re.sub(r"^\W*answer\W*:\s*", "", text, flags=re.IGNORECASE).strip()
