"""Perplexity of a text in windows: our totals over all scored tokens, and the study's mean over windows.

The windows of equal stride and width are those of lm-evaluation-harness, and a test holds the two together.
"""

from __future__ import annotations

import math
import random
from itertools import groupby

from llama_qna import UserError
from llama_qna.models import prompts
from llama_qna.models.batches import in_batches
from llama_qna.models.likelihood import nats

SCORED = 1024  # positions whose scores over the whole vocabulary exist at once: 100 MB in 16 bits for 49,152 tokens


def perplexity(
    model,
    tokenizer,
    text: str,
    window: int,
    stride: int,
    batch_size: int = 8,
    sample: int | None = None,
    whole: bool = True,
) -> dict:
    """Perplexity of a text: exp(sum of nll / number of scored tokens), every token scored once.

    Each window begins `stride` tokens after the one before and scores only the tokens that no earlier one scored, each
    with at least window - stride tokens of context where there are so many. Where window and stride are equal, a
    window reads one token before those that it scores, and the last one reaches back until it is full: these are the
    rolling windows of lm-evaluation-harness (`loglikelihood_rolling`, context_len=1).

    Args:
        window: tokens that the model reads at once.
        stride: tokens from one window to the next, at most `window`.
        batch_size: windows at once, fewer where they would score more than 1024 tokens together.
        sample: windows of a sample, which is the same for every model.
        whole: score all windows; else those of the sample alone.

    Returns:
        `perplexity`, `nll` (nats, summed), `tokens` (scored), `bits_per_byte` (of the UTF-8 text, where it was scored
        whole), `window`, `stride` and `start_token` (whether the tokenizer put one before the text, so that the text's
        first token was scored too; it is in neither tokens nor bytes); with a sample also `sample`, the first three of
        it.

    Raises:
        UserError: the stride is longer than the window, or the text has no token to score.
    """
    ids = prompts.text_ids(tokenizer, text)
    spans = _windows(len(ids), window, stride)
    drawn = sorted(random.Random(0).sample(range(len(spans)), min(sample or len(spans), len(spans))))
    losses = _window_losses(model, ids, spans if whole else [spans[n] for n in drawn], batch_size)
    found = _totals(losses)
    if whole:
        found["bits_per_byte"] = found["nll"] / math.log(2) / len(text.encode("utf-8"))
    if sample:
        found["sample"] = _totals([losses[n] for n in drawn] if whole else losses)
    # text alone never yields a start token: control tokens in it are plain text
    return found | {"window": window, "stride": stride, "start_token": ids[0] == tokenizer.bos_token_id}


def _totals(losses: list[tuple[float, int]]) -> dict[str, float]:
    nll, tokens = sum(nats for nats, _ in losses), sum(scored for _, scored in losses)
    return {"perplexity": _exp(nll / tokens), "nll": nll, "tokens": tokens}


def published_perplexity(
    model, tokenizer, texts: list[str], window: int = 1024, stride: int = 512, seed: int = 42
) -> float:
    """Perplexity in the study's arithmetic, for comparison with its numbers only.

    As many chunks as there are, drawn with replacement, are joined by blank lines; the mean loss of each window's
    scored tokens is averaged over the windows and exponentiated. Short last windows thus weigh as much as full ones,
    and about a third of the chunks is missing (`data/published_results.json`).

    Args:
        texts: the chunks that were trained on.
        window, stride: tokens, as for `perplexity`.

    Raises:
        UserError: there are no chunks, or as for `perplexity`.
    """
    if not texts:
        raise UserError("the published perplexity needs chunks, and there are none")
    drawn = random.Random(seed).choices(texts, k=len(texts))
    ids = prompts.text_ids(tokenizer, "\n\n".join(drawn))
    losses = _window_losses(model, ids, _windows(len(ids), window, stride))
    return _exp(sum(nats / scored for nats, scored in losses) / len(losses))


def _windows(length: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """The windows over `length` tokens: where each begins and ends, and how many of its last tokens it scores."""
    if not 0 < stride <= window:
        raise UserError(f"perplexity needs a stride from 1 to the window, not stride {stride} and window {window}")
    if length < 2:
        raise UserError("perplexity needs a text of at least two tokens, or one after a start token")
    touching = stride == window
    reach = window + 1 if touching else window  # the last token is only scored, never read
    begin, scored, spans = 0, 1, []
    while scored < length:
        end = min(begin + reach, length)
        first = max(end - reach, 0) if touching else begin  # the last touching window reaches back until it is full
        spans.append((first, end, end - scored))
        begin, scored = begin + stride, end
    return spans


def _window_losses(
    model, ids: list[int], spans: list[tuple[int, int, int]], batch_size: int = 8
) -> list[tuple[float, int]]:
    """Nats of each window's scored tokens, and how many these are; windows alike in both lengths go in one batch."""
    import torch

    losses = []

    def score(alike: list[tuple[int, int, int]]) -> None:
        scored = alike[0][2]
        batch = torch.tensor([ids[begin:end] for begin, end, _ in alike], device=model.device)  # (B, T)
        with torch.inference_mode():
            logits = model(batch[:, :-1], use_cache=False, logits_to_keep=scored).logits  # (B, scored, V)
        targets = batch[:, -scored:]  # (B, scored)
        losses.extend([(nats(*row).double().sum().item(), scored) for row in zip(logits, targets, strict=True)])

    for (_, scored), alike in groupby(spans, key=lambda span: (span[1] - span[0], span[2])):
        in_batches(list(alike), max(1, min(batch_size, SCORED // scored)), score)
    return losses


def _exp(nats: float) -> float:
    """e to a mean loss; infinite where it is too large for a float, as that of a model that exploded may be."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
