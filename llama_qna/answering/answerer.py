"""Questions answered by the models of a variant: the reader, the base, the trained ones, closed book and with passages.

The prompts are those of evaluation and of training (`prompts`), decoding is greedy, so that the scores in
`metrics.json` are scores of what a user gets here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial

from llama_qna.answering.reader import ReadingAnswerer, check_question, check_text
from llama_qna.answering.retrieval import Answer, Passages, Source, fitted_prompt
from llama_qna.answering.sentences import Sentences
from llama_qna.models.adapters import Models
from llama_qna.models.base import load_tokenizer
from llama_qna.models.folded import load_reader
from llama_qna.models.lineage import Point, has_reader, reader_of, trained
from llama_qna.project.data import read_chunks
from llama_qna.project.files import sha256
from llama_qna.project.stage import sha256_once
from llama_qna.project.systems import is_given_passages, model_of
from llama_qna.project.variant import Variant


class Prompter:
    """Builds the prompts of a variant's systems, in this process or for an engine.

    Raises:
        UserError: the base model's tokenizer cannot be had.
    """

    def __init__(self, variant: Variant):
        self.variant = variant
        self.tokenizer = load_tokenizer(variant.recipe.base_model)
        self._made = {}  # by what makes it of the chunks: the hash of `chunks.csv`, and what was made

    def sources(self, question: str) -> list[Source]:
        """The passages that share the most words with a question, the best first: those that a model is given.

        Raises:
            UserError: the variant has no chunks on this machine.
        """
        return self.passages.find([question], self.variant.recipe.evaluation.retrieved_chunks)[0]

    def prompt_ids(self, question: str, sources: Sequence[Source] = ()) -> list[int]:
        """`input_ids` of a question, ready for the answer: (T,), T <= CONTEXT_TOKENS.

        Args:
            sources: the passages to answer from, the best first.

        Raises:
            UserError: the question is empty, holds bytes that are no text, or is longer than a prompt may be.
        """
        check_text(question)
        return fitted_prompt(self.tokenizer, question, sources)[0]

    def check(self, question: str, system: str) -> None:
        """Refuse a question that is empty, or too long for a system."""
        if self.reads(system):
            check_question(self.tokenizer, question)
        else:
            self.prompt_ids(question)

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def batch_size(self) -> int:
        return self.variant.recipe.evaluation.batch_size

    def label(self, system: str) -> str:
        """What answers, such as `finetuned checkpoint-128 1713ce5c, transformers`: it tells trainings apart.

        With passages it tells texts apart too, by the hash of `chunks.csv`: `base on 52af0c77, transformers`.

        Raises:
            UserError: there is no such system, it is not trained, or it is given passages and there are no chunks.
        """
        name = model_of(system)
        _, adapter = trained(self.variant, name)
        hashed = f" {adapter.name} {sha256(adapter / 'adapter_model.safetensors')[:8]}" if adapter else ""
        if is_given_passages(system):
            read_chunks(self.variant)  # says what to run where there are none
            hashed += f" on {sha256(self.variant.chunks / 'chunks.csv')[:8]}"
        return f"{name}{hashed}, {self.computed_by}"

    def reads(self, system: str) -> bool:
        """Whether a system finds sentences, quotes one and answers from it, all at once: the reader, or what learnt it.

        Raises:
            UserError: there is no such system.
        """
        learnt = model_of(system) == "finetuned" and is_given_passages(system) and self.variant.learns_to_read
        return system == "reader" or learnt

    def ask_for(self, question: str, system: str) -> tuple[list[int], tuple[Source, ...]]:
        """The prompt of a system, as `prompt_ids`, and the passages that were found for it."""
        sources = tuple(self.sources(question)) if is_given_passages(system) else ()
        return self.prompt_ids(question, sources), sources

    @property
    def passages(self) -> Passages:
        """The chunks that any other system with passages is given some of."""
        return self._made_of_chunks(Passages)

    def _made_of_chunks(self, make):
        """What is made of the chunks: once, and again when they were replaced."""
        path = self.variant.chunks / "chunks.csv"
        text = sha256_once(path) if path.is_file() else None  # `read_chunks` says what to run
        made = self._made.get(make)
        if not made or made[0] != text:
            made = self._made[make] = text, make(read_chunks(self.variant))
        return made[1]


def best_system(variant: Variant) -> str:
    """What answers best: the reader, where the base has one; else what was fine-tuned, with passages if it learnt to.

    A reader that was fine-tuned on the documents is right about as often, and hardly ever says that they do not tell
    (docs/results.md).
    """
    if has_reader(variant):
        return "reader"
    return "finetuned+passages" if variant.learns_to_read else "finetuned"


class Answerer(Prompter):
    """Answers in this process. Weights are loaded once, at the first question, and adapters are swapped.

    Only one thread computes at a time; another waits for it.
    """

    computed_by = "transformers"

    def __init__(self, variant: Variant):
        super().__init__(variant)
        self.models = Models(variant.recipe.base_model, variant.recipe.quantization)
        self.finetuned: Point | None = None  # the fine-tuned model; None: the one that ships
        self._lock = threading.Lock()

    def answer(self, questions: list[str], system: str = "finetuned") -> list[Answer]:
        """Answer questions in batches of the recipe's `evaluation.batch_size`, greedily.

        Args:
            system: one of `project.systems.SYSTEMS`.

        Returns:
            One answer a question, in order.

        Raises:
            UserError: the system is not there yet, its adapter is damaged, or a question is empty or too long.
        """
        from llama_qna.models.generate import generate_texts

        if self.reads(system):
            with self._lock:
                load = partial(self._load, model_of(system))
                return ReadingAnswerer(self.sentences, self.tokenizer, load).answer(questions)
        asked = [self.ask_for(question, system) for question in questions]
        options = {"max_new_tokens": self.variant.recipe.evaluation.max_new_tokens, "batch_size": self.batch_size}
        with self._lock:
            model = self._load(model_of(system))
            texts = generate_texts(model, self.tokenizer, [ids for ids, _ in asked], **options)
        return [Answer(text, sources) for text, (_, sources) in zip(texts, asked, strict=True)]

    def stream(self, question: str, system: str = "finetuned") -> Iterator[str]:
        """Answer one question piece by piece; the pieces together are the answer.

        The model writes in a thread of its own, so that a reader who goes away or reads slowly holds nobody up.

        Raises:
            UserError: as `answer`; before the first piece.
        """
        if self.reads(system):  # its answer begins when its quote has come to an end
            return iter([self.answer([question], system)[0].text])
        ids, _ = self.ask_for(question, system)
        with self._lock:
            self._load(model_of(system))  # what is missing is said here, and not by the first piece
        return stripped(self._pieces(ids, model_of(system)))

    def _pieces(self, ids: list[int], name: str) -> Iterator[str]:
        import torch
        from transformers import GenerationConfig, StoppingCriteriaList, TextIteratorStreamer

        tokenizer, left, failures = self.tokenizer, threading.Event(), []
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        config = GenerationConfig(
            max_new_tokens=self.variant.recipe.evaluation.max_new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        stop = StoppingCriteriaList(
            [lambda ids, scores, **_: torch.full((len(ids),), left.is_set(), device=ids.device)]
        )

        def write():
            try:
                with self._lock:
                    model = self._load(name)
                    prompt = torch.tensor([ids], device=model.device)
                    model.generate(
                        input_ids=prompt,
                        attention_mask=torch.ones_like(prompt),
                        generation_config=config,
                        stopping_criteria=stop,
                        streamer=streamer,
                    )
            except Exception as error:  # it belongs to the reader's thread
                failures.append(error)
                streamer.end()

        threading.Thread(target=write, daemon=True).start()
        try:
            yield from streamer
        finally:
            left.set()
        if failures:
            raise failures[0]

    @cached_property
    def _reader(self):
        return load_reader(reader_of(self.variant))

    @property
    def sentences(self) -> Sentences:
        """The sentences that a system which reads is given some of."""
        return self._made_of_chunks(Sentences)

    def _load(self, name: str):
        """The model behind a system, with the adapter that it needs, or with none. Hold the lock."""
        if name == "reader":
            return self._reader
        if name == "finetuned" and self.finetuned:
            return self.models.load(self.finetuned.weights, self.finetuned.adapter)
        return self.models.load(*trained(self.variant, name))


def stripped(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces without the white space at the beginning and at the end of the text that they make."""
    begun, held = False, ""
    for piece in pieces:
        text = held + piece
        text = text if begun else text.lstrip()
        held = text[len(text.rstrip()) :]
        if text.rstrip():
            begun = True
            yield text.rstrip()
