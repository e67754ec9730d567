"""Which questions a sentence answers: how they begin, and with which words of the sentence they may go on.

The answer is chosen before the question, as in answer-aware question generation (Zhou et al. 2017, arXiv:1704.01792): a
number asks for "How many", a year for "In what year", a cause for "Why". A small model that is told how to begin, and
that has only the sentence's own words to go on with, can neither ask for what the sentence does not say nor invent.
English verbs come first, as far as turning a statement into a question needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llama_qna.text.words import english

FUNCTION_WORDS = (
    "did does do is are was were has have had can could would will must may should the a an of in on at to for from by "
    "with as than that which into over under between through during after before per about and or not be been when "
    "while where how much many long no only"
).split()
BE = ("is", "are", "was", "were")
# a question has these only where its sentence has them: "surveyed" must not become "was surveyed", nor be denied
AUXILIARIES = (*BE, *"has have had can could would will must may should be been not no only".split())
NO_SUBJECT = (*(word for word in FUNCTION_WORDS if word not in ("a", "an", "the")), "nobody", "nothing", "few")
COUNTS = (
    "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty sixty ninety".split()
)
THING = "§"  # stands for an object that was taken out of a statement
OBJECTS = (
    "a an the its their his her no both all each every some any one that how what when where why whether about nearly "
    "only almost more less another other many most several up out off"
).split() + [*COUNTS, THING]
INTRANSITIVE = "depends consists comes falls rises belongs leads refers relies works rides travels starts goes".split()
MODALS = ("can", "could", "must", "will", "would", "should", "may", "might", "do", "does", "did")
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
        "understood:understand wound:wind shown:show bore:bear has:have had:have "
        "does:do did:do put:put"
    ).split()
)
TIES = "then thus therefore also later merely typically often".split()
RELATIVE = re.compile(r"\b(that|which|who|whose|when|while|if|as|where)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Inversion:
    """A statement turned round for a question: "Riemann set no limit" is (did, Riemann, set, no limit)."""

    auxiliary: str
    subject: str
    verb: str  # base form; empty where the auxiliary is all there is of the verb
    rest: str


def inversions(statement: str) -> Iterator[Inversion]:
    """The ways to turn a statement round, by the words that may be its verb, the first ones first; two at most.

    Plural nouns look like verbs ("waves", "gaps"), so some are wrong; the model's likelihood tells.
    """
    # a description between commas does not belong to the question: "Kardashev, an astronomer, classified"
    statement = re.sub(r"^((?:[A-Z][\w.’-]*\s?)+), (?:an?|the|then|later|himself) [^,]*, ", r"\1 ", statement)
    words, tried = statement.split(), 0
    for i in range(1, min(len(words), 12)):
        before, verb, after = words[i - 1], words[i], (words[i + 1 :] or [THING])[0]
        if before.endswith(",") and verb[0].isupper():  # a list of names
            continue
        if before.endswith((",", ";", ":")) or RELATIVE.search(" ".join(words[:i])) or tried == 2:
            return
        quantity = any(word[0].isdigit() or word in COUNTS for word in words[max(0, i - 2) : i])
        if before.lower() in FUNCTION_WORDS or quantity or verb != verb.strip('.,;:()“”"'):
            continue
        subject, rest = " ".join(_without_adverbs(words[:i])), " ".join(words[i + 1 :])
        past = any(word in BASE_FORMS or word.endswith("ed") for word in words[1:i])  # so that was the verb
        if subject.split()[0].lower() in NO_SUBJECT or past:
            return
        if verb in MODALS or verb in BE or (verb in ("has", "have", "had") and is_verb(after)):
            verb_after = after if verb in MODALS and after in english() and after not in ("be", "not", "have") else ""
            yield Inversion(verb, subject, verb_after, rest.removeprefix(verb_after).strip())
            return
        if not is_verb(verb) or verb.endswith("ing") or not _acts(words, i):
            continue
        tried += 1
        past = verb not in ("has", "have", "does") and (verb in BASE_FORMS or verb.endswith("ed"))
        base = "have" if verb == "have" else base_forms(verb)[0]
        yield Inversion("did" if past else "do" if verb == "have" else "does", subject, base, rest)


def _without_adverbs(subject: list[str]) -> list[str]:
    """A subject as a question says it, without the adverbs that tie its sentence to the one before."""
    words = lower_first(subject).split()
    while len(words) > 1 and words[-1] in TIES:
        words.pop()
    return words


def _acts(words: list[str], i: int) -> bool:
    """Whether a word that looks like a verb is one here: not a plural noun, and not a participle of the subject."""
    verb, after = words[i], (words[i + 1 :] or [THING])[0]
    if verb in ("has", "have", "had") or (verb in BASE_FORMS and verb.endswith("s")):
        return True
    if verb.endswith("s") and verb not in BASE_FORMS:
        goes_on = after.lower() in OBJECTS or after[0].isdigit() or after[0].isupper() or after.endswith("ing")
        return goes_on or verb in INTRANSITIVE or words[0] in ("A", "An", "Each", "Every")
    if verb in ("named", "called"):
        return False
    clause = RELATIVE.split(re.split("[,;:]", " ".join(words[i + 1 :]))[0])[0]
    return not re.search(r"\b(is|are|was|were|has|have|had)\b", clause)


def lower_first(words: list[str]) -> str:
    """Words in the middle of a sentence: the first loses its capital unless it is a name."""
    name = len(words) > 1 and words[1][:1].isupper()
    frequent = english().get(words[0].lower(), 0) > 1000  # the list has names too, all of them rare
    ordinary = words[0] in ("A", "An", "The") or (frequent and words[0][1:].islower() and not name)
    return " ".join([words[0].lower() if ordinary else words[0], *words[1:]])


def is_verb(word: str) -> bool:
    """Whether a word looks like a finite verb: "measured", "found", "takes"; plural nouns may pass for one."""
    if word == "have":
        return True
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


LEANS_BACK = re.compile(
    r"\bthen\b|\bboth \w+\b(?! (?:\w+ )?and\b)|\bthe (?:two|same|other)\b(?! \w)|\bthere\b(?! (?:is|are|was|were))"
    r"|\b(?:at|around|of|in|for|from|by|with|to|on|over) that\b"
)
MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
YEAR = r"(?:1[4-9]\d\d|20\d\d)"
_WORDS = "|".join(COUNTS)
_LARGE = "(?:hundred|thousand|million|billion|trillion)"
NUMBER = rf"(?:\d[\d,.]*\d|\d|{_WORDS}|(?:a|one) {_LARGE})(?: {_LARGE})*"
HEDGE = "(?:about|some|only|nearly|roughly|almost|around|up to|over|at least|at most|more than|less than|just)"
# What a sentence begins with that leans on the sentence before it, and words that point out of a sentence anywhere. A
# pronoun further on usually stands for something in its own sentence.
LEANS = re.compile(
    "(But|And|So|Then|There|Thus|Both|Neither|Each|Another|Others?|One|Yet|Still|Or|Nor|Even|If|What|Later|More|Most|"
    "Some|Many|Few|None|All|Figure|Table|Take|Set|Start|Imagine|Think|Let|Suppose|Consider|Spread|Multiply|The (same|"
    "other|others|result|first|second|third|two|three|rest|answer|difference|reason|trouble|problem|number|idea|experiment|"
    "effect|figure|whole|latter|program|method|treatment|group|team|burst|event|comparison|device|machine|excess|"
    "advantage|question|trick|test|particle))\\b"
)
POINTS_OUTSIDE = re.compile(
    r"(?:\S+ ){0,7}?(?:it|they|them|he|she|him|its|his|her|their)\b|.*\b(?:this|these|those|we|us|you|your|our|I|my|"
    r"here|such|former|latter|another|respectively|above|below)\b",
    re.IGNORECASE,
)
LONGEST_ANSWER = 40  # words; a longer "sentence" is mostly a list or a table
TIME_UNIT = r"(?:\w*seconds?|ms|minutes?|hours?|days?|weeks?|months?|years?)"
LASTING = {"take", "last", "need", "require", "spend", "run"}
# "What happens to" is asked where something does, and "What does ... have" or "let" would leave the question open
CHANGES = (
    "removed replaced added merged dropped mixed destroyed absorbed released lost converted divided split spoiled "
    "reduced lowered raised moved bent heated cooled emitted closed opened copied erased stopped doubled frozen melted"
).split()
REPORTING = "argue find show say suggest notice report conclude predict propose discover state claim".split()
LIGHT = ("have", "let", "make", "treat", "put")
PARTICLES = ("on", "to", "from", "for", "with", "of", "into", "out", "up", "off")
NO_OBJECT = (*"by one in at as between along only over through under while because when and less far".split(), "than")


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
    footnote_mark = re.search(r"[a-z][.,]\d|\b\d[A-Z][a-z]|\d{4}\.\d|\bcurve\b|\bschematic\b", sentence)
    pointing = LEANS.match(sentence) or POINTS_OUTSIDE.match(sentence) or LEANS_BACK.search(sentence) or footnote_mark
    return whole and 7 <= len(sentence.split()) <= LONGEST_ANSWER and not pointing


def forms(sentence: str) -> list[Form]:
    """The questions that a sentence answers, those that ask for the most definite things first."""
    adverbs = [*_durations(sentence), *_years(sentence), *_causes(sentence), *_times(sentence)]
    found = [*_numbers(sentence), *_persons(sentence), *_definitions(leading_phrase(sentence)[1])]
    found += [Form(beginning, question_words(rest)) for beginning, rest in adverbs]
    found += [Form(question) for adverb in adverbs for question in whole_questions(*adverb)]
    found += [Form(question) for question in (*_statements(sentence), *_passives(sentence))]
    return [form for form in found if form.words or form.beginning.endswith("?")]


def clause(sentence: str, start: int, end: int) -> tuple[str, str]:
    """What stands before and after a span in its own clause, so that a question does not mix two statements."""
    before = re.split(r"[:;]|, (?:and|but|so|while|whereas|which|where)\b", sentence[:start])[-1]
    ends = r"[,:;]| and (?=\w+(?:ed|s)\b|\d|cost\b)|\b(?:but|while|which|where|so|if|when)\b"
    after = re.split(ends, sentence[end:])[0]
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
        lasts = re.search(rf"{TIME_UNIT}$", noun) and match["verb"] and set(base_forms(match["verb"])) & LASTING
        beginning = "What percentage" if noun.endswith("percent") else "How long" if lasts else f"How many {noun}"
        if match["verb"]:
            # the counted thing stands where the verb's object did
            lead, body = leading_phrase(
                sentence[: match.start("verb")][len(sentence[: match.start("number")]) - len(before) :]
            )
            for x in inversions(f"{body}{match['verb']} {THING} {after}"):
                if not x.rest.startswith(THING):
                    continue
                rest = x.rest.removeprefix(THING)
                question = " ".join(f"{beginning} {x.auxiliary} {x.subject} {x.verb} {rest}".split())
                question = question.rstrip(" .,").removesuffix(" and")
                yield Form(f"{question}{_at_end(lead)}?")
        yield Form(beginning, question_words(before + after), _verb_forms(match["verb"] or ""))
        return


def _verb_forms(verb: str) -> tuple[str, ...]:
    return () if verb in (*BE, "") or base_forms(verb) == ["have"] else (verb, *base_forms(verb))


def _durations(sentence: str):
    match = re.search(rf"(?<!plan )(?<!wait )\bfor (?:{HEDGE} )?{NUMBER} {TIME_UNIT}\b", sentence)
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
    # a year in a later clause, or one of several, may be that of another event than the sentence's
    several = len(re.findall(rf"\b[Ii]n (?:{MONTH} )?{YEAR}\b", sentence)) > 1
    if match and not several and not re.search(r"[,;:]|\b(that|which|who|and)\b", sentence[: match.start()]):
        beginning = "When" if match.group().endswith("s") else "In what year"
        # commas part the subject from what describes it, not one statement from another
        rest = re.split(r"[:;]|,? and (?=[a-z]+ed\b|is\b|was\b|has\b)|, (?:but|so|while)\b", sentence[match.end() :])[0]
        yield beginning, sentence[: match.start()] + rest


def _persons(sentence: str):
    name = r"(?:[A-Z][\w’-]+ )(?:[A-Z][\w.’-]+ )*"
    match = re.match(
        rf"((?:In|On) [^,]*?{YEAR},? )?({name}(?:(?:and|, [A-Z][\w ]+ and) {name})?)((?:had )?[a-z]+)\b", sentence
    )
    if match and len(match[2].split()) > 1 and _is_person(match[2]):
        verb = match[3].split()[-1]
        if is_verb(verb) and verb not in BE:
            rest = clause(sentence, match.end(3), match.end(3))[1]
            yield Form(f"Who {match[3]}", question_words((match[1] or "") + rest))
            if 3 <= len(rest.split()) <= 25:
                yield Form(f"Who {match[3]}{rest.rstrip(' .')}?")
    match = re.search(rf" (?:was|were) ([a-z]+) by {name}", f"{sentence} ")
    if match and is_verb(match[1]):
        yield Form("Who", question_words(" ".join([match[1], *clause(sentence, match.start(1), len(sentence))])))


def _is_person(name: str) -> bool:
    """Whether capitalised words look like a person's name: the last one is no word of English."""
    last = name.split()[-1].lower()
    return not name.startswith(("The ", "A ", "An ")) and last.isalpha() and english().get(last, 0) < 2000


