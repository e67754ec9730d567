"""Which questions a sentence answers: how they begin, and with which words of the sentence they may go on.

The answer is chosen before the question, as in answer-aware question generation (Zhou et al. 2017, arXiv:1704.01792): a
number asks for "How many", a year for "In what year", a cause for "Why". A small model that is told how to begin, and
that has only the sentence's own words to go on with, can neither ask for what the sentence does not say nor invent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llama_qna.words import english

MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
YEAR = r"(?:1[4-9]\d\d|20\d\d)"
_COUNTS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|ninety"
NUMBER = rf"(?:\d[\d,.]*\d|\d|{_COUNTS}|(?:a|one) (?:hundred|thousand|million|billion))(?: (?:hundred|[mb]illion))*"
HEDGE = "(?:about|some|only|nearly|roughly|almost|around|up to|over|at least|at most|more than|less than|just)"

# What a sentence begins with that leans on the sentence before it, and words that point out of a sentence anywhere. A
# pronoun further on usually stands for something in its own sentence.
LEANS = re.compile(
    "(But|And|So|Then|There|Thus|Both|Neither|Each|Another|Others?|One|Yet|Still|Or|Nor|Even|If|What|Later|More|Most|Some|"
    "Many|Few|None|All|Figure|Table|The (same|other|others|result|first|second|third|two|three|rest|answer|difference|"
    "reason|trouble|problem|number|idea|experiment|effect|figure|whole|latter|program|method|"
    "treatment|group|team|burst|event|comparison|device|machine|excess|advantage|question|trick|test|particle))\\b"
)
POINTS_OUTSIDE = re.compile(
    r"(?:\S+ ){0,7}?(?:it|they|them|he|she|him|its|his|her|their)\b|.*\b(?:this|these|those|we|us|you|your|our|I|my|"
    r"here|such|former|latter|another|respectively|above|below)\b",
    re.IGNORECASE,
)
RELATIVE = re.compile(r"\b(that|which|who|whose|when|while|if|as|where)\b", re.IGNORECASE)

FUNCTION_WORDS = (
    "did does do is are was were has have had can could would will must may should the a an of in on at to for from by "
    "with as than that which into over under between through during after before per about and or not be been when "
    "while where how much many long no only"
).split()
BE = ("is", "are", "was", "were")
MODALS = ("can", "could", "must", "will", "would", "should")
BASE_FORMS = dict(
    pair.split(":")
    for pair in (
        "found:find made:make gave:give wrote:write took:take drew:draw came:come went:go saw:see knew:know grew:grow "
        "built:build held:hold kept:keep led:lead left:leave lost:lose met:meet paid:pay sent:send sold:sell "
        "spent:spend stood:stand taught:teach thought:think told:tell won:win brought:bring began:begin "
        "became:become broke:break "
        "chose:choose drove:drive fell:fall flew:fly rose:rise ran:run spoke:speak threw:throw wore:wear bent:bend "
        "bound:bind bought:buy caught:catch fed:feed felt:feel fought:fight heard:hear hung:hang laid:lay lent:lend "
        "meant:mean sank:sink sought:seek shook:shake shone:shine shot:shoot slept:sleep struck:strike swept:sweep "
        "understood:understand wound:wind shown:show bore:bear put:put set:set cut:cut hit:hit has:have had:have "
        "does:do did:do"
    ).split()
)


@dataclass(frozen=True)
class Form:
    """How a question begins, and the words of the sentence that it may go on with; without words it is complete.

    Of the words in `verb`, if there are any, the question must have one: a number is that of its own verb.
    """

    beginning: str
    words: tuple[str, ...] = ()
    verb: tuple[str, ...] = ()


def stands_alone(sentence: str) -> bool:
    """Whether a sentence says something that is clear without the sentences around it."""
    whole = sentence[:1].isupper() and sentence[-1:] in (".", "!") and sentence.count("(") == sentence.count(")")
    footnote_mark = re.search(r"[a-z][.,]\d", sentence)
    pointing = LEANS.match(sentence) or POINTS_OUTSIDE.match(sentence) or footnote_mark
    return whole and 7 <= len(sentence.split()) <= 40 and not pointing


def forms(sentence: str) -> list[Form]:
    """The questions that a sentence answers, those that ask for the most definite things first."""
    found = [*_durations(sentence), *_years(sentence), *_persons(sentence), *_causes(sentence)]
    found += [*_places(sentence), *_definitions(sentence)]
    open_ended = [*_numbers(sentence), *(Form(beginning, question_words(rest)) for beginning, rest in found)]
    return [form for form in open_ended if form.words] + [Form(question) for question in _statements(sentence)]


def clause(sentence: str, start: int, end: int) -> tuple[str, str]:
    """What stands before and after a span in its own clause, so that a question does not mix two statements."""
    before = re.split(r"[:;]|, (?:and|but|so|while|whereas|which|where)\b", sentence[:start])[-1]
    after = re.split(r"[,:;]| and (?=[a-z]+ed\b|is\b|was\b|has\b)|\b(?:but|while|which|where|so)\b", sentence[end:])[0]
    return before, after


def _numbers(sentence: str):
    """ "takes about 64 KB" answers "How many KB"; only a number beside the verb, or in the subject, is asked for."""
    unit = "percent|[a-z][a-z-]+s|[KM]B|[kMG]Hz|m?[JsW]|[MGT]eV"
    quantity = rf"(?P<number>{NUMBER}) (?P<noun>(?:[a-z][a-z-]+ )?(?:{unit}))\b"
    part = re.match(rf"{NUMBER} of (?:the|its) ", sentence, re.IGNORECASE)
    if part:
        yield Form("How many of the", question_words(sentence[part.end() :]))
    share = re.search(rf"\b(?P<verb>[a-z]+) (?:{HEDGE} )?\d[\d.]*%(?: of)?", sentence)
    if share and is_verb(share["verb"]):
        rest = " ".join(clause(sentence, share.end("verb"), share.end()))
        yield Form("What percentage", question_words(rest), _verb_forms(share["verb"]))
    for match in re.finditer(rf"(?:^|\b(?P<verb>[a-z]+) (?:{HEDGE} )?){quantity}", sentence, re.IGNORECASE):
        noun = match["noun"]
        before, after = clause(sentence, match.start("number"), match.end())
        if match["verb"] and (not is_verb(match["verb"]) or RELATIVE.search(before) or len(before.split()) < 2):
            continue
        if re.match(r" (on a side|away|off|wide|long|high|old|across|thick|apart|later|earlier|ago|to|or)\b", after):
            continue
        if noun.split()[0] in FUNCTION_WORDS or noun.split()[-1] in ("times", "as", "is", "was", "has", "thus"):
            continue
        beginning = "What percentage" if noun.endswith("percent") else f"How many {noun}"
        yield Form(beginning, question_words(before + after), _verb_forms(match["verb"] or ""))
        return


def _verb_forms(verb: str) -> tuple[str, ...]:
    return () if verb in (*BE, "") or base_forms(verb) == ["have"] else (verb, *base_forms(verb))


def _durations(sentence: str):
    unit = r"(?:\w*seconds?|minutes?|hours?|days?|weeks?|months?|years?)"
    match = re.search(rf"\bfor (?:{HEDGE} )?{NUMBER} {unit}\b", sentence)
    if match and not RELATIVE.search(clause(sentence, match.start(), match.end())[0]):
        yield "How long", " ".join(clause(sentence, match.start(), match.end()))
    match = re.search(rf"\bat (?:{HEDGE} )?{NUMBER} (?:\w+ per second|(kelvin|degrees)\b)", sentence)
    if match and not RELATIVE.search(clause(sentence, match.start(), match.end())[0]):
        rest = " ".join(clause(sentence, match.start(), match.end()))
        yield ("At what temperature" if match[1] else "At what speed"), rest


def _years(sentence: str):
    date = (
        rf"\b[Ii]n (?:{MONTH} )?{YEAR}\b|\b[Oo]n (\d+ )?{MONTH} (\d+, )?{YEAR}\b|\b[Ii]n the (?:early |late )?{YEAR}s\b"
    )
    match = re.search(date, sentence)
    # a year in a later clause may be that of another event than the sentence's
    if match and not re.search(r"[,;:]|\b(that|which|who|and)\b", sentence[: match.start()]):
        beginning = "When" if match.group().endswith("s") else "In what year"
        # commas part the subject from what describes it, not one statement from another
        rest = re.split(r"[:;]|,? and (?=[a-z]+ed\b|is\b|was\b|has\b)|, (?:but|so|while)\b", sentence[match.end() :])[0]
        yield beginning, sentence[: match.start()] + rest


def _persons(sentence: str):
    name = r"(?:[A-Z][\w’-]+ )(?:[A-Z][\w.’-]+ )*"
    match = re.match(
        rf"((?:In|On) [^,]*?{YEAR},? )?({name}(?:(?:and|, [A-Z][\w ]+ and) {name})?)((?:had )?[a-z]+)\b", sentence
    )
    if match and len(match[2].split()) > 1 and not match[2].startswith(("The ", "A ", "An ")):
        verb = match[3].split()[-1]
        if is_verb(verb) and verb not in BE:
            yield f"Who {match[3]}", (match[1] or "") + clause(sentence, match.end(3), match.end(3))[1]
    match = re.search(rf" (?:was|were) ([a-z]+) by {name}", f"{sentence} ")
    if match and is_verb(match[1]):
        yield "Who", " ".join([match[1], *clause(sentence, match.start(1), len(sentence))])


def _causes(sentence: str):
    match = re.search(r",? because\b", sentence)
    if match:
        yield "Why", clause(sentence, match.start(), len(sentence))[0]
    match = re.search(r", so (?!that\b)", sentence)
    if match:
        yield "Why", clause(sentence, match.end(), match.end())[1]
    match = re.search(r",? by [a-z]+ing\b", sentence)
    if match:
        yield "How", clause(sentence, match.start(), len(sentence))[0]


def _places(sentence: str):
    match = re.search(rf"\b(?:in|at) (?:the )?(?!{MONTH})[A-Z][\w’-]+(?: [A-Z][\w’-]+)*", sentence)
    if match and match.start() and not re.search(r"[,;:]|\b(that|which|who|Prize)\b", sentence[: match.start()]):
        yield "Where", sentence[: match.start()] + sentence[match.end() :]


def _definitions(sentence: str):
    match = re.match(r"((?:An? |The )?[\w’ -]{3,50}?),? (is|are|was|were) (an?|the|any|called|defined)\b", sentence)
    if match and len(match[1].split()) <= 4 and not RELATIVE.search(match[1]):
        yield f"What {match[2]}", match[1]
    match = re.match(r"(.{3,60}?) (?:has|have) an? ([a-z]+) of (?:about )?\d", sentence)
    if match and not RELATIVE.search(match[1]):
        yield f"What is the {match[2]} of", match[1]


def _statements(sentence: str):
    """ "In 1873 Abbe published a law" answers "What did Abbe publish in 1873?"; the first likely verbs are tried."""
    lead = re.match(
        rf"(?:In|On|By|At) [^,]{{3,40}}, |(?:In|On|By) (?:\d+ )?(?:{MONTH} )?{YEAR} |On the [A-Z][\w-]+(?: [A-Z]\w+)* "
        r"|In the field |On [A-Z][\w-]+(?: [A-Z]\w+)* ",
        sentence,
    )
    lead = lead.group() if lead else ""
    date = re.search(rf"\bin (?:{MONTH} )?{YEAR}\b", f"{lead[:1].lower()}{lead[1:]}" or sentence)
    when = f" {date.group()}" if date and "," not in sentence[len(lead) : date.start()] else ""
    words, tried = sentence.removeprefix(lead).split(), 0
    for i in range(1, min(len(words) - 2, 9)):
        before, verb, after = words[i - 1], words[i], words[i + 1]
        if before.endswith((",", ";", ":")) or RELATIVE.search(" ".join(words[:i])) or tried == 2:
            return
        if before.lower() in FUNCTION_WORDS or verb != verb.strip('.,;:()“”"'):
            continue
        subject = _lower_first(words[:i])
        if verb in MODALS and after in english() and after not in ("be", "not", "have"):
            yield f"What {verb} {subject} {after}?"
            return
        if verb in BE or (verb in ("has", "have", "had") and is_verb(after)) or after in ("by", "one"):
            return
        if not is_verb(verb) or verb.endswith("ing"):
            continue
        tried += 1
        past = verb not in ("has", "have", "does") and (verb in BASE_FORMS or verb.endswith("ed"))
        auxiliary = "did" if past else "do" if verb == "have" else "does"
        particle = f" {after}" if after in ("on", "to", "from", "for", "with", "of", "into", "out", "up", "off") else ""
        yield f"What {auxiliary} {subject} {base_forms(verb)[0]}{particle}{when if past else ''}?"


def _lower_first(words: list[str]) -> str:
    """Words in the middle of a sentence: the first loses its capital unless it is a name."""
    name = len(words) > 1 and words[1][:1].isupper()
    frequent = english().get(words[0].lower(), 0) > 1000  # the list has names too, all of them rare
    ordinary = words[0] in ("A", "An", "The") or (frequent and words[0][1:].islower() and not name)
    return " ".join([words[0].lower() if ordinary else words[0], *words[1:]])


def question_words(rest: str) -> tuple[str, ...]:
    """The words of a piece of text that a question may use, verbs also in their base form; no possessives."""
    stripped = [word.strip('.,;:!?()"“”[]—–…') for word in rest.split()]
    stripped = [word for word in stripped if word and word.lower() not in ("their", "its", "his", "her", "it")]
    found = []
    for word in stripped:
        found += [word] + (base_forms(word) if word.islower() else [])
    return tuple(dict.fromkeys([*found, *_lower_first(stripped).split()[:1]] if stripped else []))


def is_verb(word: str) -> bool:
    """Whether a word looks like a finite verb: "measured", "found", "takes"; plural nouns may pass for one."""
    regular = word.islower() and (word.endswith("ed") or (word.endswith("s") and not word.endswith("ss")))
    return word in BE or word in BASE_FORMS or (regular and bool(base_forms(word)))


def base_forms(word: str) -> list[str]:
    """What a verb form may come from: "stopped" gives "stop", "takes" gives "take"; only words of English."""
    found = [BASE_FORMS[word]] if word in BASE_FORMS else []
    for ending, instead in (("ied", "y"), ("ies", "y"), ("s", ""), ("es", ""), ("d", ""), ("ed", ""), ("ing", "e")):
        stem = word.removesuffix(ending) + instead
        if word.endswith(ending) and len(stem) > 2 and stem in english():
            found.append(stem)
    doubled = re.fullmatch(r"(\w+(\w))\2(?:ed|ing)", word)
    if doubled and doubled[1] in english():
        found.append(doubled[1])
    if word.endswith("ing") and word[:-3] in english() and len(word) > 5:
        found.append(word[:-3])
    return list(dict.fromkeys(found))
