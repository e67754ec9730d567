"""Many prompts become many texts: sorted by length, in batches, with a shared beginning computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from tqdm import tqdm
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList


def generate_texts(
    model,
    tokenizer,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seeds: list[str] | None = None,
    stop_at_newline: bool = False,
    words: list[tuple[str, ...]] | None = None,
    description: str = "generating",
    done: Callable[[int], None] | None = None,
) -> list[str]:
    """Continue every prompt.

    Args:
        prompts: `input_ids` of each prompt, ragged: N lists of (T_i,).
        temperature: 0 is greedy decoding.
        seeds: one string a prompt; with it a sampled text does not depend on what else is in its batch.
        stop_at_newline: end a text at the first line break.
        words: the words that each prompt's continuation may use, which ends with a question mark.
        done: called with the number of finished texts in place of a progress bar.

    Returns:
        The N texts in the order of the prompts, without prompt, special tokens and surrounding space.
    """
    if not prompts:
        return []
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    prefix = _shared_prefix(prompts) if len(prompts) > 1 else []
    cache = _prefill(model, prefix) if len(prefix) >= 32 else None
    newline = [_StopAtNewline(tokenizer, model.device)] if stop_at_newline else []
    texts = [""] * len(prompts)
    with tqdm(total=len(prompts), desc=description, unit="text", disable=done is not None) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            input_ids, attention_mask = _pad_after_prefix(
                [prompts[i] for i in rows], len(prefix), tokenizer.pad_token_id
            )
            noise = [_GumbelNoise(temperature, [seeds[i] for i in rows])] if temperature else []
            held = [_Words(tokenizer, [words[i] for i in rows], input_ids.shape[1])] if words else []
            with torch.inference_mode():
                output = model.generate(
                    input_ids=input_ids.to(model.device),
                    attention_mask=attention_mask.to(model.device),
                    past_key_values=_expand(cache, len(rows)) if cache else None,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    logits_processor=LogitsProcessorList(held + noise),
                    stopping_criteria=StoppingCriteriaList(newline),
                )
            new = tokenizer.batch_decode(output[:, input_ids.shape[1] :], skip_special_tokens=True)
            for i, text in zip(rows, new, strict=True):
                texts[i] = (text.split("\n", 1)[0] if stop_at_newline else text).strip()
            bar.update(len(rows))
            if done:
                done(len(rows))
    return texts


def _shared_prefix(prompts: list[list[int]]) -> list[int]:
    """The longest beginning that all prompts share, short of the last token of the shortest."""
    first, last = min(prompts), max(prompts)
    length = 0
    while length < min(len(first), len(last)) - 1 and first[length] == last[length]:
        length += 1
    return first[:length]


def _prefill(model, prefix: list[int]) -> DynamicCache:
    with torch.inference_mode():
        return model(torch.tensor([prefix], device=model.device), use_cache=True, logits_to_keep=1).past_key_values


def _expand(cache: DynamicCache, rows: int) -> DynamicCache:
    """A copy of a cache of one row for a batch of rows."""
    copy = DynamicCache()
    for index, layer in enumerate(cache.layers):
        copy.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
    return copy


def _pad_after_prefix(rows: list[list[int]], prefix: int, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad between the shared prefix and the rest of each row, so that the prefix stays aligned: two tensors (B, T)."""
    longest = max(map(len, rows))
    input_ids = [row[:prefix] + [pad_id] * (longest - len(row)) + row[prefix:] for row in rows]
    mask = [[1] * prefix + [0] * (longest - len(row)) + [1] * (len(row) - prefix) for row in rows]
    return torch.tensor(input_ids), torch.tensor(mask)


class _GumbelNoise(LogitsProcessor):
    """Sampling as an argmax: the largest of logit/T plus Gumbel noise is a draw from softmax(logit/T).

    Each row has a generator of its own, so its draws do not depend on its batch.
    """

    def __init__(self, temperature: float, seeds: list[str]):
        self.temperature = temperature
        numbers = [int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1 for seed in seeds]
        self.generators = [torch.Generator().manual_seed(number) for number in numbers]

    def __call__(self, input_ids, scores):  # (B, T), (B, V) -> (B, V)
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=g) for g in self.generators]).to(scores.device)
        return scores.float() / self.temperature - torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))


