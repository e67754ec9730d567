"""The sentences of a chunk that a question may be asked about, and what a question asks for."""

from __future__ import annotations

import re

from llama_qna.text.language import language_of
from llama_qna.text.words import ENDED, content_words, sentences_of

DEEP, STRANGE = 0.25, 1.0  # nats
FEWEST, LONGEST = 4, 45  # content words, and words: a longer "sentence" is mostly a list or a table
# How an English sentence begins that leans on the one before it, and what points out of it within its first words; in
# other languages nothing is known to.
LEANS = re.compile(
    r"(But|And|So|Then|There|Thus|Hence|Both|Neither|Each|Another|Others?|One|Yet|Still|Or|Nor|Even|If|Later|More|"
    r"Some|Many|Few|None|All|Instead|Therefore|However|Here|Such|That|This|These|Those|It|They|He|She|We|I|You|Its|"
    r"Their|His|Her|Our|My|Your|Figure|Table|Chapter|Section|Imagine|Think|Let|Suppose|Consider|The (same|other|"
    r"others|result|first|second|third|two|three|four|rest|answer|difference|reason|latter|former))\b"
    r"|(\S+ ){0,6}?(it|they|them|he|she|his|her|him|we|our|us|you|your|this|these|those)\b"
)
DEEPER = re.compile(
    r"(Why|How (?!many|much|long|often|far|old|large|high|deep|fast)|For what reason|In what way|By what means"
    r"|(Is|Are|Was|Were|Do|Does|Did|Can|Could|Will|Would|Has|Have|Must|Should)\b)"
    r"|.*\b(differ\w*|compare[ds]?|than|whether)\b"
)
ASKS_WHY = re.compile("(Why|For what reason)\\b|.*\\bwhy\\b")
GIVES_REASON = re.compile(
    r"\b(because|since|so|therefore|thus|hence|due|owing|reasons?|causes?|caused|otherwise|in order|result\w*|lets?"
    r"|leads?|led|makes?|made|means?|meant|keeps?|kept|prevents?|prevented|allows?|allowed|needs?|needed|without|else"
    r"|cannot|for)\b"
)


def asks_deeper(question: str) -> bool:
    """Whether an English question asks why, how, whether, or to compare: for more than a name or a number."""
    return bool(DEEPER.match(question))


def asks_for_no_reason(question: str, evidence: str) -> bool:
    """Whether an English question asks why of a sentence that gives no reason; False where there is no sentence."""
    return bool(evidence and ASKS_WHY.match(question)) and not GIVES_REASON.search(evidence)


def stands_alone(sentence: str, language: str = "en") -> bool:
    """Whether a sentence is whole, and says something that is clear without the sentences around it."""
    begins = sentence[:1] in '"“«„¿¡(' or (sentence[:1].isalnum() and not sentence[:1].islower())
    whole = begins and ENDED.search(sentence) and sentence.count("(") == sentence.count(")")
    says = len(content_words(sentence, language)) >= FEWEST and len(sentence.split()) <= LONGEST
    leans = language == "en" and LEANS.match(sentence)
    return bool(whole and says and not leans and not sentence.endswith("?"))


def evidence_of(text: str, continued: bool, count: int) -> list[tuple[str, str]]:
    """Up to `count` sentences of a chunk that stand alone, spread evenly over those that do.

    Each comes with one neighbour on either side.

    Args:
        continued: the chunk begins in the middle of its section; its first sentence may be the end of one.
    """
    language = language_of(text) or "en"
    sentences = sentences_of(text)
    fit = [n for n, sentence in enumerate(sentences) if n >= continued and stands_alone(sentence, language)]
    if len(fit) > count:
        fit = [fit[place * len(fit) // count] for place in range(count)]
    return [(sentences[n], " ".join(sentences[max(0, n - 1) : n + 2])) for n in fit]


def worth(question: str, sentence: str, text: str, language: str) -> float:
    """What speaks for a question about a sentence beside its likelihood, in nats.

    A question that asks for more than a name or a number is less likely and worth more; one in words that the text does
    not have was made up, and so was one that asks why where no reason is given.
    """
    asked = content_words(question, language)
    strange = len(asked - content_words(text, language)) / max(1, len(asked))
    is_deeper = language == "en" and asks_deeper(question)
    has_no_reason = language == "en" and asks_for_no_reason(question, sentence)
    return (DEEP if is_deeper else 0) - STRANGE * strange - (STRANGE if has_no_reason else 0)
