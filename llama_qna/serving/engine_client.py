"""Answers from a running engine (`llama-qna serve`), with the prompts and the retrieval of `answering`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from llama_qna import UserError
from llama_qna.answering.answerer import Answer, Answerer, Prompter, stripped
from llama_qna.models.server import client_of, said_by
from llama_qna.project.systems import model_of
from llama_qna.project.variant import Variant
from llama_qna.serving.engine import HOST, KEY_VARIABLE, PORT, model_name

URL = f"http://{HOST}:{PORT}/v1"
SECONDS = 300  # that a request may take; with many clients it waits for its turn


class EngineAnswerer(Prompter):
    """Answers as `answering.answerer.Answerer` does, computed by an engine; many threads may ask at once.

    Prompts are sent as token ids, so that control tokens that a document spells out stay plain text. The engine
    rounds its sums in another order than `Answerer`, so that now and then another word is the likeliest. A system that
    reads answers in this process, whose weights are loaded when it is first asked.

    Args:
        url: of the engine; it ends in /v1.
        key: the engine's; by default that of the environment variable LLAMA_QNA_API_KEY.

    Raises:
        UserError: no engine answers there, it refuses the key, or it does not serve this variant.
    """

    computed_by = "vLLM"

    def __init__(self, variant: Variant, url: str = URL, key: str | None = None):
        self.url = url
        self._client = client_of(url, key or os.environ.get(KEY_VARIABLE, ""), SECONDS, retries=0)
        with self._explained():
            folders = {model.id: getattr(model, "root", "") or "" for model in self._client.models.list()}
        served = {name for name, folder in folders.items() if folder.startswith(f"{variant.run}{os.sep}")}
        self._alone = "finetuned" in served
        if model_name(variant, "finetuned", self._alone) not in served:
            raise UserError(f"{url} does not serve {variant.name}: start it with `llama-qna serve {variant.name}`")
        super().__init__(variant)
        self._here = Answerer(variant)

    def answer(self, questions: list[str], system: str = "finetuned") -> list[Answer]:
        """See `Answerer.answer`; a request holds as many questions as the engine computes at once."""
        if self.reads(system):
            return self._here.answer(questions, system)
        asked, answers = [self.ask_for(question, system) for question in questions], []
        step = self.variant.recipe.serving.concurrency
        for start in range(0, len(asked), step):
            batch = asked[start : start + step]
            with self._explained():
                reply = self._client.completions.create(prompt=[ids for ids, _ in batch], **self._options(system))
                texts = {choice.index: choice.text.strip() for choice in reply.choices}
            answers += [Answer(texts[n], sources) for n, (_, sources) in enumerate(batch)]
        return answers

    def stream(self, question: str, system: str = "finetuned") -> Iterator[str]:
        """See `Answerer.stream`; a reader who goes away ends the request."""
        if self.reads(system):
            return self._here.stream(question, system)
        ids, _ = self.ask_for(question, system)
        with self._explained():
            reply = self._client.completions.create(prompt=ids, stream=True, **self._options(system))
        return stripped(self._pieces(reply))

    def label(self, system: str) -> str:
        """See `Prompter.label`."""
        return self._here.label(system) if self.reads(system) else super().label(system)

    def _pieces(self, reply) -> Iterator[str]:
        with reply, self._explained():
            for chunk in reply:
                yield from (choice.text for choice in chunk.choices)

    def _options(self, system: str) -> dict:
        return {
            "model": model_name(self.variant, model_of(system), self._alone),
            "max_tokens": self.variant.recipe.evaluation.max_new_tokens,
            "temperature": 0,
        }

    @contextmanager
    def _explained(self):
        """Turn what can go wrong into one line that says what to do."""
        import openai

        try:
            yield
        except openai.APITimeoutError:
            raise UserError(f"{self.url}: no answer within {SECONDS} s") from None
        except openai.APIConnectionError:
            raise UserError(f"{self.url}: no engine answers; start it with `llama-qna serve`") from None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            said = f"the engine refuses the key; set {KEY_VARIABLE} to the one it printed"
            raise UserError(f"{self.url}: {said}") from None
        except openai.APIError as error:
            raise UserError(f"{self.url}: {said_by(error)}") from None
        except (ValueError, AttributeError, TypeError):  # a page in HTML, or JSON of something else
            raise UserError(f"{self.url}: what answers there is no engine; start it with `llama-qna serve`") from None


def answerer_for(variant: Variant, url: str = URL):
    """The answerer over a running engine where one serves the variant with our key, or else one in this process."""
    try:
        return EngineAnswerer(variant, url)
    except UserError:
        return Answerer(variant)
