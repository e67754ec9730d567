"""Scores of strings: plain functions, no model."""

from __future__ import annotations

import re
from collections import Counter

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

from llama_qna.text.language import language_of
from llama_qna.text.right import is_punctuation, is_right, new_words_f1, strip_label
from llama_qna.text.stopwords import ARTICLES
from llama_qna.text.words import CHARACTER, ENDED, TOKEN, normalized

ROUGE_NAMES = ["rouge1", "rouge2", "rougeL"]
ELISION = re.compile(r"\bl['’](?=\w)")  # the article before a vowel


class _AnyScript(Tokenizer):
    """Words in lower case, and the characters of scripts that put no space between words.

    The tokenizer that `rouge-score` brings keeps a to z and digits alone: a right answer without them scored 0.
    """

    def tokenize(self, text: str) -> list[str]:
        return TOKEN.findall(normalized(text))


# no stemming, as in the study; for English its tokenizer too
_english, _other = (RougeScorer(ROUGE_NAMES, tokenizer=kind) for kind in (DefaultTokenizer(), _AnyScript()))


def score(
    answer: str, reference: str, variants: list[str], question: str, ended: bool | None = None
) -> dict[str, float]:
    """Every score of one answer, each from 0 to 1; `right`, `empty` and `run_on` are 1 for yes and 0 for no.

    Args:
        reference: the answer that ROUGE compares with.
        variants: other answers that count as right beside the reference; may be empty.
        question: what it already says earns nothing in `right` and `new_words_f1`.
        ended: see `is_run_on`.

    Returns:
        `right`, `new_words_f1` (of the accepted answer that fits best), `rouge1`, `rouge2`, `rougeL`, `exact_match`,
        `f1`, `empty`, `run_on`.
    """
    accepted = [reference, *variants]
    language = language_of(f"{question} {reference}") or "en"
    return {
        "right": float(is_right(answer, accepted, question)),
        "new_words_f1": max(new_words_f1(answer, form, question) for form in accepted),
        **rouge(answer, reference, language=language),
        "exact_match": exact_match(answer, accepted, language),
        "f1": token_f1(answer, accepted, language),
        "empty": float(is_empty(answer)),
        "run_on": float(is_run_on(answer, ended)),
    }


def rouge(answer: str, reference: str, strip: bool = True, language: str = "") -> dict[str, float]:
    """ROUGE-1, -2 and -L F1 of one answer, 0 to 1 (Lin 2004, as in google's `rouge-score`, without stemming).

    A label such as `Answer:` is stripped from both sides: the study left it in its references, and every answer that
    repeated it scored a word for free; without `strip` it counts here too.

    Args:
        language: that of the reference; told by its words if it is not given.
    """
    if strip:
        answer, reference = strip_label(answer), strip_label(reference)
    is_english = (language or language_of(reference) or "en") == "en" and re.search("[a-zA-Z0-9]", reference)
    scores = (_english if is_english else _other).score(reference, answer)
    return {name: scores[name].fmeasure for name in ROUGE_NAMES}


def exact_match(answer: str, references: list[str], language: str = "en") -> float:
    """1 if the answer is one of the accepted references after SQuAD's normalisation, else 0 (Rajpurkar et al. 2016)."""
    said = _words(answer, language)
    return max(float(not is_empty(answer) and said == _words(reference, language)) for reference in references)


def token_f1(answer: str, references: list[str], language: str = "en") -> float:
    """F1 of the words of an answer against the accepted reference that fits best, 0 to 1 (Rajpurkar et al. 2016).

    Words are compared after SQuAD's normalisation, and one that is repeated counts as often as both sides have it.
    """
    return max(_f1(answer, reference, language) for reference in references)


def is_empty(answer: str) -> bool:
    """Whether an answer has no letter and no digit beside its label."""
    return not re.search(r"[^\W_]", strip_label(answer))


def is_run_on(answer: str, ended: bool | None = None) -> bool:
    """Whether an answer did not come to its end, or has the same four words in a row three times or more.

    An empty answer is not a run-on.

    Args:
        ended: whether the model ended the answer itself, before the limit of new tokens. Where that is not known, an
            answer has come to its end if it closes with `.`, `!`, `?`, `…` or the like of another script; this takes a
            bare name for a run-on.
    """
    if is_empty(answer):
        return False
    if ended is None:
        ended = bool(ENDED.search(answer.strip()))
    words = re.findall(r"\w+", answer.lower())
    repeats = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    return not ended or max(repeats.values(), default=0) >= 3


def _f1(answer: str, reference: str, language: str) -> float:
    said, expected = Counter(_words(answer, language)), Counter(_words(reference, language))
    if not said or not expected:  # nothing is left of "A", the name of a point, but it is still the right answer
        return exact_match(answer, [reference], language)
    return 2 * (said & expected).total() / (said.total() + expected.total())


def _words(text: str, language: str) -> list[str]:
    """The words of a text after SQuAD's normalisation: no case, no punctuation, no articles, no label.

    SQuAD's script knows only ASCII punctuation and English. As in MLQA (Lewis et al. 2020), all of Unicode's
    punctuation goes here, the articles are those of the language, and where no spaces part words, characters count.
    """
    text = normalized(strip_label(text))
    if language in ("fr", "it"):
        text = ELISION.sub("", text)
    plain = "".join(character for character in text if not is_punctuation(character))
    if language in ARTICLES:
        plain = re.sub(rf"\b({ARTICLES[language]})\b", " ", plain)
    if language != "en":
        plain = CHARACTER.sub(r" \g<0> ", plain)
    return plain.split()