def _causes(sentence: str):
    match = re.search(r",? because\b", sentence)
    if match:
        yield "Why", clause(sentence, match.start(), len(sentence))[0]
    match = re.search(r",? by [a-z]+ing\b", sentence)
    if match and not RELATIVE.search(before := clause(sentence, match.start(), len(sentence))[0]):
        yield "How", before


def _times(sentence: str):
    """ "lowers the thresholds when the battery is weak" answers "When"."""
    match = re.search(r",? (?:when|until|before|after|during|if) ", sentence)
    before = leading_phrase(sentence[: match.start()])[1] if match else ""
    if before and not RELATIVE.search(before) and not re.search(r"[,;:]| and ", before):
        yield "When", sentence[: match.start()]


def _definitions(sentence: str):
    if sentence.split()[0].lower() in FUNCTION_WORDS and not sentence.startswith(("A ", "An ", "The ")):
        return
    what = rf"an?|the(?! (?:usual|common|best|only|trouble)\b)|any|called|defined|(?:{HEDGE} )?\d[\d.,]*"
    match = re.match(rf"((?:An? |The )?[\w’ .-]{{3,60}}?),? (is|are|was|were) ({what})(?!\w)", sentence)
    someone = match and match[2] == "was" and re.fullmatch(r"[A-Z][\w’-]+", match[1])
    if match and len(match[1].split()) <= 7 and not RELATIVE.search(match[1]) and not someone:
        yield Form(f"What {match[2]} {lower_first(match[1].split())}?")
    by = "with|by|from|into|using|through"
    match = re.match(rf"((?:An? |The )?[\w’ .-]{{3,60}}?) (is|are|was|were) (\w+) (?:{by}) ", sentence)
    if match and is_verb(match[3]) and match[3] not in BE and not RELATIVE.search(match[1]):
        yield Form(f"How {match[2]} {lower_first(match[1].split())} {match[3]}?")
    match = re.match(r"(.{3,60}?) (?:has|have) an? ([a-z]+) of (?:about )?\d", sentence)
    if match and not RELATIVE.search(match[1]):
        yield Form(f"What is the {match[2]} of {lower_first(match[1].split())}?")


