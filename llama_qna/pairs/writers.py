"""A model writes candidate pairs about chunks. Here is how it is asked; what is kept is decided in `filters`.

`reader` is the way of a small model that has learnt to read and to ask (`training.reading`): a question about a
sentence, then the answer from it. `multi_pair` asks for several pairs in one text, as the study did; it
runs on a model in this process or on a server (`models.server`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, replace

from llama_qna import UserError
from llama_qna.models import prompts
from llama_qna.models.server import AnswerFormat, Completion, complete_all, without_thoughts
from llama_qna.pairs import parser
from llama_qna.pairs.evidence import evidence_of, worth
from llama_qna.pairs.ledger import Ledger
from llama_qna.project.files import digest
from llama_qna.project.recipe import EMBEDDED, Generation
from llama_qna.project.variant import Reader, Variant
from llama_qna.text.language import language_of
from llama_qna.text.words import content_words, without_marks

_TEXTS = {"type": "object", "properties": {"question": {"type": "string"}, "answer": {"type": "string"}}}
_PAIRS = {"pairs": {"type": "array", "items": _TEXTS | {"required": ["question", "answer"]}}}
PAIRS_SCHEMA = {"type": "object", "properties": _PAIRS, "required": ["pairs"]}
REFUSED = "refused by the server: "


@dataclass
class Passage:
    """The text of a chunk, as it is asked about."""

    chunk_id: str
    text: str
    continued: bool = False  # begins in the middle of its section, maybe of a sentence


@dataclass
class Candidate:
    question: str
    answer: str
    check: str = ""  # what the model answers, or the reader quotes, when it is given the chunk and the question
    evidence: str = ""  # the sentence of the chunk that the question was written about
    score: float | None = None  # mean log-probability per token of the question, given that sentence
    doubt: float | None = None  # log-probability that the reader finds no answer
    problem: str = ""  # why there is no whole pair; the raw text then stands in `question`


@dataclass
class Written:
    """What a model wrote about one passage."""

    candidates: list[Candidate]
    tokens: int = 0
    final: bool = True  # False: a server refused the request, which may pass another time

    @classmethod
    def of_entry(cls, entry: dict) -> Written:
        """What was kept of it in the ledger."""
        return cls([Candidate(**candidate) for candidate in entry["candidates"]], entry["tokens"])


def write_pairs(variant: Variant, passages: list[Passage]) -> list[Written]:
    """What the model of a variant writes about passages at the first attempt, before any filter.

    >>> (written,) = write_pairs(Variant.load("paper_135m"), [Passage("", "Two brothers built the bridge in 1884.")])
    >>> written.candidates[0].question

    Raises:
        UserError: as `writer`.
    """
    return writer(variant)(passages, 1)


def writer(variant: Variant, ledger: Ledger | None = None):
    """The function `write(passages, attempt) -> list[Written]` of a variant; loads its model unless a server has it.

    Args:
        ledger: keeps each answer of a server.

    Raises:
        UserError: the recipe asks for the reader, and there is none for its base model, or a server is to be asked.
    """
    settings = variant.recipe.generation
    if settings.method == "reader":
        return Reading(LocalModel(variant, reader_for(variant)), settings)
    engine = Server(settings, variant.recipe.seed, ledger) if settings.endpoint else LocalModel(variant)
    return MultiPair(engine, settings)


def reader_for(variant: Variant) -> Reader:
    """The reader that writes the pairs of a variant.

    Raises:
        UserError: there is none for its base model, a server is to be asked, or its adapter is damaged.
    """
    from llama_qna.models.lineage import READER, reader_of

    recipe = variant.recipe
    if recipe.generation.endpoint or recipe.base_model != EMBEDDED:
        raise UserError("generation.method: reader is the way of the embedded model; for any other take multi_pair")
    return reader_of(variant, recipe.start or READER)


SPARE = 2  # sentences that are asked about beside as many as pairs are wanted: the filters take some
DRAWN = 2  # questions about a sentence, beside the likeliest
QUOTE_TOKENS = 96  # of a quote and its answer


@dataclass(frozen=True)
class Asked:
    """A sentence that is asked about."""

    index: int  # of its passage
    sentence: str
    around: str  # with its neighbours
    seed: str


class Reading:
    """One question for each of some sentences, and what the sentence answers.

    A model of 135M parameters writes questions that its sentence does not answer. So of several drawn ones, at the
    first attempt the likeliest too, the best is taken: likely after its sentence (Sachan et al. 2022,
    arXiv:2204.07496), which has to tell the reader the answer (round-trip consistency, Alberti et al. 2019,
    arXiv:1906.05416).
    """

    def __init__(self, engine: LocalModel, settings: Generation):
        self.engine, self.settings = engine, settings
        self.nothing = prompts.nothing_id(engine.tokenizer)

    def __call__(self, passages: list[Passage], attempt: int) -> list[Written]:
        # --- which sentences
        texts = [without_marks(passage.text) for passage in passages]
        languages = [language_of(text) or "en" for text in texts]
        count = self.settings.pairs_per_chunk + SPARE
        asked = [
            Asked(index, sentence, around, f"{attempt} {passage.chunk_id} {sentence}")
            for index, passage in enumerate(passages)
            for sentence, around in evidence_of(passage.text, passage.continued, count)
        ]

        # --- questions about each: some that are drawn, and the likeliest, which is the same at every attempt
        temperatures = [self.settings.temperature] * DRAWN + [0.0] * (attempt == 1)
        ids = [self.engine.ids(prompts.writing_messages(about.around, about.sentence)) for about in asked]
        rows = [(n, place) for place in range(len(temperatures)) for n in range(len(asked))]
        written = self.engine.generate(
            [ids[n] for n, _ in rows],
            [f"{asked[n].seed} {place}" for n, place in rows],
            temperature=[temperatures[place] for _, place in rows],
            watch=self.nothing,
        )

        # --- the best of each: likely after its sentence, which seems to answer it
        different = {(n, text.text): text for (n, _), text in zip(rows, written, strict=True)}
        doubts = self.engine.doubts([self.reading_ids(asked[n], question) for n, question in different])
        ranked: list[list[tuple]] = [[] for _ in asked]
        tokens = Counter()
        for ((n, question), (_, _, score, _)), doubt in zip(different.items(), doubts, strict=True):
            about = asked[n]
            tokens[about.index] += self.engine.count(question)
            rank = score - prompts.DOUBT_WEIGHT * doubt
            rank += worth(question, about.sentence, texts[about.index], languages[about.index])
            ranked[n].append((rank, question, round(score, 3)))
        best = [max(of_one)[1:] for of_one in ranked]

        # --- what the sentence answers
        reading = [self.reading_ids(about, question) for about, (question, _) in zip(asked, best, strict=True)]
        options = {"temperature": 0.0, "max_new_tokens": QUOTE_TOKENS, "watch": self.nothing}
        said = self.engine.generate(reading, [about.seed for about in asked], **options)
        found: list[list[Candidate]] = [[] for _ in passages]
        for about, (question, score), text in zip(asked, best, said, strict=True):
            language = languages[about.index]
            found[about.index].append(_read(question, about.sentence, text.text, language, score, text.watched))
            tokens[about.index] += self.engine.count(text.text)
        return [Written(candidates, tokens[index]) for index, candidates in enumerate(found)]

    def reading_ids(self, about: Asked, question: str) -> list[int]:
        return self.engine.ids(prompts.reading_messages(question, [about.sentence]))


def _read(question: str, sentence: str, text: str, language: str, score: float, doubt: float) -> Candidate:
    """A candidate from what the reader said: a quote and the answer on two lines, or a dash for none.

    A bare yes or no says nothing by itself; the sentence is then the answer.
    """
    quote, _, answer = (part.strip() for part in text.partition("\n"))
    if not content_words(answer, language) and answer:
        answer = sentence
    return Candidate(question, "" if quote == prompts.NOTHING else answer, quote, sentence, score, round(doubt, 3))


class MultiPair:
    """Several pairs for each passage in one text, parsed, and each question answered once more for the check."""

    def __init__(self, engine, settings: Generation):
        self.engine, self.settings = engine, settings

    def __call__(self, passages: list[Passage], attempt: int) -> list[Written]:
        # --- several pairs about each passage
        seeds = [f"{attempt} {passage.chunk_id}" for passage in passages]
        requests = [prompts.pairs_messages(passage.text, self.settings.pairs_per_chunk) for passage in passages]
        written = []
        for text in self.engine.texts(requests, seeds):
            pairs, leftovers = parser.parse_response(text.text)
            candidates = [Candidate(*pair) for pair in pairs]
            candidates += [Candidate(raw, "", problem=reason) for raw, reason in leftovers]
            if text.error:
                candidates = [Candidate("", "", problem=REFUSED + text.error)]
            written.append(Written(candidates, text.tokens, final=not text.error))

        # --- every question answered once more, with the whole chunk before it
        rows = [
            (result, candidate, passage, seed)
            for passage, result, seed in zip(passages, written, seeds, strict=True)
            for candidate in result.candidates
            if not candidate.problem
        ]
        requests = [prompts.answer_messages(passage.text, candidate.question) for _, candidate, passage, _ in rows]
        seeds = [f"{seed} {candidate.question}" for _, candidate, _, seed in rows]
        texts = self.engine.texts(requests, seeds, one_line=True)
        for (result, candidate, _, _), text in zip(rows, texts, strict=True):
            candidate.check = parser.without_label(text.text, parser.ANSWER_LABEL)
            if text.error:
                candidate.problem, result.final = REFUSED + text.error, False
        return written


class LocalModel:
    """The base model of the recipe in this process, with a reader's adapter where one is given."""

    def __init__(self, variant: Variant, reader: Reader | None = None):
        from llama_qna.models.base import load_base, load_tokenizer
        from llama_qna.models.folded import load_reader

        recipe = variant.recipe
        self.settings, self.seed = recipe.generation, recipe.seed
        self.tokenizer = load_tokenizer(recipe.base_model)
        if reader:
            self.model = load_reader(reader)
        else:
            self.model = load_base(recipe.base_model, recipe.quantization if self.settings.load_in_4bit else None)

    def ids(self, messages: list[dict]) -> list[int]:
        return prompts.chat_ids(self.tokenizer, messages)

    def doubts(self, input_ids: list[list[int]]) -> list[float]:
        """How likely the reader is to find no answer, after each prompt, in nats."""
        from llama_qna.models.likelihood import doubts_of

        return doubts_of(self.model, self.tokenizer, input_ids)

    def generate(self, input_ids: list[list[int]], seeds: list[str], **options) -> list:
        """The texts that continue some prompts, as `models.generate.continue_prompts` gives them."""
        from llama_qna.models.generate import continue_prompts

        options = {"temperature": self.settings.temperature, "max_new_tokens": self.settings.max_new_tokens} | options
        return continue_prompts(
            self.model,
            self.tokenizer,
            input_ids,
            seeds=[f"{self.seed} {seed}" for seed in seeds],
            batch_size=self.settings.batch_size,
            **options,
        )

    def texts(self, requests: list[list[dict]], seeds: list[str], one_line: bool = False) -> list:
        found = self.generate([self.ids(messages) for messages in requests], seeds, stop_at_newline=one_line)
        return [Completion(index, text, tokens=self.count(text)) for index, (text, *_) in enumerate(found)]

    def count(self, text: str) -> int:
        return len(prompts.encode_document(self.tokenizer, text))


