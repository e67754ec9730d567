"""The systems that questions are asked of: one name for each in the terminal, on the page and in every table.

Closed book a model is given the question alone. A system whose name ends in `+passages`, and the reader, are given
passages of the documents as well.
"""

from __future__ import annotations

from llama_qna import UserError

PASSAGES = "+passages"
# that people can ask
SYSTEMS = ("reader", "base", "pretrained", "finetuned", f"base{PASSAGES}", f"finetuned{PASSAGES}")
NO_MODEL = "no model"  # the context of the systems that no model stands behind
# those systems: what a score is worth is seen from what they get for it
FREE = {
    "question": "the question itself",
    "always_not": "always “not said”",
    "best_sentence": "the best sentence (BM25)",
    "best_or_not": "best sentence or “not said”",
    "gold_evidence": "the gold evidence sentence",
}
# all that are compared, in the order of the tables: what costs nothing, models, ceilings
LABELS = {name: FREE[name] for name in FREE if name != "gold_evidence"} | {
    "reader": "reader with passages",
    "base": "base",
    "pretrained": "pretrained",
    "finetuned_only": "fine-tuned without pretraining",
    "finetuned": "fine-tuned",
    f"base{PASSAGES}": "base with passages",
    f"pretrained{PASSAGES}": "pretrained with passages",
    f"finetuned_only{PASSAGES}": "fine-tuned without pretraining, with passages",
    f"finetuned{PASSAGES}": "fine-tuned with passages",
    "base+right_chunk": "base given the right chunk",
    "gold_evidence": FREE["gold_evidence"],
}
CEILINGS = ("base+right_chunk", "gold_evidence")  # are told where the answer stands: no systems that could be used


def model_of(system: str) -> str:
    """The model behind a system: `reader`, `base`, `pretrained` or `finetuned`.

    Raises:
        UserError: there is no such system.
    """
    if system not in SYSTEMS:
        raise UserError(f"there is no system {system!r}; there are: {', '.join(SYSTEMS)}")
    return system.removesuffix(PASSAGES)


def is_given_passages(system: str) -> bool:
    """Whether a system is given passages.

    Raises:
        UserError: there is no such system.
    """
    return model_of(system) == "reader" or system.endswith(PASSAGES)
