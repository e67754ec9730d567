"""Whether an answer is right, by a rule that the question, a page or silence cannot satisfy.

Overlap with a reference rewards whoever repeats the question or copies a sentence. Here an answer has to hold something
that the question does not hold, in few words. Strings in, yes, no or a number out: no model, no file.
"""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from functools import cache

MOST_WORDS = 40  # of an answer that can be right: who says everything has answered nothing
COPIED_SHARE = 0.9  # of the words of a sentence
SHORTEST_COPIED = 4  # words; a heading of two words is no sentence that could be copied
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_COMPOUND = re.compile(rf"\b({'|'.join(_TENS)})[- ]({'|'.join(_ONES[1:10])})\b")
_HUNDREDS = re.compile(rf"\b({'|'.join(_ONES[1:10])}|an?) hundred\b")
_SIGNS = {"−": "-", "⁄": "/", "×": " x ", "%": " percent ", "≈": " ", "^": " "}
_BARE = {("yes",), ("no",)}
_LEADS = frozenset("because it they by in to with at of".split())
_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?"
# what makes another number of the number before it
_UNITS = frozenset(
    (
        "percent point points hundred thousand million billion trillion times degree degrees macs second "
        "seconds minute minutes hour hours day days week weeks month months year years ns ms s h nanoseconds "
        "microseconds milliseconds hz khz mhz ghz bit bits byte bytes b kb mb gb nm mm cm m km meter meters "
        "nanometers micrometers millimeters centimeters kilometers mg g kg gram grams kilograms ton tons "
        "tonnes mv v millivolts volts mw w kw watt watts kilowatts megawatts gigawatts j mj joule joules "
        "megajoules ev kev mev gev tev n newton newtons k kelvin tesla"
    ).split()
)
_YEAR = re.compile("1[0-9]{3}|20[0-9]{2}")


def is_right(answer: str, forms: list[str], question: str) -> bool:
    """Whether an answer holds an accepted form that the question does not already hold, in at most 40 words.

    >>> is_right("It was built by Oduya.", ["Brannagh Oduya built it.", "Oduya"], "Who built it?")
    True

    Forms are looked for as whole tokens after SQuAD's normalisation (Rajpurkar et al. 2016, arXiv:1606.05250), in which
    a number stays whole: "0.5" is not "5", and "one" is "1". A number counts only with the unit of its form, where the
    form has none with no unit that no form has, and not beside another number of the same unit that neither the
    question nor a form has: "159 or 255 ms" is no answer. A form that is a list ("S2, S3 and S4") counts if all its
    items are there, in any order. "Yes" and "no" alone say nothing: the reason has to be there, and not the opposite
    word before it. The rule reads no grammar: "not Oduya" holds "Oduya". A form of which nothing is left, such as "A"
    or "+", has to be the whole answer.

    Args:
        forms: the full reference answer first, then the short forms that are accepted too.
    """
    said, asked, accepted = tokens(answer), tokens(question), [tokens(form) for form in forms]
    if not 0 < len(strip_label(answer).split()) <= MOST_WORDS or {said[:1], accepted[0][:1]} == _BARE:
        return False
    known = set(asked).union(*accepted)
    numbers = [n for n, word in enumerate(_words(answer)) if _is_number(said[n]) and word != "one"]
    new = [n for n in numbers if said[n] not in known]
    if any(not left and _literal(form) == _literal(answer) for form, left in zip(forms, accepted, strict=True)):
        return True
    for items in [list(filter(None, accepted[:1])), *map(_items, forms[1:])]:
        is_new = not all(_holds(asked, item) for item in items)
        if is_new and all(_holds(said, item, _UNITS - known) and not _has_rival(said, item, new) for item in items):
            return True
    return False


def new_words_f1(answer: str, reference: str, question: str) -> float:
    """Token F1, 0 to 1, over the words of an answer and of its reference that are not in the question.

    An echo of the question has 0, and so has an answer to a reference that says nothing new. The articles and the case
    do not count, repeated words count as often as both sides have them (Rajpurkar et al. 2016).
    """
    asked = set(tokens(question))
    said, expected = (Counter(t for t in tokens(text) if t not in asked) for text in (answer, reference))
    if not said or not expected:
        return 0.0
    return 2 * (said & expected).total() / (said.total() + expected.total())


def is_copied(answer: str, sentences: Iterable[str]) -> bool:
    """Whether an answer has at least 90% of the words of one of the sentences, in their order."""
    return any(_has_most_of(tokens(answer), tokens(sentence)) for sentence in sentences)


def stands_in(first: str, second: str) -> bool:
    """Whether one of two quotes has at least 90% of the words of the other, in their order."""
    shorter, longer = sorted((tokens(first), tokens(second)), key=len)
    return _has_most_of(longer, shorter)


def is_taken_from(answer: str, sentence: str) -> bool:
    """Whether the words of an answer stand in a sentence in a row, but for what leads to them ("Because it ...").

    >>> is_taken_from("Because of the thaw.", "The ferry stopped in March, because of the thaw.")
    True
    """
    said = tuple(itertools.dropwhile(lambda token: token in _LEADS, tokens(answer)))
    return bool(said) and _holds(tokens(sentence), said)


def says_not(answer: str, not_said: str) -> bool:
    """Whether an answer is the sentence with which a system says that its documents do not tell, and nothing beside.

    One document or many, "don't" or "do not", and a closing "that", "so" or "it" make no difference. Who adds an answer
    has not said that there is none.
    """
    return _plain_refusal(answer) == _plain_refusal(not_said)


