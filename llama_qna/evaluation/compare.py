"""Answers with their scores become `metrics.json`: means with intervals, and which differences chance may explain."""

from __future__ import annotations

import math

from llama_qna import UserError
from llama_qna.evaluation.intervals import difference, holm, interval
from llama_qna.evaluation.scoring import EVIDENCE_SCORES
from llama_qna.project.recipe import Evaluation
from llama_qna.project.systems import FREE, LABELS
from llama_qna.text.scores import ROUGE_NAMES
from llama_qna.text.search import recall_at_k

LEADING = ["right", "right_own", "new_words_f1"]
SCORES = [*LEADING, "evidence_shown", *EVIDENCE_SCORES, *ROUGE_NAMES]
SCORES += ["exact_match", "f1", "copied", "says_so", "empty", "run_on"]
COMPARED = ["right", "new_words_f1", "rougeL", "f1"]  # the scores whose differences are tested
BY_KIND = ["right", "new_words_f1"]
LIKELIHOOD = "log_likelihood"  # of the reference answer; for systems without context alone, and tested likewise
AGAINST = ["question", "best_sentence", "reader", "base", "base+passages", "finetuned_only", "finetuned_only+passages"]


def summarize(about: dict, checkpoints: list[dict], predictions: list[dict], published: dict[str, float]) -> dict:
    """Compute the content of `metrics.json` from the predictions.

    Args:
        about: `variant`, `base_model`, `protocols`, `chosen`.
        checkpoints: name, stage, step, perplexities of the base and of every checkpoint, in order, and `whole`: whether
            all texts and training questions measured it, and not their sample alone.
        predictions: the rows of `predictions.jsonl`.
        published: perplexity by the study's arithmetic of each stage.

    Returns:
        `about` with `questions`, `checkpoints` (with in-sample ROUGE, `sample`, perplexities and ROUGE of the sample
        alone, and on `dev` scores with their intervals and differences to base, with p values corrected across
        checkpoints by Holm), `dev` (the scores of the systems of `systems.FREE` on that fold), `systems` (each score
        with its 95% interval, clustered by section, paired differences, by kind of question, and `says_so`, see
        `_says_so`), `retrieval` and `published`.

    Raises:
        UserError: a score is no finite number.
    """
    check_finite(about["variant"], {found["name"]: found["perplexity"] for found in checkpoints}, predictions)
    for stage, value in published.items():
        _check(about["variant"], value, "perplexity by the study's arithmetic", stage)
    by = {}
    for row in predictions:
        by.setdefault((row["protocol"], row["system"]), []).append(row)
    curve = [_checkpoint(checkpoint, by) for checkpoint in checkpoints]
    _correct([entry["dev_against_base"] for entry in curve if "dev_against_base" in entry])
    systems = [_system(name, by) for name in LABELS if ("test", name) in by]
    for other in AGAINST:
        _correct([system["against"][other] for system in systems if other in system["against"]])

    def count(asked: str) -> int:  # a checkpoint may have been asked a sample alone
        return max((len(rows) for (protocol, _), rows in by.items() if protocol == asked), default=0)

    questions = {protocol: count(protocol) for protocol in ("in_sample", "dev", "test")}
    return about | {
        "questions": questions | about.get("questions", {}),
        "unanswerable": count("test unanswerable"),
        "checkpoints": curve,
        "dev": {name: _means(by["dev", name], COMPARED) for name in FREE if ("dev", name) in by},
        "systems": systems,
        "retrieval": _retrieval(by.get(("test", "base+passages"))),
        "published": [
            {"name": stage, "perplexity": value}
            | ({"rouge": _means(by["published", stage], ROUGE_NAMES)} if ("published", stage) in by else {})
            for stage, value in published.items()
        ],
    }