def _statements(sentence: str):
    """ "In 1873 Abbe published a law" answers "What did Abbe publish in 1873?"; the first likely verbs are tried."""
    lead, body = leading_phrase(sentence)
    date = re.search(rf"\bin (?:{MONTH} )?{YEAR}\b", f"{lead[:1].lower()}{lead[1:]}" or sentence)
    when = f" {date.group()}" if date and "," not in sentence[len(lead) : date.start()] else ""
    for inversion in inversions(body):
        rest = re.sub(rf"^in (?:{MONTH} )?{YEAR} |^(?:in|at) (?:[A-Z]\w+ )+", "", inversion.rest)
        after, following = (rest.split() + ["by", ""])[:2]
        counted = re.match(rf"(?:{HEDGE} )?{NUMBER}(?!\w)", rest)  # then "How many" is the question
        open_ended = inversion.verb in LIGHT or (counted and inversion.verb in (*LASTING, "reach", "draw", "cost"))
        turns_out = after in ("out", "up", "off") and following in (*PARTICLES, *NO_OBJECT)
        turns_out |= after == "to" and following in english() and following not in OBJECTS  # an infinitive
        if inversion.verb and after not in NO_OBJECT and not open_ended and not turns_out:
            particle = f" {after}" if after in PARTICLES else ""
            past = when if inversion.auxiliary == "did" else ""
            what = f"hat {inversion.auxiliary} {inversion.subject} {inversion.verb}{particle}{past}?"
            yield f"{lead.strip(' ,')}, w{what}" if lead and not date else f"W{what}"