class Server:
    """An OpenAI-compatible server that has a model; what it has answered is in the ledger and is not asked again."""

    def __init__(self, settings: Generation, seed: int, ledger: Ledger | None = None):
        self.settings, self.seed, self.ledger = settings, seed, ledger
        self.format, self.thinks = AnswerFormat(PAIRS_SCHEMA), False

    def texts(self, requests: list[list[dict]], seeds: list[str], one_line: bool = False) -> list:
        """What the model says to each request: pairs, as JSON where the server takes that, or one line.

        The thoughts of a reasoning model would be stopped at their first line: what says nothing is asked again without
        a stop, and where nothing did, all that follows too.
        """
        if not one_line:
            return self._complete(requests, seeds, answer_format=self.format)
        found = self._complete(requests, seeds, stop=None if self.thinks else ["\n"])
        texts = [_first_line(text) for text in found]
        silent = [n for n, text in enumerate(texts) if not text.text and not text.error]
        if silent and not self.thinks:
            self.thinks = len(silent) == len(texts)
            again = self._complete([requests[n] for n in silent], [seeds[n] for n in silent])
            for n, text in zip(silent, again, strict=True):
                texts[n] = replace(_first_line(text), index=n, tokens=text.tokens + texts[n].tokens)
        return texts

    def _complete(self, requests: list[list[dict]], seeds: list[str], **options) -> list:
        endpoint, ledger = self.settings.endpoint, {} if self.ledger is None else self.ledger
        limits = {"max_tokens": self.settings.max_new_tokens, "temperature": self.settings.temperature}
        numbers = [int(hashlib.sha256(f"{self.seed} {seed}".encode()).hexdigest()[:7], 16) for seed in seeds]
        told = limits | {"model": endpoint.model, "stop": options.get("stop")}
        asked = zip(requests, numbers, strict=True)
        keys = [digest(told | {"messages": messages, "seed": number}) for messages, number in asked]
        found = {n: Completion(**ledger[key]["answer"]) for n, key in enumerate(keys) if key in ledger}
        new = [n for n in range(len(requests)) if n not in found]
        sent = [requests[n] for n in new]
        for answer in complete_all(endpoint, sent, seeds=[numbers[n] for n in new], **limits, **options):
            n = new[answer.index]
            found[n] = answer
            if self.ledger is not None and not answer.error:
                self.ledger.add([{"key": keys[n], "answer": asdict(answer)}])
        return [replace(found[n], index=n) for n in range(len(requests))]


def _first_line(completion):
    lines = without_thoughts(completion.text).strip().splitlines()
    return replace(completion, text=lines[0].strip() if lines else "")