def check_finite(variant: str, perplexities: dict[str, dict], predictions: list[dict]) -> None:
    """Refuse scores that are no finite numbers: they come from a model that training broke.

    Args:
        perplexities: model -> kind of text -> what `evaluation.perplexity.perplexity` found.
        predictions: the rows of `predictions.jsonl`.

    Raises:
        UserError: with the first such score and the model or system that has it.
    """
    for name, texts in perplexities.items():
        for text, found in texts.items():
            for score in ("perplexity", "bits_per_byte"):
                _check(variant, found.get(score, 0.0), f"{score.replace('_', ' ')} on {text} text", name)
    for row in predictions:
        for score in [*SCORES, LIKELIHOOD]:
            _check(variant, row.get(score, 0.0), f"{score} on {row['protocol']} questions", row["system"])


def _check(variant: str, value: float, score: str, name: str) -> None:
    if not math.isfinite(value):
        raise UserError(
            f"{variant}: {score} of {name} is {value}, no number; look at the training log for a loss that exploded"
        )


def best_on_dev(predictions: list[dict], stage: str = "finetuning") -> str | None:
    """The checkpoint of a stage with the best new words F1 on `dev`, of equals the earliest; None if none was asked.

    Not ROUGE-L, which an echo of the question earns; and not `right`, which is too coarse on a few dozen questions.
    """
    rows = {}
    for row in predictions:
        if row["protocol"] == "dev" and row["system"].startswith(f"{stage} "):
            rows.setdefault(row["system"], []).append(row)
    return max(rows, key=lambda name: _means(rows[name], ["new_words_f1"])["new_words_f1"], default=None)


def protocols(settings: Evaluation, general: str, published: dict, texts: list[str]) -> dict[str, str]:
    """What was measured how, in a sentence each."""
    limit = settings.max_new_tokens
    wikitext2 = "; wikitext2: the raw test split of WikiText-2, never trained on" if "wikitext2" in texts else ""
    return {
        "perplexity": f"exp(sum of nll / scored tokens), window {settings.window}, stride {settings.stride}; "
        f"domain: the text trained on, heldout: the held-out sections, general: {general}, never trained on{wikitext2}",
        "sample": f"{settings.sample} training questions and {settings.sample_windows} windows of each text measure "
        "every checkpoint, the same for all; those that are `whole` are measured by all questions and texts besides",
        "in_sample": f"the training questions, greedy decoding, up to {limit} new tokens, rouge-score F1 without "
        "stemming, answer labels stripped",
        "heldout": "gold questions, or else generated ones, that nothing was trained on, greedy decoding, up to "
        f"{limit} new tokens; the checkpoint is chosen by new words F1 on the fold dev; 95% intervals of 10,000 "
        "bootstrap draws of sections; log_likelihood: mean log-probability per token of the reference answer, natural "
        "logarithm, without context",
        "published": "the study's arithmetic: training chunks drawn with replacement, window 1024, stride 512, mean "
        f"over windows; the first {published['questions']} training questions, sampled at temperature "
        f"{published['temperature']}, up to {published['max_new_tokens']} new tokens, references with their label",
    }


