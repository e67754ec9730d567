"""Many prompts become many texts: sorted by length, in batches, with a shared beginning computed once.

`model.generate` keeps a finished row in its batch until the last one has ended, and draws over the whole vocabulary
where a few words are allowed; the loop here does neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import DynamicCache

from llama_qna.models import caches
from llama_qna.models.batches import in_batches, rows_that_fit


class Continuation(NamedTuple):
    """What a model wrote after a prompt, and whether it ended that itself, before the limit of new tokens."""

    text: str
    ended: bool


def generate_texts(model, tokenizer, prompts: list[list[int]], **options) -> list[str]:
    """Continue every prompt: the texts of `continue_prompts`, which says what the options are."""
    return [text for text, _ in continue_prompts(model, tokenizer, prompts, **options)]


def continue_prompts(
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
) -> list[Continuation]:
    """Continue every prompt, and tell which texts came to their end.

    Args:
        prompts: `input_ids` of each prompt, ragged: N lists of (T_i,).
        temperature: 0 is greedy decoding.
        seeds: one string a prompt; with it a sampled text does not depend on what else is in its batch.
        stop_at_newline: end a text at the first line break.
        words: the words that each prompt's continuation may use, which ends with a question mark.
        done: called with the number of finished texts in place of a progress bar.

    Returns:
        The N continuations in the order of the prompts, without prompt, special tokens and surrounding space.
    """
    if not prompts:
        return []
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    prefix, cache = shared_beginning(model, prompts)
    last = {tokenizer.eos_token_id}
    if stop_at_newline:
        vocabulary = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        last |= {i for i, token in enumerate(vocabulary) if "\n" in token}
    found = [Continuation("", False)] * len(prompts)
    bar = tqdm(total=len(prompts), desc=description, unit="text", disable=done is not None)

    def write(rows: list[int]) -> None:
        choice = _Choice(
            temperature,
            [seeds[i] for i in rows] if temperature else [],
            Words(tokenizer, [words[i] for i in rows]) if words else None,
            model.device,
        )
        new = _write(model, [prompts[i] for i in rows], prefix, cache, choice, last, max_new_tokens)
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        for row, (i, text) in enumerate(zip(rows, texts, strict=True)):
            text = (text.split("\n", 1)[0] if stop_at_newline else text).strip()
            found[i] = Continuation(text, new[row][-1] in last or choice.ended(row))
        bar.update(len(rows))
        if done:
            done(len(rows))

    with bar:
        in_batches(order, batch_size, write, lambda i: rows_that_fit(model, len(prompts[i]), max_new_tokens))
    return found


@torch.inference_mode()
def _write(model, prompts, prefix: int, cache, choice: _Choice, last: set[int], max_new_tokens: int) -> list[list[int]]:
    """Token by token, all rows at once; a row that has ended leaves the batch. B lists of new tokens.

    `places` are of rows that are still in the batch, `rows` their numbers among all B.
    """
    input_ids, mask = (tensor.to(model.device) for tensor in _pad_after_prefix(prompts, prefix))  # (B, T) each
    cache = caches.expanded(cache, len(prompts)) if cache else caches.roomy()
    position_ids = mask.cumsum(1) - 1  # (B, T): padding takes no position
    input_ids, position_ids = input_ids[:, prefix:], position_ids[:, prefix:]  # (B, T - prefix): the rest is cached
    new, rows = [[] for _ in prompts], list(range(len(prompts)))
    logits_of = _logits(model, choice.words)
    for step in range(max_new_tokens):
        logits = logits_of(input_ids, attention_mask=mask, position_ids=position_ids, past_key_values=cache)  # (B, V)
        tokens = choice(logits.float(), rows)  # one a row
        for row, token in zip(rows, tokens, strict=True):
            new[row].append(token)
        left = [place for place, token in enumerate(tokens) if token not in last and not choice.ended(rows[place])]
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
    return new


def _logits(model, words: Words | None):
    """A function of a model's inputs that returns the logits of the next token, (B, V).

    Args:
        words: where there are some, V are their tokens alone.
    """
    if words is None:
        return lambda input_ids, **inputs: model(input_ids, **inputs, logits_to_keep=1).logits[:, -1]
    head, decoder = model.get_output_embeddings().weight[words.vocabulary], model.get_decoder()  # (V, D)

    def of_words(input_ids, **inputs):
        hidden = decoder(input_ids, **inputs).last_hidden_state  # (B, T, D)
        return F.linear(hidden[:, -1], head)

    return of_words


def shared_beginning(model, prompts: list[list[int]]) -> tuple[int, DynamicCache | None]:
    """The length of the beginning that all prompts share, where it is worth computing once, and its cache (one row)."""
    first, last = min(prompts), max(prompts)
    length = 0
    while length < min(len(first), len(last)) - 1 and first[length] == last[length]:
        length += 1
    if len(prompts) == 1 or length < 32:
        return 0, None
    with torch.inference_mode():
        prefix = torch.tensor([first[:length]], device=model.device)  # (1, length)
        return length, model.get_decoder()(prefix, use_cache=True).past_key_values


def _pad_after_prefix(rows: list[list[int]], prefix: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad between the shared prefix and the rest of each row, so that the prefix stays aligned: two tensors (B, T)."""
    longest = max(map(len, rows))
    input_ids = [row[:prefix] + [0] * (longest - len(row)) + row[prefix:] for row in rows]
    mask = [[1] * prefix + [0] * (longest - len(row)) + [1] * (len(row) - prefix) for row in rows]
    return torch.tensor(input_ids), torch.tensor(mask)


