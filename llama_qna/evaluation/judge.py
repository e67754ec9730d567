"""Another model judges the test answers besides, where the recipe names its server; off by default.

No score depends on it. It runs after the evaluation is done and kept, so that a server that is gone costs nothing, and
another judge needs no answer again.
"""

from __future__ import annotations

import hashlib
import re

from llama_qna import UserError
from llama_qna.models.server import complete_all, without_thoughts
from llama_qna.project.data import read_metrics
from llama_qna.project.files import read_lines, write_json, write_lines
from llama_qna.project.stage import amend
from llama_qna.project.variant import Variant

PROMPT = """\
Judge an answer to a question about a document.

Question: {question}
Sentence of the document: {evidence}
Reference answer: {reference}
Answer to judge: {answer}

The answer is right if it says what the reference says, in whatever words; partly right if it says a part of it, or
adds something false; wrong if it says something else, or nothing. Reply with one word: right, partly or wrong."""
VERDICTS = ("right", "partly", "wrong", "unclear")
MOST_TOKENS = 1000  # of a reply: a reasoning model thinks aloud first
_WORDS = re.compile(r"\b(partly|partially|incorrect|wrong|right|correct)\b")
_NOT_WHOLLY = re.compile(r"\b(?:not|\w+n't) (?:quite|entirely|fully|completely|wholly) (?:right|correct)\b")
_NOT = re.compile(r"\b(?:not|\w+n't) (?:(?:a|the|really) )?(?:right|correct)\b")
_MEANING = {"partly": "partly", "partially": "partly", "right": "right", "correct": "right"}  # the others mean wrong


def judge(variant: Variant) -> None:
    """Let the model of `evaluation.judge` judge the test answers of every system, unless it has done so.

    Each of these rows of `predictions.jsonl` gets `judged` (by whom, sha256 of the prompt, verdict); `metrics.json`
    gets the shares of verdicts of each system, and `judge` with the model, the prompt and the number of answers. A line
    says where the server does not answer; then nothing is changed.
    """
    endpoint, metrics = variant.recipe.evaluation.judge, read_metrics(variant)
    if endpoint is None:
        return
    about = {"model": endpoint.model, "prompt": PROMPT, "prompt_sha256": hashlib.sha256(PROMPT.encode()).hexdigest()}
    if about.items() <= metrics.get("judge", {}).items():
        return
    path = variant.evaluation / "predictions.jsonl"
    rows = read_lines(path)
    asked = [row for row in rows if row["protocol"] == "test"]
    try:
        verdicts = _verdicts(endpoint, [_prompt(row) for row in asked], variant.recipe.seed)
    except UserError as error:
        print(f"no verdicts of {endpoint.model}: {error}")
        return
    for row, verdict in zip(asked, verdicts, strict=True):
        row["judged"] = {"by": endpoint.model, "prompt_sha256": about["prompt_sha256"], "verdict": verdict}
    with amend(variant, "evaluate") as folder:
        write_lines(folder / path.name, rows)
        write_json(folder / "metrics.json", with_verdicts(metrics, about, asked))


def with_verdicts(metrics: dict, about: dict, judged: list[dict]) -> dict:
    """The content of `metrics.json` with the shares of verdicts of every system, and how many there are in all."""
    systems = []
    for system in metrics["systems"]:
        verdicts = [row["judged"]["verdict"] for row in judged if row["system"] == system["name"]]
        shares = {verdict: verdicts.count(verdict) / max(1, len(verdicts)) for verdict in VERDICTS}
        systems.append(system | {"judged": shares})
    unclear = sum(row["judged"]["verdict"] == "unclear" for row in judged)
    return metrics | {"systems": systems, "judge": about | {"answers": len(judged), "unclear": unclear}}


def verdict_of(reply: str) -> str:
    """The verdict of a reply: the word that it begins with, or the only one in it; else it is unclear.

    >>> verdict_of("**Partially correct**: it names one of the two.")
    'partly'
    """
    said = without_thoughts(reply).lower().replace("’", "'")
    said = _NOT.sub("wrong", _NOT_WHOLLY.sub("partly", said))
    said = re.sub(r"^\W*(?:(?:the )?(?:answer|verdict)(?: is)?\W*)?", "", said)
    said = re.sub(r"\b(partly|partially)\W+(right|correct)\b", "partly", said)
    found = [_MEANING.get(word, "wrong") for word in _WORDS.findall(said)]
    return found[0] if _WORDS.match(said) or len(set(found)) == 1 else "unclear"


def _prompt(row: dict) -> str:
    asked = {"question": row["question"], "evidence": row["gold_evidence"], "answer": row["answer"] or "(nothing)"}
    return PROMPT.format(reference=" | ".join([row["reference"], *row["variants"]]), **asked)


def _verdicts(endpoint, prompts: list[str], seed: int) -> list[str]:
    """The verdict on each prompt; one that stands several times is sent once.

    Raises:
        UserError: as `complete_all`, or the server refuses every one of them.
    """
    once = list(dict.fromkeys(prompts))
    replies = list(
        complete_all(
            endpoint,
            [[{"role": "user", "content": prompt}] for prompt in once],
            max_tokens=MOST_TOKENS,
            temperature=0.0,
            seeds=[seed] * len(once),
            setting="evaluation.judge",
        )
    )
    if replies and all(reply.error for reply in replies):
        raise UserError(f"{endpoint.url}: the server refuses every request ({replies[0].error}); see evaluation.judge")
    # the thoughts of a reply that was cut off may have begun in the prompt, and look like what it says
    found = {once[reply.index]: "unclear" if reply.cut_off else verdict_of(reply.text) for reply in replies}
    return [found[prompt] for prompt in prompts]