def _means(rows: list[dict], names: list[str]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def _checkpoint(checkpoint: dict, by: dict) -> dict:
    rows = by["in_sample", checkpoint["name"]]
    sampled = [row for row in rows if row["sample"]]
    perplexity = {text: found["sample"]["perplexity"] for text, found in checkpoint["perplexity"].items()}
    entry = checkpoint | {"rouge": _means(rows, ROUGE_NAMES)}
    entry["sample"] = {"perplexity": perplexity, "rouge": _means(sampled, ROUGE_NAMES)}
    dev, base = by.get(("dev", checkpoint["name"])), by.get(("dev", "base"))
    if dev:
        entry["dev"], found = _means(dev, COMPARED), _intervals(dev, COMPARED)
        entry["dev_interval"] = {score: {end: found[score][end] for end in ("low", "high")} for score in COMPARED}
        if checkpoint["stage"] != "base":
            entry["dev_against_base"] = _differences(dev, base)
    return entry


def _system(name: str, by: dict) -> dict:
    rows = by["test", name]

    def of_split(split: str) -> dict | None:
        part = [row for row in rows if row["split"] == split]
        return _means(part, COMPARED) | {"questions": len(part)} if part else None

    def of_kind(kind: str) -> dict:
        part = [row for row in rows if row["kind"] == kind]
        return {"questions": len(part)} | _intervals(part, BY_KIND)

    return {
        "name": name,
        "label": LABELS[name],
        "checkpoint": rows[0]["checkpoint"],
        "context": rows[0]["context"],
        "scores": _intervals(rows, [score for score in [*SCORES, LIKELIHOOD] if score in rows[0]]),
        "trained_sections": of_split("train"),
        "heldout_sections": of_split("heldout"),
        "kinds": {kind: of_kind(kind) for kind in sorted({row["kind"] for row in rows})},
        "says_so": _says_so(rows, by.get(("test unanswerable", name), [])),
        "against": {
            other: _differences(rows, by["test", other])
            for other in AGAINST
            if other != name and ("test", other) in by and _alike(name, other, by)
        },
    }


def _intervals(rows: list[dict], names: list[str]) -> dict[str, dict]:
    sections = [row["section"] for row in rows]
    return {name: interval([row[name] for row in rows], sections) for name in names}


def _says_so(rows: list[dict], unanswerable: list[dict]) -> dict | None:
    """How often a system says that the documents do not say; None if it was asked no unanswerable question.

    Returns:
        `right`, the share of the unanswerable questions on which it does, and `wrong`, that of the answerable ones
        whose evidence was before it (all, where a row does not tell what was shown); each with its interval, `wrong`
        None where there is no such question.
    """
    if not unanswerable:
        return None
    before = [row for row in rows if set(row["chunk_ids"]) & set(row.get("shown", row["chunk_ids"]))]
    return {
        "right": _intervals(unanswerable, ["says_so"])["says_so"],
        "wrong": _intervals(before, ["says_so"])["says_so"] if before else None,
        "unanswerable": len(unanswerable),
        "answerable": len(before),
    }


def _alike(name: str, other: str, by: dict) -> bool:
    """Whether two systems may be compared: fine-tuned checkpoints only if both were chosen on dev, or at one step.

    Otherwise the one would be the best of several on `dev` and the other simply the last.
    """
    tuned = [by["test", system][0]["checkpoint"] for system in (name, other) if system.startswith("finetun")]
    chosen = all(("dev", checkpoint) in by for checkpoint in tuned)
    return chosen or len({checkpoint.rpartition("-")[2] for checkpoint in tuned}) == 1


def _differences(rows: list[dict], others: list[dict]) -> dict[str, dict]:
    """Paired differences of the compared scores; both sides answered the same questions in the same order."""
    sections = [row["section"] for row in rows]
    return {
        score: difference([row[score] for row in rows], [row[score] for row in others], sections)
        for score in [*COMPARED, LIKELIHOOD]
        if score in rows[0] and score in others[0]
    }


def _correct(family: list[dict[str, dict]]) -> None:
    """Add to each difference of a family its p value corrected by Holm, score by score."""
    for score in [*COMPARED, LIKELIHOOD]:
        compared = [differences[score] for differences in family if score in differences]
        adjusted = holm({str(n): tested["p"] for n, tested in enumerate(compared)})
        for tested, p in zip(compared, adjusted.values(), strict=True):
            tested["p_holm"] = p


def _retrieval(rows: list[dict] | None) -> dict | None:
    """The share of questions with a right chunk among the first k that were found."""
    if not rows:
        return None
    wanted = [set(row["chunk_ids"]) for row in rows]
    found = {f"recall@{k}": recall_at_k([row["retrieved"][:k] for row in rows], wanted) for k in (1, 3, 5)}
    return found | {"questions": len(rows)}