class _Choice:
    """Chooses the next token of each row: the likeliest, or a draw from softmax(logits / temperature).

    The draw is an argmax too, of logits / temperature plus Gumbel noise. Each row has a generator of its own, so its
    draws do not depend on its batch. It is on the device of the logits, unless a few words alone are allowed.
    """

    def __init__(self, temperature: float, seeds: list[str], words: Words | None, device: torch.device | str = "cpu"):
        self.temperature, self.words = temperature, words
        numbers = [int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1 for seed in seeds]
        on = "cpu" if words else device
        self.generators = [torch.Generator(on).manual_seed(number) for number in numbers]

    def __call__(self, logits: torch.Tensor, rows: list[int]) -> list[int]:
        """The next token of each row.

        Args:
            logits: of all tokens, or of those of `words.vocabulary`: (B, V).
        """
        if self.words:
            return [self._word(of_row, row) for of_row, row in zip(logits.cpu(), rows, strict=True)]
        if self.temperature:
            logits = torch.stack([self._noisy(of_row, row) for of_row, row in zip(logits, rows, strict=True)])  # (B, V)
        return logits.argmax(-1).tolist()

    def _noisy(self, logits: torch.Tensor, row: int) -> torch.Tensor:  # (V,)
        uniform = torch.rand(logits.shape, generator=self.generators[row], device=logits.device)
        return logits / self.temperature - torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))

    def _word(self, logits: torch.Tensor, row: int) -> int:  # (V,)
        allowed = self.words.allowed(row)
        scores = logits[[self.words.places[token] for token in allowed]]  # (allowed,)
        if self.temperature:
            scores = self._noisy(scores, row)
        token = allowed[scores.argmax().item()]
        self.words.take(row, token)
        return token

    def ended(self, row: int) -> bool:
        return self.words is not None and self.words.ended(row)


class Words:
    """Holds each row to whole words of its own list, until it ends with a question mark.

    A word of more than three letters may be used once, a shorter one three times: small models repeat themselves.
    """

    def __init__(self, tokenizer, words: list[tuple[str, ...]]):
        self.question_mark = tokenizer("?", add_special_tokens=False)["input_ids"][-1]
        self.uses: list[dict[tuple[int, ...], int]] = []  # of each row: the tokens of a word -> uses that are left
        for row in words:
            ids = tokenizer([f" {word}" for word in row], add_special_tokens=False)["input_ids"]
            self.uses.append({tuple(tokens): 1 if len(word) > 3 else 3 for word, tokens in zip(row, ids, strict=True)})
        self.begun: list[tuple[int, ...] | None] = [()] * len(words)  # the tokens of each row's last word; None: ended
        used = {token for uses in self.uses for tokens in uses for token in tokens}
        self.vocabulary = sorted(used | {self.question_mark})  # the tokens that any row may use
        self.places = {token: place for place, token in enumerate(self.vocabulary)}

    def _going_on(self, row: int) -> set[int]:
        """The tokens by which the last word may go on."""
        begun = self.begun[row]
        length = len(begun)
        return {tokens[length] for tokens in self.uses[row] if len(tokens) > length and tokens[:length] == begun}

    def allowed(self, row: int) -> list[int]:
        """The tokens that may come next."""
        allowed, begun = self._going_on(row), self.begun[row]
        if begun in self.uses[row]:  # the word may end here, and the next one begin
            left = self.uses[row] | {begun: self.uses[row][begun] - 1}
            allowed |= {tokens[0] for tokens, uses in left.items() if uses}
            allowed.add(self.question_mark)
        return sorted(allowed)

    def take(self, row: int, token: int) -> None:
        """Note that a row goes on with a token."""
        if token in self._going_on(row):
            self.begun[row] += (token,)
            return
        uses, word = self.uses[row], self.begun[row]
        uses[word] -= 1
        if not uses[word]:
            del uses[word]
        self.begun[row] = None if token == self.question_mark else (token,)

    def ended(self, row: int) -> bool:
        return self.begun[row] is None
