"""Which question-answer pairs are kept, and why the others are not."""

from __future__ import annotations

import re

import pandas as pd

POINTS_AT_TEXT = re.compile(
    r"\b(the|this|that) (text|passage|author|authors|article|excerpt|paragraph|above|sentence)\b|\b(above|below)\b",
    re.I,
)
STOPWORDS = set(
    "a about after all also an and any are as at be because been before between both but by can did do does each for "
    "from had has have he her his how if in into is it its may more most must no not of on one only or other out over "
    "she so some such than that the their them then there these they this those to two under up very was we were what "
    "when where which who why will with would you your".split()
)


def filter_pairs(pairs: pd.DataFrame, texts: dict[str, str]) -> list[str]:
    """Why each pair is rejected; an empty string for those that are kept. Cheap reasons come first."""
    reasons, seen = [], []
    for pair in pairs.itertuples():
        reason = reject_reason(pair.Question, pair.Answer, texts[pair.chunk_id])
        words = content_words(pair.Question)
        if not reason and any(len(words & other) > 0.8 * len(words | other) for other in seen):
            reason = "near duplicate"
        if not reason:
            seen.append(words)
        reasons.append(reason)
    return reasons


def reject_reason(question: str, answer: str, text: str) -> str:
    """The first reason to reject a pair, or an empty string."""
    if not question.endswith("?") or len(question.split()) < 4:
        return "not a question"
    if len(answer.split()) < 2:
        return "answer too short"
    if not re.search(r"[.!?)\"”]$", answer):
        return "answer cut off"
    if POINTS_AT_TEXT.search(question) or POINTS_AT_TEXT.search(answer):
        return "refers to the text"
    asked, answered, source = content_words(question), content_words(answer), content_words(text)
    if answered <= asked:
        return "answer repeats the question"
    if len(answer.split()) > 70:
        return "answer too long"
    if not claims(answer) <= source or len(answered & source) < 0.75 * len(answered):
        return "answer not supported by the chunk"
    if not claims(question) <= source or len(asked & source) < 0.6 * len(asked):
        return "question not about the chunk"
    if len(asked & answered) < min(2, len(asked)) or len(asked & answered) < 0.34 * len(asked):
        return "answer not about the question"
    return ""


def claims(text: str) -> set[str]:
    """Numbers, and names: words with a capital that do not begin a sentence."""
    names = re.findall(r"(?<=[a-z,;] )[A-Z]\w+", text)
    numbers = re.findall(r"\d[\d.,]*\d|\d", text)
    return content_words(" ".join(names + numbers))


def content_words(text: str) -> set[str]:
    """Words that carry meaning, in lower case, with a plural's s cut off; numbers whole."""
    words = re.findall(r"\d[\d.,]*\d|\w+", re.sub(r"['’]s\b", "", text.lower()))
    return {word.rstrip("s") if len(word) > 3 else word for word in words} - STOPWORDS
