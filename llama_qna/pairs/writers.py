"""A model writes candidate pairs about chunks. Here is how it is asked; what is kept is decided in `pair_filters`.

`two_step` asks for one question and then for its answer. `multi_pair` asks for several pairs in one text, as the study
did. Either runs on a model in this process or on a server (`endpoints`).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace

from llama_qna.models import prompts
from llama_qna.pairs import parser
from llama_qna.pairs.grammar import AUXILIARIES, FUNCTION_WORDS, LONGEST_ANSWER, forms, stands_alone
from llama_qna.project.recipe import Generation
from llama_qna.project.variant import Variant
from llama_qna.text.words import content_words, sentences_of

_TEXTS = {"type": "object", "properties": {"question": {"type": "string"}, "answer": {"type": "string"}}}
_PAIRS = {"pairs": {"type": "array", "items": _TEXTS | {"required": ["question", "answer"]}}}
PAIRS_SCHEMA = {"type": "object", "properties": _PAIRS, "required": ["pairs"]}


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
    check: str = ""  # what the model answers when it is given the chunk and the question
    score: float | None = None  # mean log-probability per token of the question, given the answer
    free: bool = True  # the model chose words of the question
    problem: str = ""  # why there is no whole pair; the raw text then stands in `question`


@dataclass
class Written:
    """What a model wrote about one passage."""

    candidates: list[Candidate]
    tokens: int = 0
    final: bool = True  # False: a server refused the request, which may pass another time

    def entry(self) -> dict:
        return {"candidates": [asdict(candidate) for candidate in self.candidates], "tokens": self.tokens}

    @classmethod
    def of_entry(cls, entry: dict) -> Written:
        return cls([Candidate(**candidate) for candidate in entry["candidates"]], entry["tokens"])


def writer(variant: Variant):
    """The function `write(passages, attempt) -> list[Written]` of a variant; loads its model unless a server has it."""
    settings = variant.recipe.generation
    if settings.endpoint:
        engine = Server(settings, variant.recipe.seed)
        return {"two_step": TwoCalls, "multi_pair": MultiPair}[settings.method](engine, settings)
    engine = LocalModel(variant)
    return {"two_step": TwoStep, "multi_pair": MultiPair}[settings.method](engine, settings)


class TwoStep:
    """One question for each form of each sentence, then the sentence of the passage that answers it best.

    Answers written freely by a model of 135M parameters were unsupported in 67 of 136 tries, and questions written
    freely asked for what is not there. So the answer is a sentence of the passage, the question begins with what that
    sentence can answer and goes on with its words, and the model is asked which sentence makes the question most
    likely (the noisy channel of Lewis and Fan 2019, "Generative Question Answering").
    """

    def __init__(self, engine: LocalModel, settings: Generation):
        self.engine, self.settings = engine, settings

    def __call__(self, passages: list[Passage], attempt: int) -> list[Written]:
        asked = []
        for index, passage in enumerate(passages):
            sentences = sentences_of(passage.text)
            if passage.continued:
                sentences = sentences[1:]  # its beginning stands in the chunk before
            for sentence in filter(stands_alone, sentences):
                # a complete question is the same at every attempt
                asked += [(index, sentence, form) for form in forms(sentence) if form.words or attempt == 1]
        questions, tokens = self._questions(passages, asked, attempt)
        found = dict.fromkeys(
            (index, sentence, question, bool(form.words))
            for (index, sentence, form), question in zip(asked, questions, strict=True)
            if not form.verb or set(form.verb) & set(question.rstrip("?").split())
        )
        return self._answers(passages, list(found), tokens)

    def _questions(self, passages, asked, attempt) -> tuple[list[str], list[int]]:
        """A question for each (passage, sentence, form); the tokens written for each passage."""
        unfinished = [n for n, (_, _, form) in enumerate(asked) if form.words]
        rows = [asked[n] for n in unfinished]
        texts = self.engine.generate(
            [self.engine.question_prompt(sentence, form.beginning) for _, sentence, form in rows],
            [f"{attempt} {passages[index].chunk_id} {sentence} {form.beginning}" for index, sentence, form in rows],
            words=[(*form.words, *function_words(sentence)) for _, sentence, form in rows],
        )
        questions, tokens = [form.beginning for _, _, form in asked], [0] * len(passages)
        for n, text in zip(unfinished, texts, strict=True):
            questions[n] += f" {text}"
            tokens[asked[n][0]] += self.engine.count(text)
        return questions, tokens

    def _answers(self, passages, found, tokens) -> list[Written]:
        """Score each question with its own sentence and with those of the passage that share a word with it."""
        rows = []
        for n, (index, own, question, _) in enumerate(found):
            words = content_words(question)
            others = (s for s in sentences_of(passages[index].text) if s != own and len(s.split()) <= LONGEST_ANSWER)
            shared = {sentence: len(words & content_words(sentence)) for sentence in others}
            rivals = sorted(filter(shared.get, shared), key=shared.get, reverse=True)[:2]
            rows += [(n, sentence) for sentence in (own, *rivals)]
        scores = self.engine.likelihoods(
            [self.engine.question_prompt(sentence) for _, sentence in rows], [found[n][2] for n, _ in rows]
        )
        best: dict[int, tuple[float, str]] = {}
        for (n, sentence), score in zip(rows, scores, strict=True):
            best[n] = max(best.get(n, (-1e9, "")), (score, sentence))
        written = [Written([], count) for count in tokens]
        for n, (index, own, question, free) in enumerate(found):
            written[index].candidates.append(Candidate(question, own, best[n][1], round(best[n][0], 3), free))
        return written


def function_words(sentence: str) -> list[str]:
    """The small words that a question about a sentence may use beside the sentence's own."""
    said = sentence.lower().split()
    return [word for word in FUNCTION_WORDS if word not in AUXILIARIES or word in said]


