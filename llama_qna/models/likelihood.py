"""How likely texts are to a model: per token, after their prompts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from llama_qna.models import caches
from llama_qna.models.batches import in_batches
from llama_qna.models.generate import shared_beginning
from llama_qna.models.prompts import nothing_id

PACKED = 384  # tokens of prompts and texts that are scored at once
TOGETHER = 8  # answers scored at once, each after its own prompt: of 4, 8, 16 and 32 the quickest on two cores


@torch.inference_mode()
def candidate_log_likelihoods(model, prompts: list[list[int]], candidates: list[list[int]]) -> list[float]:
    """Mean log-probability per token, in nats, of each candidate text after its prompt; N floats.

    For many candidates after few prompts: each prompt is computed once, however many texts follow it, and a beginning
    that all prompts share once for all. Prompts and texts lie one after the other without padding; the mask lets a text
    see its own prompt and itself. For prompts that have little in common, see `answer_log_likelihoods`.

    Args:
        prompts, candidates: `input_ids`, ragged, N lists each.
    """
    if not prompts:
        return []
    heads = [prompt[:-1] for prompt in prompts]  # the last token is computed with the text that it tells
    prefix, shared = shared_beginning(model, heads)
    texts_after: dict[tuple[int, ...], list[int]] = {}  # the rest of a prompt -> the numbers of its texts
    for number, head in enumerate(heads):
        texts_after.setdefault(tuple(head[prefix:]), []).append(number)
    likelihoods = [0.0] * len(heads)
    for batch in _packed(texts_after, candidates):
        input_ids, position_ids, prompt_of, text_of = _laid_out(batch, prompts, candidates, prefix).to(model.device)
        same_prompt = prompt_of[:, None] == prompt_of  # (T, T), of the T tokens of the batch
        own_text = (text_of < 0) | (text_of[:, None] == text_of)  # (T, T): the prompt itself is no text, -1
        seen = (same_prompt & own_text).tril()  # (T, T): of all that, what stands before
        mask = torch.cat([seen.new_ones(len(seen), prefix), seen], 1)[None, None]  # (1, 1, T, prefix + T)
        cache = caches.expanded(shared, 1) if shared else caches.roomy()
        hidden = model.get_decoder()(
            input_ids[None], attention_mask=mask, position_ids=position_ids[None], past_key_values=cache
        ).last_hidden_state[0]  # (T, D)
        logits = model.lm_head(hidden[text_of >= 0])  # (tokens of the texts, V)
        numbers = [number for _, numbers in batch for number in numbers]
        targets = torch.tensor([token for number in numbers for token in candidates[number]], device=logits.device)
        scores = -nats(logits, targets)  # (tokens of the texts,)
        lengths = [len(candidates[number]) for number in numbers]
        for number, of_text in zip(numbers, scores.split(lengths), strict=True):
            likelihoods[number] = of_text.mean().item()
    return likelihoods


def doubts_of(model, tokenizer, prompt_ids: list[list[int]]) -> list[float]:
    """How likely a reader is to write that a passage does not tell, after each prompt: nats, N floats."""
    return candidate_log_likelihoods(model, prompt_ids, [[nothing_id(tokenizer)]] * len(prompt_ids))


def _packed(texts_after: dict[tuple[int, ...], list[int]], candidates: list[list[int]]) -> list[list[tuple]]:
    """Rests of prompts, each with the numbers of its texts, in batches of about `PACKED` tokens."""
    batches, size = [], PACKED
    for rest, numbers in texts_after.items():
        if size >= PACKED:
            batches.append([])
            size = 0
        batches[-1].append((rest, numbers))
        size += len(rest) + sum(len(candidates[number]) for number in numbers)
    return batches


def _laid_out(batch: list[tuple], prompts: list[list[int]], candidates: list[list[int]], prefix: int) -> torch.Tensor:
    """Of every token of a batch its id, its position, the number of its prompt, and of its text, or -1: (4, T)."""
    tokens = []
    for of_prompt, (rest, numbers) in enumerate(batch):
        tokens += [(token, prefix + place, of_prompt, -1) for place, token in enumerate(rest)]
        for number in numbers:
            telling = prompts[number][-1:] + candidates[number][:-1]  # each tells the next token of the text
            first = prefix + len(rest)
            tokens += [(token, first + place, of_prompt, number) for place, token in enumerate(telling)]
    return torch.tensor(tokens).T


@torch.inference_mode()
def answer_log_likelihoods(model, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
    """Mean log-probability per token, in nats, of each answer after its prompt; N floats.

    For prompts that have little in common: padded batches of similar length.

    Args:
        prompts, answers: `input_ids`, ragged, N lists each; the answers with the token that ends them.
    """
    found = [0.0] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    head = model.get_output_embeddings().weight  # (V, D)

    def score(rows: list[int]) -> None:
        texts = [torch.tensor(prompts[i] + answers[i], device=model.device) for i in rows]
        input_ids = pad_sequence(texts, batch_first=True)  # (B, T)
        mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)  # (B, T)
        hidden = model.get_decoder()(input_ids, attention_mask=mask, use_cache=False).last_hidden_state  # (B, T, D)
        for row, text, i in zip(hidden, texts, rows, strict=True):
            start = len(prompts[i])
            logits = F.linear(row[start - 1 : len(text) - 1], head).float()  # (answer, V)
            found[i] = -F.cross_entropy(logits, text[start:]).item()

    in_batches(order, TOGETHER, score)
    return found


TILE = 32  # rows of logits: 6 MB in float32, which stay in a CPU's cache; the passes over them are five times as quick


def nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood, (T,), of `targets`, (T,), under `logits`, (T, V); float32, a tile at a time."""
    tiles = zip(logits.split(TILE), targets.split(TILE), strict=True)
    return torch.cat([F.cross_entropy(tile.float(), wanted, reduction="none") for tile, wanted in tiles])
