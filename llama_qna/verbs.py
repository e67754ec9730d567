"""English verbs, as far as turning a statement into a question needs them: which word is one, and its base form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llama_qna.words import english

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
