"""How likely texts are to a model: per token, after their prompts."""

from __future__ import annotations

import torch

from llama_qna.models import caches
from llama_qna.models.generate import shared_beginning

PACKED = 384  # tokens of prompts and texts that are scored at once


@torch.inference_mode()
def log_likelihoods(model, tokenizer, prompts: list[list[int]], texts: list[str]) -> list[float]:
    """Mean log-probability per token (natural logarithm) of each text after its prompt; N floats.

    Each prompt is computed once, however many texts follow it, and a beginning that all prompts share once for all.
    Prompts and texts lie one after the other without padding; the mask lets a text see its own prompt and itself.

    Args:
        prompts: `input_ids` of each prompt, ragged: N lists of (T_i,).
    """
    if not prompts:
        return []
    heads = [prompt[:-1] for prompt in prompts]  # the last token is computed with the text that it tells
    ends = tokenizer([f" {text}" for text in texts], add_special_tokens=False)["input_ids"]
    prefix, shared = shared_beginning(model, heads)
    branches: dict[tuple[int, ...], list[int]] = {}
    for i, head in enumerate(heads):
        branches.setdefault(tuple(head[prefix:]), []).append(i)
    likelihoods = [0.0] * len(heads)
    for trees in _packed(branches, ends):
        input_ids, position_ids, tree, branch = _laid_out(trees, prompts, ends, prefix).to(model.device)
        seen = (tree[:, None] == tree) & ((branch < 0) | (branch[:, None] == branch))
        mask = torch.cat([seen.new_ones(len(seen), prefix), seen.tril()], 1)[None, None]  # (1, 1, T, prefix + T)
        cache = caches.expanded(shared, 1) if shared else caches.roomy()
        hidden = model.get_decoder()(
            input_ids[None], attention_mask=mask, position_ids=position_ids[None], past_key_values=cache
        ).last_hidden_state[0]
        logits = model.lm_head(hidden[branch >= 0])  # (tokens of the texts, V)
        rows = [i for _, rows in trees for i in rows]
        target = torch.tensor([token for i in rows for token in ends[i]], device=logits.device)
        scores = -nats(logits, target)
        for i, part in zip(rows, scores.split([len(ends[i]) for i in rows]), strict=True):
            likelihoods[i] = part.mean().item()
    return likelihoods


def _packed(branches: dict[tuple[int, ...], list[int]], ends: list[list[int]]) -> list[list[tuple]]:
    """Prompts, each with the numbers of its texts, in batches of about `PACKED` tokens."""
    batches, size = [], PACKED
    for stem, rows in branches.items():
        if size >= PACKED:
            batches.append([])
            size = 0
        batches[-1].append((stem, rows))
        size += len(stem) + sum(len(ends[i]) for i in rows)
    return batches


def _laid_out(trees: list[tuple], prompts: list[list[int]], ends: list[list[int]], prefix: int) -> torch.Tensor:
    """Of every token of a batch its id, its position, the number of its prompt, and of its text, or -1: (4, T)."""
    tokens = []
    for number, (stem, rows) in enumerate(trees):
        tokens += [(token, prefix + place, number, -1) for place, token in enumerate(stem)]
        for i in rows:
            told = prompts[i][-1:] + ends[i][:-1]
            tokens += [(token, prefix + len(stem) + place, number, i) for place, token in enumerate(told)]
    return torch.tensor(tokens).T


TILE = 32  # of them in float32: 6 MB, which stay in a CPU's cache, so that the passes over them are five times as quick


def answer_log_likelihoods(
    model, prompt_ids: list[list[int]], answer_ids: list[list[int]], batch_size: int = 16
) -> list[float]:
    """Mean log-probability per token, in nats, of each answer after its prompt; N floats.

    Args:
        prompt_ids, answer_ids: ragged, N lists each; the answers with the token that ends them.
    """
    import torch
    import torch.nn.functional as F

    found = [0.0] * len(prompt_ids)
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]) + len(answer_ids[i]))
    head = model.get_output_embeddings().weight
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        texts = [torch.tensor(prompt_ids[i] + answer_ids[i], device=model.device) for i in rows]
        input_ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)  # (B, T)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        with torch.inference_mode():
            hidden = model.get_decoder()(input_ids, attention_mask=mask, use_cache=False).last_hidden_state
            for row, text, i in zip(hidden, texts, rows, strict=True):
                start = len(prompt_ids[i])
                logits = F.linear(row[start - 1 : len(text) - 1], head).float()  # (answer, V)
                found[i] = -F.cross_entropy(logits, text[start:]).item()
    return found


def nats(logits, targets):
    """Negative log-likelihood, (T,), of `targets`, (T,), under `logits`, (T, V); float32, a tile at a time."""
    import torch
    import torch.nn.functional as F

    tiles = zip(logits.split(TILE), targets.split(TILE), strict=True)
    return torch.cat([F.cross_entropy(tile.float(), wanted, reduction="none") for tile, wanted in tiles])