@cache
def tokens(text: str) -> tuple[str, ...]:
    """The tokens of a text after SQuAD's normalisation: no case, no punctuation, no articles, no label.

    Numbers stay whole and get one form: "1,000.50" is "1000.5", "٣" is "3", "−70" and "minus 70" are "-70",
    "twenty-one" is "21", "10³⁶" and "10^36" are "10" and "36". "%" is "percent", and the unit in "200MHz" stands alone.
    """
    return tuple(_value(word) for word in _words(text))


def strip_label(text: str) -> str:
    """A text without the label "Answer:" before it."""
    return re.sub(r"^\W*answer\W*:\s*", "", text, flags=re.IGNORECASE).strip()


def is_punctuation(character: str) -> bool:
    """Whether a character is punctuation: SQuAD's, which is ASCII's, or any of Unicode's (MLQA, Lewis et al. 2020)."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _words(text: str) -> list[str]:
    """Words, in lower case without articles, and numbers; a number word is not yet a number."""
    plain = re.sub(r"(?<=\d)([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", r" \1", strip_label(text))  # 10³⁶ is not 1036
    plain = unicodedata.normalize("NFKC", plain).lower()
    for sign, meaning in _SIGNS.items():
        plain = plain.replace(sign, meaning)
    plain = re.sub(r"\bper cent\b", " percent ", re.sub(r"\bminus (?=\d)", "-", plain))
    plain = _COMPOUND.sub(lambda match: f" {_VALUES[match[1]] + _VALUES[match[2]]} ", plain)
    plain = _HUNDREDS.sub(lambda match: f" {100 * _VALUES.get(match[1], 1)} ", plain)
    words = [word for part in plain.split() for word in _words_of_part(part)]
    return [word for word in words if word not in ("a", "an", "the")]


def _words_of_part(part: str) -> list[str]:
    """The words of what stands between two spaces: a number at its beginning, and what is joined to it, stand alone."""
    found = re.match(rf"[^\w√±+-]*([+-]?{_NUMBER})(.*)", part)
    if found:
        rest = re.sub(r"^[-–](?=\d)", "", found[2])  # the dash of a range is no sign
        return [found[1].lstrip("+"), *_words_of_part(rest)]
    word = "".join(character for character in part if not is_punctuation(character))
    return [word] if word else []


def _value(word: str) -> str:
    """The one form of a number; any other word as it is."""
    if word in _VALUES:
        return str(_VALUES[word])
    plain = word.replace(",", "")
    if not re.fullmatch(rf"-?{_NUMBER}", plain) or "/" in plain:
        return word
    value = Decimal(plain)
    return f"{value.normalize():f}"


def _is_number(token: str) -> bool:
    return bool(re.fullmatch(rf"-?{_NUMBER}", token))


def _items(form: str) -> list[tuple[str, ...]]:
    """The items of a form that is a list, or the form as the only one; nothing of what is no more than yes or no."""
    items = [tokens(item) for item in re.split(r",\s+(?:and\s+)?|\s+and\s+", form)]
    return [item for item in items if item and item not in _BARE]


def _holds(text: tuple[str, ...], item: tuple[str, ...], units: frozenset[str] = frozenset()) -> bool:
    """Whether the tokens of an item stand together in a text, and no other unit after a number at its end."""
    ends_in_number = _is_number(item[-1])
    for start in range(len(text) - len(item) + 1):
        end = start + len(item)
        has_other_unit = ends_in_number and end < len(text) and text[end] in units
        if text[start:end] == item and not has_other_unit:
            return True
    return False


def _literal(text: str) -> str:
    """A text without case, label and the marks around it, unless it is nothing but marks: "A" is "a)"."""
    plain = strip_label(text).casefold()
    return plain.strip(string.punctuation + string.whitespace) or plain


def _has_rival(said: tuple[str, ...], item: tuple[str, ...], others: list[int]) -> bool:
    """Whether a number of an item stands beside another of the same unit; `others`: where new numbers stand in `said`.

    An item that ends in a number has no unit: then any new number is a rival. A year is one of a year alone, unless the
    unit follows it.
    """
    for n, token in enumerate(item):
        if not _is_number(token):
            continue
        unit = _unit(item, n)
        for other in others:
            is_alike = not unit or _unit(said, other) == unit
            is_date = _YEAR.fullmatch(said[other]) and not _YEAR.fullmatch(token)
            if is_alike and (not is_date or (unit and said[other + 1 : other + 2] == unit)):
                return True
    return False


def _unit(words: tuple[str, ...], n: int) -> tuple[str, ...]:
    """The word after the number at `n`, past what joins it to other numbers ("159 or 255 ms"); none at the end."""
    following = (word for word in words[n + 1 :] if not _is_number(word) and word not in ("or", "to"))
    return tuple(itertools.islice(following, 1))


def _plain_refusal(text: str) -> str:
    plain = text.lower().replace("’", "'").replace("n't", " not")
    plain = re.sub(r"\bdoes\b", "do", re.sub(r"\bdocument\b", "documents", plain))
    return re.sub(r" (that|so|it|this)$", "", " ".join(tokens(plain)))


def _has_most_of(said: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Whether a text has at least 90% of the words of a sentence, in their order."""
    least = COPIED_SHARE * len(words)
    in_any_order = (Counter(said) & Counter(words)).total()  # tells most sentences apart, and is quick
    return len(words) >= SHORTEST_COPIED and in_any_order >= least and _common_in_order(said, words) >= least


def _common_in_order(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """The length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for token in first:
        diagonal = 0
        for n, other in enumerate(second, start=1):
            longest = diagonal + 1 if token == other else max(lengths[n], lengths[n - 1])
            diagonal, lengths[n] = lengths[n], longest
    return lengths[-1]
