"""What the page says, without the page: who answers, and what is shown beside an answer.

Texts of documents and of models are handed over as plain text; nothing here makes HTML or Markdown of them that a
browser would run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from llama_qna import UserError
from llama_qna.answering.answerer import Answerer, Source, best_system
from llama_qna.models.lineage import trained
from llama_qna.project.data import read_chunks
from llama_qna.project.gold import read_gold, references
from llama_qna.project.systems import SYSTEMS, is_given_passages, model_of
from llama_qna.project.variant import Variant, variant_names
from llama_qna.serving.library import SYSTEM, Library, Shown, shown
from llama_qna.text.scores import score

HOST = "127.0.0.1"
MAX_CHARACTERS = 8000  # of a question; what a prompt takes is counted in tokens, and a book would be long to count
SHOWN_SCORES = {"right": "right", "new_words_f1": "new words F1", "rougeL": "ROUGE-L", "f1": "F1"}
NOTHING = "(The model wrote nothing.)"


@dataclass(frozen=True)
class Reply:
    """What a system has said so far; scores and reference once it is done, where the question is a gold one."""

    text: str
    sources: tuple[Source, ...] = ()  # what was found for the question; a system with passages was given them
    by: str = ""  # what computed it: `transformers` in this process, or `vLLM`
    evidence: Shown | None = None  # the sentence that the answer was taken from
    gold: NamedTuple | None = None  # a row of `Desk.gold`
    scores: dict[str, float] = field(default_factory=dict)
    done: bool = False
    problem: str = ""  # why there is no answer


class Desk:
    """The answerers and gold questions of every variant, each made when it is first asked for and shared by everybody.

    Safe to use from many threads. Two answerers are kept, the last ones used: each holds a model.

    Args:
        root: the folder of the variants.
        answerer_for: makes the answerer of a variant: `answering.answerer.Answerer`, or one over a running engine.
        library: somebody's own documents; nothing else is asked then.
    """

    def __init__(
        self,
        root: Path,
        answerer_for: Callable[[Variant], Answerer] = Answerer,
        library: Library | None = None,
    ):
        self.root, self.library = root, library
        # by their recipe too, which a person may change while the page is open
        self._answerer_of = lru_cache(maxsize=2)(lambda name, recipe: answerer_for(Variant.load(name)))
        self._gold: dict[str, list[NamedTuple]] = {}
        self._lock = threading.Lock()

    def variants(self) -> list[str]:
        """The names to choose from."""
        return [self.library.name] if self.library else variant_names(self.root)

    def answerer(self, name: str) -> Answerer:
        """The answerer of a variant.

        Raises:
            UserError: there is no such variant, or its base model cannot be had.
        """
        with self._lock:
            return self.library or self._answerer_of(name, Variant.load(name).recipe.model_dump_json())

    def missing(self, name: str) -> dict[str, str]:
        """The systems that cannot answer yet on this machine, each with what to run."""
        if self.library:
            return {system: f"{system} needs a variant" for system in SYSTEMS if system != SYSTEM}
        variant, missing = Variant.load(name), {}
        for system in SYSTEMS:
            try:
                trained(variant, model_of(system))
                if is_given_passages(system):
                    read_chunks(variant)
            except UserError as error:
                missing[system] = str(error)
        return missing

    def best(self, name: str) -> str:
        """The system that is asked first; see `answering.answerer.best_system`."""
        return SYSTEM if self.library else best_system(Variant.load(name))

    def gold(self, name: str) -> list[NamedTuple]:
        """The gold questions of a variant, each with the columns of `project.gold.read_gold`.

        There are none where it has none, or where its chunks are not made yet.
        """
        variant = None if self.library else Variant.load(name)
        if not variant or not variant.gold.is_file() or not (variant.chunks / "chunks.csv").is_file():
            return []
        with self._lock:
            if name not in self._gold:
                self._gold[name] = list(read_gold(variant.gold, read_chunks(variant)).itertuples())
            return self._gold[name]

    def reply(self, question: str, name: str, system: str) -> Iterator[Reply]:
        """Answer one question, each reply with more of the text; the last one is done.

        Every question is asked on its own, as in training and evaluation. A mistake of the user's is a reply too.
        """
        try:
            question = question.strip()
            if len(question) > MAX_CHARACTERS:
                raise UserError(f"the question is longer than {MAX_CHARACTERS} characters")
            answerer, text, evidence = self.answerer(name), "", None
            by = answerer.computed_by
            if answerer.reads(system):  # its answer and its evidence are there at once
                by = Answerer.computed_by  # beside an engine too
                answer = answerer.answer([question], system)[0]
                text, sources = answer.text, answer.sources
                evidence = shown(answerer, answer.evidence) if answer.evidence else None
            else:
                with closing(answerer.stream(question, system)) as pieces:  # who goes away stops the writing
                    sources = self._sources(answerer, question, system)
                    for piece in pieces:
                        text += piece
                        yield Reply(text, sources, by)
            gold, scores = self._scored(question, text, name)
            yield Reply(text or NOTHING, sources, by, evidence, gold, scores, done=True)
        except UserError as error:
            yield Reply("", done=True, problem=str(error))

    def side_by_side(self, question: str, name: str) -> Iterator[tuple[str, Reply]]:
        """Ask every system the same question: (system, reply) as `reply`, ordered by model, so that few are swapped."""
        try:
            missing = self.missing(name)
        except UserError as error:
            missing = dict.fromkeys(SYSTEMS, str(error))
        for system in sorted(SYSTEMS, key=model_of):
            if system in missing:
                yield system, Reply("", done=True, problem=missing[system])
            else:
                for reply in self.reply(question, name, system):
                    yield system, reply

    def _sources(self, answerer: Answerer, question: str, system: str) -> tuple[Source, ...]:
        try:
            return tuple(answerer.sources(question))
        except UserError:
            if is_given_passages(system):
                raise
            return ()  # no chunks on this machine: the model can answer all the same

    def _scored(self, question: str, text: str, name: str) -> tuple[NamedTuple | None, dict[str, float]]:
        """The gold question that this is, and the scores of the answer, as evaluation computes them."""
        try:
            gold = {" ".join(row.Question.split()): row for row in self.gold(name)}
        except UserError:  # a broken gold file is complained about when the variant is chosen
            return None, {}
        found = gold.get(" ".join(question.split()))
        return found, score(text, found.Answer, references(found)[1:], found.Question) if found else {}


def messages(reply: Reply, name: str, system: str) -> list[dict]:
    """A reply as messages of a chat: the answer, then in messages with a title where it comes from and its scores."""
    if reply.problem:
        return [_message(f"No answer: {reply.problem}")]
    answer = [_message(reply.text)] if reply.text else []
    if not reply.done:
        return answer
    count = f"{len(reply.sources)} passage{'s' if len(reply.sources) != 1 else ''}"
    how = f"given {count}" if is_given_passages(system) else f"given no passage; {len(reply.sources)} were found"
    passages = passages_text(reply.sources) or "No passage shares a word with the question."
    if found := reply.evidence:
        answer.append(_message(f"“{found.sentence}”", f"Evidence: {found.document}, page {found.page}"))
    answer.append(_message(passages, f"{system} of {name} by {reply.by}, {how}"))
    if reply.gold:
        scores = ", ".join(f"{label} {reply.scores[name]:.3f}" for name, label in SHOWN_SCORES.items())
        content = f"Reference answer: {reply.gold.Answer}\n{scores}"
        answer.append(_message(content, f"Gold question {reply.gold.question_id}: reference answer and scores"))
    return answer


def _message(content: str, title: str = "") -> dict:
    return {"role": "assistant", "content": content, "metadata": {"title": title} if title else {}}


def passages_text(sources: tuple[Source, ...]) -> str:
    """Document, page, section and text of each passage."""
    return "\n\n".join(f"[{n}] {source.place}\n{source.text}" for n, source in enumerate(sources, start=1))


def stay_offline() -> None:
    """No analytics, no hub, no proxy between this machine and itself; to be called before Gradio is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST, "localhost"]))