def _passives(sentence: str):
    """ "The channels with the lowest rank are removed" answers "What happens to the channels with the lowest rank?"."""
    lead, body = leading_phrase(sentence)
    for inversion in inversions(body):
        participle = inversion.rest.split()[0].strip(",.;") if inversion.rest else ""
        if inversion.auxiliary in BE and participle in CHANGES:
            happens = "happens" if inversion.auxiliary in ("is", "are") else "happened"
            yield f"What {happens} to {inversion.subject}{_at_end(lead)}?"


LEADS = re.compile(
    rf"(?:In|On|By|Since) (?:\d+ )?(?:{MONTH} )?(?:the (?:early |late )?)?{YEAR}s?,? |At {NUMBER} \w+ |In the field "
    r"|(?:In|On|By|At|From|After|Since|Between|For|With|Without|Over|Relative to) [^,]{3,40}, "
    r"|On (?:the )?[A-Z][\w-]+(?: [A-Z]\w+)* (?=the |an? |[A-Z])|In [A-Z][a-z]+ (?=the |an? )"
)


def leading_phrase(sentence: str) -> tuple[str, str]:
    """The phrase of time or place that a sentence begins with, and the rest of it."""
    match = LEADS.match(sentence)
    lead = match.group() if match else ""
    return lead, sentence.removeprefix(lead)


