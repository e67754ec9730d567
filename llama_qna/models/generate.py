"""Many prompts become many texts: sorted by length, in batches, with a shared beginning computed once.

`model.generate` keeps a finished row in its batch until the last one has ended; the loop here does not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from statistics import fmean
from typing import NamedTuple

import torch
from transformers import DynamicCache

from llama_qna.models import caches
from llama_qna.models.batches import in_batches, rows_that_fit


class Continuation(NamedTuple):
    """What a model wrote after a prompt, and whether it ended that itself, before the limit of new tokens.

    Where a token was watched: the mean log-probability of the text's tokens, its end among them, and that of the
    watched token in the first place, both in nats.
    """

    text: str
    ended: bool
    likelihood: float | None = None
    watched: float | None = None


def generate_texts(model, tokenizer, prompts: list[list[int]], **options) -> list[str]:
    """Continue every prompt: the texts of `continue_prompts`, which says what the options are."""
    return [found.text for found in continue_prompts(model, tokenizer, prompts, **options)]


def continue_prompts(
    model,
    tokenizer,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float | list[float] = 0.0,
    seeds: list[str] | None = None,
    stop_at_newline: bool = False,
    watch: int | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> list[Continuation]:
    """Continue every prompt, and tell which texts came to their end.

    Args:
        prompts: `input_ids` of each prompt, ragged: N lists of (T_i,).
        temperature: of all texts, or of each; 0 is greedy decoding.
        seeds: one string a prompt; with it a sampled text does not depend on what else is in its batch.
        stop_at_newline: end a text at the first line break.
        watch: a token whose likelihood in the first place is wanted; that of each text is measured too.
        done: called with the number of texts that have been finished.

    Returns:
        The N continuations in the order of the prompts, without prompt, special tokens and surrounding space.
    """
    if not prompts:
        return []
    first = {tuple(prompt): -number for number, prompt in reversed(list(enumerate(prompts)))}
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), first[tuple(prompts[i])]), reverse=True)
    prefix, cache = shared_beginning(model, prompts)
    last = {tokenizer.eos_token_id}
    if stop_at_newline:
        vocabulary = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        last |= {i for i, token in enumerate(vocabulary) if "\n" in token}
    temperatures = temperature if isinstance(temperature, list) else [temperature] * len(prompts)
    found = [Continuation("", False)] * len(prompts)

    def write(rows: list[int]) -> None:
        sampled = {i: seeds[i] for i in rows if temperatures[i]}
        choice = _Choice([temperatures[i] for i in rows], [sampled.get(i) for i in rows], model.device)
        new = _write(model, [prompts[i] for i in rows], prefix, cache, choice, last, max_new_tokens, watch)
        texts = tokenizer.batch_decode([tokens for tokens, *_ in new], skip_special_tokens=True)
        for i, text, (tokens, nats, watched) in zip(rows, texts, new, strict=True):
            text = (text.split("\n", 1)[0] if stop_at_newline else text).strip()
            found[i] = Continuation(text, tokens[-1] in last, fmean(nats) if nats else None, watched)
        done(len(rows))

    in_batches(order, batch_size, write, lambda i: rows_that_fit(model, len(prompts[i]), max_new_tokens))
    return found


@torch.inference_mode()
def _write(
    model, prompts, prefix: int, cache, choice: _Choice, last: set[int], max_new_tokens: int, watch: int | None
) -> list[tuple[list[int], list[float], float | None]]:
    """Token by token, all rows at once; a row that has ended leaves the batch. B rows.

    `places` are of rows that are still in the batch, `rows` their numbers among all B.

    Returns:
        Of each row the new tokens, their log-probabilities and that of the watched one in the first place, in nats;
        none where nothing is watched.
    """
    different = list(dict.fromkeys(map(tuple, prompts)))  # U of them: a prompt that comes several times is read once
    input_ids, mask = (tensor.to(model.device) for tensor in _pad_after_prefix(different, prefix))  # (U, T) each
    cache = caches.expanded(cache, len(different)) if cache else caches.roomy()
    position_ids = mask.cumsum(1) - 1  # (U, T): padding takes no position
    input_ids, position_ids = input_ids[:, prefix:], position_ids[:, prefix:]  # (U, T - prefix): the rest is cached
    new, measured, rows = [[] for _ in prompts], [[] for _ in prompts], list(range(len(prompts)))
    watched = [None] * len(prompts)
    for step in range(max_new_tokens):
        logits = model(
            input_ids, attention_mask=mask, position_ids=position_ids, past_key_values=cache, logits_to_keep=1
        ).logits[:, -1]  # (B, V), at the first step (U, V)
        if len(logits) < len(rows):
            numbers = {prompt: number for number, prompt in enumerate(different)}
            copies = torch.tensor([numbers[tuple(prompt)] for prompt in prompts], device=mask.device)  # (B,)
            cache.batch_select_indices(copies)
            logits, mask, position_ids = logits[copies], mask[copies], position_ids[copies]
        tokens = choice(logits.float(), rows)  # one a row
        for row, token in zip(rows, tokens, strict=True):
            new[row].append(token)
        if watch is not None:
            for of_row, row, token in zip(logits.float().log_softmax(-1), rows, tokens, strict=True):  # (V,) each
                measured[row].append(of_row[token].item())
                if step == 0:
                    watched[row] = of_row[watch].item()
        left = [place for place, token in enumerate(tokens) if token not in last]
        if not left or step == max_new_tokens - 1:
            break
        position_ids = position_ids[:, -1:] + 1  # (B, 1)
        if len(left) < len(rows):
            places = torch.tensor(left, device=mask.device)  # B becomes smaller here
            cache.batch_select_indices(places)
            mask, position_ids = mask[places], position_ids[places]
            rows, tokens = [rows[place] for place in left], [tokens[place] for place in left]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)  # (B, T + 1), and T grows
        input_ids = torch.tensor(tokens, device=mask.device)[:, None]  # (B, 1)
    return list(zip(new, measured, watched, strict=True))


def shared_beginning(model, prompts: list[list[int]]) -> tuple[int, DynamicCache | None]:
    """The length of the beginning that all prompts share, where it is worth computing once, and its cache (one row)."""
    beginning = os.path.commonprefix(prompts)[: min(map(len, prompts)) - 1]
    if len(prompts) == 1 or len(beginning) < 32:
        return 0, None
    with torch.inference_mode():
        prefix = torch.tensor([beginning], device=model.device)  # (1, length)
        return len(beginning), model.get_decoder()(prefix, use_cache=True).past_key_values


def _pad_after_prefix(rows: list[tuple[int, ...]], prefix: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad between the shared prefix and the rest of each row, so that the prefix stays aligned: two tensors (B, T)."""
    longest = max(map(len, rows))
    input_ids = [[*row[:prefix], *[0] * (longest - len(row)), *row[prefix:]] for row in rows]
    mask = [[1] * prefix + [0] * (longest - len(row)) + [1] * (len(row) - prefix) for row in rows]
    return torch.tensor(input_ids), torch.tensor(mask)


class _Choice:
    """Chooses the next token of each row: the likeliest, or with a seed a draw from softmax(logits / temperature).

    The draw is an argmax too, of logits / temperature plus Gumbel noise. Each row has a generator of its own, on the
    device of the logits, so its draws do not depend on its batch.
    """

    def __init__(self, temperatures: list[float], seeds: list[str | None], device: torch.device | str = "cpu"):
        self.temperatures = temperatures
        self.generators = []  # one a row, None where it is greedy
        for seed in seeds:
            number = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8], "big") >> 1
            self.generators.append(None if seed is None else torch.Generator(device).manual_seed(number))

    def __call__(self, logits: torch.Tensor, rows: list[int]) -> list[int]:
        """The next token of each row; `logits` are of all tokens, (B, V)."""
        if any(self.generators):
            logits = torch.stack([self._noisy(of_row, row) for of_row, row in zip(logits, rows, strict=True)])  # (B, V)
        return logits.argmax(-1).tolist()

    def _noisy(self, logits: torch.Tensor, row: int) -> torch.Tensor:  # (V,)
        generator = self.generators[row]
        if generator is None:
            return logits
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
        return logits / self.temperatures[row] - torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))