class MultiPair:
    """Several pairs for each passage in one text, parsed, and each question answered once more for the check."""

    def __init__(self, engine, settings: Generation):
        self.engine, self.settings = engine, settings

    def __call__(self, passages: list[Passage], attempt: int) -> list[Written]:
        seeds = [f"{attempt} {passage.chunk_id}" for passage in passages]
        count = self.settings.pairs_per_chunk
        requests = [prompts.pairs_messages(passage.text, count) for passage in passages]
        texts = self.engine.texts(requests, seeds, schema=PAIRS_SCHEMA)
        written = []
        for text in texts:
            pairs, leftovers = parser.parse_response(text.text)
            candidates = [Candidate(*pair) for pair in pairs]
            candidates += [Candidate(raw, "", problem=reason) for raw, reason in leftovers]
            written.append(_refused(text) if text.error else Written(candidates, text.tokens))
        return _checked(self.engine, passages, written, seeds)


class TwoCalls:
    """Two calls to a server for each part of a passage: a question, then its answer."""

    def __init__(self, engine, settings: Generation):
        self.engine, self.settings = engine, settings

    def __call__(self, passages: list[Passage], attempt: int) -> list[Written]:
        parts = [
            (index, part)
            for index, passage in enumerate(passages)
            for part in parts_of(passage.text, self.settings.pairs_per_chunk)
        ]
        seeds = [f"{attempt} {passages[index].chunk_id} {part}" for index, part in parts]
        asked = self.engine.texts([prompts.question_messages(part) for _, part in parts], seeds, stop=["\n"])
        questions = [parser.strip_question_label(text.text) for text in asked]
        answered = self.engine.texts(
            [prompts.answer_messages(part, q) for (_, part), q in zip(parts, questions, strict=True)],
            seeds,
            stop=["\n"],
        )
        written = [Written([]) for _ in passages]
        for (index, _), question, first, second in zip(parts, questions, asked, answered, strict=True):
            if first.error or second.error:
                written[index] = _refused(first if first.error else second)
            elif written[index].final:
                answer = parser.strip_answer_label(second.text)
                problem = "" if question and answer else "empty response"
                written[index].candidates.append(Candidate(question, answer, problem=problem))
                written[index].tokens += first.tokens + second.tokens
        return _checked(self.engine, passages, written, [f"{attempt} {passage.chunk_id}" for passage in passages])


def _refused(text) -> Written:
    return Written([Candidate("", "", problem=f"refused by the server: {text.error}")], final=False)


def _checked(engine, passages, written, seeds) -> list[Written]:
    """Let the model answer every question once more, with the whole chunk before it."""
    rows = [
        (result, candidate, passage, seed)
        for passage, result, seed in zip(passages, written, seeds, strict=True)
        for candidate in result.candidates
        if not candidate.problem
    ]
    texts = engine.texts(
        [prompts.answer_messages(passage.text, candidate.question) for _, candidate, passage, _ in rows],
        [f"{seed} {candidate.question}" for _, candidate, _, seed in rows],
        stop=["\n"],
    )
    for (result, candidate, _, _), text in zip(rows, texts, strict=True):
        candidate.check = parser.strip_answer_label(text.text)
        if text.error:
            candidate.problem, result.final = f"refused by the server: {text.error}", False
    return written