def _at_end(lead: str) -> str:
    """A leading phrase as it stands at the end of a question."""
    return f" {lead[0].lower()}{lead[1:].strip(' ,')}" if lead else ""


def whole_questions(beginning: str, statement: str):
    """Questions that go on with all of a statement, turned round: "Why" and "energy is conserved" give both verbs their
    places. None where the verb is not found."""
    ends = r"[:;]|, (?:and|but|so|while|whereas|which|where|provided)\b| and (?=[a-z]+ed\b)"
    statement = re.split(ends, statement)[0]
    lead, body = leading_phrase(statement.strip(" ,.") + " ")
    for inversion in list(inversions(body))[:1]:
        rest = inversion.rest.split(",")
        whole = " that " in f" {rest[0]}" or 0 < len(rest[0].split()) < 3
        rest = inversion.rest if whole else rest[0]
        parts = [beginning, inversion.auxiliary, inversion.subject, inversion.verb, rest]
        question = " ".join(" ".join(parts).split()).rstrip(" ,.") + _at_end(lead) + "?"
        said_nothing = inversion.verb in REPORTING and not rest.strip()
        if 4 <= len(question.split()) <= 30 and not said_nothing:
            yield question


def question_words(rest: str) -> tuple[str, ...]:
    """The words of a piece of text that a question may use, verbs also in their base form; no possessives."""
    stripped = [word.strip('.,;:!?()"“”[]—–…') for word in rest.split()]
    stripped = [word for word in stripped if word and word.lower() not in ("their", "its", "his", "her", "it")]
    found = []
    for word in stripped:
        found += [word] + (base_forms(word) if word.islower() else [])
    return tuple(dict.fromkeys([*found, *lower_first(stripped).split()[:1]] if stripped else []))