class _StopAtNewline(StoppingCriteria):
    """Ends a row when its newest token holds a line break."""

    def __init__(self, tokenizer, device):
        vocabulary = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        self.breaks = torch.tensor(["\n" in token for token in vocabulary], device=device)

    def __call__(self, input_ids, scores, **kwargs):  # (B, T) -> (B,)
        return self.breaks[input_ids[:, -1]]


class _Words(LogitsProcessor):
    """Holds each row to whole words of its own list, until it ends with a question mark.

    A word of more than three letters may be used once: small models repeat themselves.
    """

    def __init__(self, tokenizer, words: list[tuple[str, ...]], prompt_length: int):
        self.start, self.eos = prompt_length, tokenizer.eos_token_id
        self.question_mark = tokenizer("?", add_special_tokens=False)["input_ids"][-1]
        self.left = [dict(zip(row, self._ids(tokenizer, row), strict=True)) for row in words]
        self.trees = [self._tree(left) for left in self.left]
        self.places = list(self.trees)  # where in its tree each row stands; None when it has ended

    @staticmethod
    def _ids(tokenizer, words: tuple[str, ...]) -> list[list[int]]:
        return tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]

    @staticmethod
    def _tree(left: dict[str, list[int]]) -> dict:
        """The tokens of the words as a tree; the key None holds the word that ends there."""
        tree = {}
        for word, ids in left.items():
            place = tree
            for token in ids:
                place = place.setdefault(token, {})
            place[None] = word
        return tree

    def __call__(self, input_ids, scores):  # (B, T), (B, V) -> (B, V)
        held = torch.full_like(scores, -torch.inf)
        for row, newest in enumerate(input_ids[:, -1].tolist()):
            if input_ids.shape[1] > self.start and self.places[row] is not None:
                self._step(row, newest)
            allowed = self._allowed(row)
            held[row, allowed] = scores[row, allowed]
        return held

    def _step(self, row: int, token: int) -> None:
        place = self.places[row]
        if token in place:  # goes on with the word
            self.places[row] = place[token]
            return
        word = place[None]
        if len(word) > 3:
            del self.left[row][word]
            self.trees[row] = self._tree(self.left[row])
        self.places[row] = None if token == self.question_mark else self.trees[row][token]

    def _allowed(self, row: int) -> list[int]:
        place = self.places[row]
        if place is None:
            return [self.eos]
        allowed = set(place)
        if None in place:  # the word may end here, and the next one begin
            others = self.left[row].items()
            allowed |= {ids[0] for word, ids in others if word != place[None] or len(word) <= 3}
            allowed.add(self.question_mark)
        return sorted(allowed - {None})


def log_likelihoods(model, tokenizer, prompts: list[list[int]], texts: list[str], batch_size: int) -> list[float]:
    """Mean log-probability per token (natural logarithm) of each text after its prompt; N floats.

    Args:
        prompts: `input_ids` of each prompt, ragged: N lists of (T_i,); a beginning that all share is computed once.
    """
    if not prompts:
        return []
    ends = tokenizer([f" {text}" for text in texts], add_special_tokens=False)["input_ids"]
    rows = [prompt + end for prompt, end in zip(prompts, ends, strict=True)]
    prefix = _shared_prefix(rows) if len(rows) > 1 else []
    prefix = prefix[: min(map(len, prompts)) - 1]  # the token before each text must be in the batch
    cache = _prefill(model, prefix) if len(prefix) >= 32 else None
    known = len(prefix) if cache else 0
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    likelihoods = [0.0] * len(rows)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        longest = len(rows[batch[0]])
        input_ids = torch.tensor([rows[i][known:] + [tokenizer.pad_token_id] * (longest - len(rows[i])) for i in batch])
        mask = torch.tensor([[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in batch])
        with torch.inference_mode():
            hidden = model.get_decoder()(
                input_ids=input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                past_key_values=_expand(cache, len(batch)) if cache else None,
                use_cache=cache is not None,
            ).last_hidden_state  # (B, T, H)
            before = [hidden[r, len(prompts[i]) - known - 1 : len(rows[i]) - known - 1] for r, i in enumerate(batch)]
            logits = model.lm_head(torch.cat(before)).float()  # (tokens of the texts, V)
            target = torch.tensor([token for i in batch for token in ends[i]], device=logits.device)
            scores = logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(-1)
        for i, part in zip(batch, scores.split([len(ends[i]) for i in batch]), strict=True):
            likelihoods[i] = part.mean().item()
    return likelihoods
