"""Which question-answer pairs are kept, and why the others are not."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise

from llama_qna.pairs.evidence import asks_for_no_reason
from llama_qna.text.language import languages_of
from llama_qna.text.right import is_taken_from
from llama_qna.text.stopwords import stopwords
from llama_qna.text.words import CHARACTER, OTHER_STOPS, SPACED_STOPS, content_words, similarity, supported

# By language; in others nothing is known to point at the text.
POINTS_AT_TEXT = {
    "en": r"\b(the|this|that) (text|passage|authors?|article|excerpt|paragraph|above|sentence)\b|\b(above|below)\b",
    "de": r"\b(de[rmns]|die|diese[mnrs]?|im|vom) (text(es)?|abschnitts?|absatz|autor(en|in)?|artikels?)\b|\boben\b",
    "es": r"\b(el|la|est[ea]|del|al) (texto|pasaje|autora?|artículo|fragmento|párrafo|frase)\b",
    "fr": r"\b(l['’]|(le|la|cet?|cette|du|au) )(texte|passage|auteure?|article|extrait|paragraphe)\b|\bci-dessus\b",
    "it": r"\b((del)?l['’]|(il|quest[oa]|del|nel|dal) )(testo|brano|passaggio|autore|articolo|paragrafo)\b",
    "ja": r"本文|上記|この文章|著者|筆者",
    "nl": r"\b(de|het|deze|dit) (tekst|passage|auteurs?|artikel|alinea|zin)\b|\bhierboven\b",
    "pt": r"\b([nd]?[oa]|est[ea]|[aà]o?) (texto|trecho|passagem|autora?|artigo|parágrafo|frase)\b",
    "ru": r"\b(в|из|это[тм]|данн(ый|ом)) (тексте?|текста|отрывк[еа]|абзац[еа]|стать[еи])\b|\bавтор(а|ы|у|ом)?\b",
    "zh": r"文中|本文|上文|上述|这段|這段|该段|作者",
}
ANSWER_END = re.compile(
    rf"[{SPACED_STOPS}{OTHER_STOPS})）\"”“»」』]$|[\u0e00-\u0e7f]\s?\d*$"
)  # Thai writes no full stop
QUESTION_END = re.compile(r"(?<! and)(?<! or)(?<! the)\?$|[？؟]$|か。$|[\u0e00-\u0e7f]$|(?<=[\u0370-\u03ff]);$")
QUESTION_WORD = re.compile(
    r"\b(what|when|where|who|whom|whose|why|which|how)\b|^(is|are|was|were|do|does|did|can|could|has|have|will|would)\b",
    re.I,
)
# a pronoun, or "the" with one common noun: the reader has not met what it stands for
VAGUE = re.compile(
    r"\b([Ii]t|[Tt]hey|[Tt]heir|[Ii]ts|[Tt]hese|[Tt]his)\b|^(?!Who).*\b([Hh]is|[Hh]er)\b"
    r"|^(What|Why) [a-z]+ (to )?the [a-z-]+( [a-z]+)?\?$"
)
DOUBT = -0.7  # nats, a half: a reader that is likelier than that to find no answer is not believed
SHORTEST_QUOTE = 12  # characters; less stands in many sentences
AFTER_NOUN = "and|or|to|in|on|at|by|from|with|into|through|is|was|are|were|be|have|has|can|when|while|under|over|after"
# Every reason to reject a pair, in the order in which it is looked for.
REASONS = [
    "no pair in the response",
    "the reader finds no answer",
    "cut off",
    "not a question",
    "refers to the text",
    "not supported by the chunk",
    "answer repeats the question",
    "question repeats itself",
    "answer not about the question",
    "asks why of what has no reason",
    "vague question",
    "unlikely question",
    "the model answers otherwise",
    "duplicate",
    "more pairs than wanted",
]


class Filters:
    """The rules for one set of chunks, each in its language.

    A few know English alone: which words begin a question, and what is vague. They pass what is in another language.

    Args:
        texts: every chunk of the corpus; they tell which words are common in it.
        min_score: the least mean log-probability per token of a question; see `Candidate.score`.
    """

    def __init__(self, texts: list[str], min_score: float):
        self.min_score = min_score
        self.languages = dict(zip(texts, languages_of(texts), strict=True))
        chunks = Counter(word for text in texts for word in content_words(text, self.languages[text]))
        self.rare = {word for word, count in chunks.items() if count <= max(2, 0.04 * len(texts))}
        nouns = Counter(pair for text in texts for pair in re.findall(r"\b(an?|the) ([a-z-]+)", text.lower()))
        self.introduced = {
            noun
            for article, noun in nouns
            if article != "the" and 2 * (nouns["a", noun] + nouns["an", noun]) >= nouns["the", noun]
        }

    def settled(self, candidate, text: str):
        """A candidate whose answer is true to its evidence: the reader's words where they stand there, else all of it.

        A small model that puts words of a sentence together anew often says something else.
        """
        evidence, language = candidate.evidence, self.languages.get(text, "en")
        found = evidence and candidate.answer and _agrees(candidate.check, evidence, language)
        if not found or is_taken_from(candidate.answer, evidence):
            return candidate
        return replace(candidate, answer=evidence)

    def reason(self, candidate, text: str) -> str:
        """The first reason to reject a candidate about a chunk's text, or an empty string."""
        if candidate.problem:
            return "no pair in the response"
        question, answer, language = candidate.question, candidate.answer, self.languages.get(text, "en")
        asked, answered, source = (content_words(words, language) for words in (question, answer, text))
        length = len(question.split()) + len(CHARACTER.findall(question)) // 2  # two characters are about a word
        about = candidate.evidence or answer  # a short answer need not say what it was asked about
        told = content_words(about, language)
        grounds = told if candidate.evidence else source
        rules = {
            "the reader finds no answer": not answer or (candidate.doubt is not None and candidate.doubt > DOUBT),
            "cut off": not ANSWER_END.search(answer) or not QUESTION_END.search(question),
            "not a question": (language == "en" and not QUESTION_WORD.search(question)) or not 3 <= length <= 40,
            "refers to the text": bool(re.search(POINTS_AT_TEXT.get(language, "(?!)"), f"{question} {answer}", re.I)),
            "not supported by the chunk": not supported(answer, answered, grounds, 0.75, language)
            or not supported(question, asked, source, 0.6, language),
            "answer repeats the question": answered <= asked,
            "question repeats itself": _repeats(question, about, language),
            "answer not about the question": len(asked & told) < max(min(2, len(asked)), 0.34 * len(asked)),
            "asks why of what has no reason": language == "en" and asks_for_no_reason(question, candidate.evidence),
            "vague question": language == "en" and self._is_vague(question, asked),
            "unlikely question": candidate.score is not None and candidate.score < self.min_score,
            "the model answers otherwise": not _agrees(candidate.check, about, language),
        }
        return next((reason for reason in REASONS if rules.get(reason)), "")

    def _is_vague(self, question: str, asked: frozenset[str]) -> bool:
        """Whether a reader without the passage could not tell what is asked.

        "the hole" points back where the documents say "a hole" about as often: things that are introduced with "a" are
        not the only ones of their kind, as "the universe" is.
        """
        named = re.search(r"\b[A-Z]", question[1:])  # a name says more than a common noun
        bare = 3 if re.match("What did\\b" if named else "What (did|does|do)\\b", question) else 2
        definite = re.findall(r"\bthe ([a-z-]+)(?=\?| (?:" + AFTER_NOUN + r")\b| \w+ed\b| \w+\?)", question)
        few = len(asked) < bare and not (bare == 2 and asked & self.rare)
        return bool(VAGUE.search(question)) or few or any(noun in self.introduced for noun in definite)