class LocalModel:
    """The base model of the recipe in this process."""

    def __init__(self, variant: Variant):
        from llama_qna.models.base import load_base, load_tokenizer

        recipe = variant.recipe
        self.settings, self.seed = recipe.generation, recipe.seed
        self.tokenizer = load_tokenizer(recipe.base_model)
        self.model = load_base(recipe.base_model, recipe.quantization if recipe.generation.load_in_4bit else None)

    def question_prompt(self, sentence: str, beginning: str = "") -> list[int]:
        return prompts.write_question_prompt(self.tokenizer, sentence, beginning)

    def generate(self, input_ids: list[list[int]], seeds: list[str], **options) -> list[str]:
        from llama_qna.models.generate import generate_texts

        return generate_texts(
            self.model,
            self.tokenizer,
            input_ids,
            temperature=self.settings.temperature,
            seeds=[f"{self.seed} {seed}" for seed in seeds],
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
            done=lambda count: None,
            **options,
        )

    def texts(self, requests: list[list[dict]], seeds: list[str], stop: list[str] | None = None, schema=None) -> list:
        from llama_qna.models.server import Completion

        input_ids = [prompts.chat_ids(self.tokenizer, messages) for messages in requests]
        texts = self.generate(input_ids, seeds, stop_at_newline=bool(stop))
        return [Completion(index, text, tokens=self.count(text)) for index, text in enumerate(texts)]

    def likelihoods(self, input_ids: list[list[int]], texts: list[str]) -> list[float]:
        from llama_qna.models.likelihood import candidate_log_likelihoods

        candidates = [self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"] for text in texts]
        return candidate_log_likelihoods(self.model, input_ids, candidates)

    def count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class Server:
    """An OpenAI-compatible server that has a model."""

    def __init__(self, settings: Generation, seed: int):
        self.settings, self.seed = settings, seed
        self.format, self.thinks = None, False

    def texts(self, requests: list[list[dict]], seeds: list[str], stop: list[str] | None = None, schema=None) -> list:
        """What the model says to each request; with `stop`, its first line.

        The thoughts of a reasoning model would be stopped at their first line: what says nothing is asked again without
        `stop`, and where nothing did, all that follows too.
        """
        if not stop:
            return self._complete(requests, seeds, schema=schema)
        texts = [_first_line(text) for text in self._complete(requests, seeds, stop=None if self.thinks else stop)]
        silent = [n for n, text in enumerate(texts) if not text.text and not text.error]
        if silent and not self.thinks:
            self.thinks = len(silent) == len(texts)
            again = self._complete([requests[n] for n in silent], [seeds[n] for n in silent])
            for n, text in zip(silent, again, strict=True):
                texts[n] = replace(_first_line(text), index=n, tokens=text.tokens + texts[n].tokens)
        return texts

    def _complete(self, requests: list[list[dict]], seeds: list[str], stop=None, schema=None) -> list:
        from llama_qna.models.server import AnswerFormat, complete_all

        self.format = self.format or (AnswerFormat(schema) if schema else None)
        answers = complete_all(
            self.settings.endpoint,
            requests,
            max_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            seeds=[int(hashlib.sha256(f"{self.seed} {seed}".encode()).hexdigest()[:7], 16) for seed in seeds],
            stop=stop,
            answer_format=self.format if schema else None,
        )
        return sorted(answers, key=lambda answer: answer.index)


def _first_line(completion):
    lines = parser.without_thoughts(completion.text).strip().splitlines()
    return replace(completion, text=lines[0].strip() if lines else "")


def parts_of(text: str, count: int) -> list[str]:
    """Cut a text into up to `count` parts of neighbouring sentences, of about equal length; nothing is lost."""
    target, parts = len(text) / count, [""]
    for sentence in sentences_of(text):
        full = len(parts[-1]) + len(sentence) / 2 > target
        if len(parts[-1]) > 40 and len(parts) < count and full:
            parts.append("")
        parts[-1] = f"{parts[-1]} {sentence}".strip()
    if len(parts) > 1 and len(parts[-1]) <= 40:  # too short to ask about
        parts[-2:] = [" ".join(parts[-2:])]
    return parts