class Duplicates:
    """Finds questions that were nearly asked before: MinHash over pairs of neighbouring words.

    Locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998, as in `datasketch`) proposes, and the exact Jaccard
    similarity decides.
    """

    THRESHOLD = 0.6

    def __init__(self):
        from datasketch import MinHash, MinHashLSH

        self.index, self.texts = MinHashLSH(threshold=self.THRESHOLD - 0.15, num_perm=64), []
        self.empty = MinHash(num_perm=64, seed=1)  # its permutations take longer to draw than a text to hash

    def add(self, text: str) -> bool:
        """Take a text in, and say whether a near duplicate of it was there before; then it is not taken in."""
        if text in self:
            return True
        self.index.insert(len(self.texts), self._signature(text))
        self.texts.append(text)
        return False

    def __contains__(self, text: str) -> bool:
        shingles = _shingles(text)
        others = [_shingles(self.texts[n]) for n in self.index.query(self._signature(text))]
        return any(len(shingles & other) >= self.THRESHOLD * len(shingles | other) for other in others)

    def _signature(self, text: str):
        signature = self.empty.copy()
        signature.update_batch([shingle.encode() for shingle in sorted(_shingles(text))])
        return signature


@cache
def _shingles(text: str) -> frozenset[str]:
    words = [word.rstrip("s") for word in re.findall(r"\w+", text.lower())]
    return frozenset(" ".join(pair) for pair in pairwise(["", *words]))


def _agrees(check: str, about: str, language: str) -> bool:
    """Whether what the model says or quotes when it is asked is what the pair is about; a quote may be a part of it."""
    part = len(check) >= SHORTEST_QUOTE and check in about
    return part or similarity(about, check, language) >= 0.5


def _repeats(question: str, answer: str, language: str) -> bool:
    """Whether the question has a content word more often than a person would ask it.

    Only in a language of which the words without content are known.
    """
    none = stopwords(language)
    asked, said = (Counter(w for w in re.findall(r"\w+", text.lower()) if w not in none) for text in (question, answer))
    return bool(none) and any(count > max(1, said[word]) for word, count in asked.items())
