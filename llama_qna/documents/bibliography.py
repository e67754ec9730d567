"""The list of references of a document becomes entries, whether they are numbered or not."""

from __future__ import annotations

import re
from collections import Counter

from llama_qna.documents.hyphens import PlacedLine, Vocabulary, join_lines
from llama_qna.text.titles import INITIALS, SURNAME

NAMES = (  # what a list of references is called
    "references|bibliography|works cited|literature cited"
    "|literatur(verzeichnis|angaben)?|quellenverzeichnis|(literatur- und quellen|quellen- und literatur)verzeichnis"
    "|références( bibliographiques)?|bibliographie|ouvrages cités"
    "|referencias( bibliográficas)?|bibliografía|obras citadas|referências( bibliográficas)?|bibliografia"
    "|riferimenti( bibliografici)?|opere citate|literatuur(lijst|opgave)?|referenties|bibliografie"
    "|referenser|referencer|referanser|litteratur(förteckning|liste)?|lähteet|kirjallisuus|literatura|irodalom(jegyzék)?"
    "|kaynakça|kaynaklar|(список )?литератур[аы]|список использованн(ых источников|ой литературы)|библиография"
    "|(список )?літератур[аи]|βιβλιογραφία|αναφορές|(قائمة )?المراجع"
    "|参考文献|參考文獻|引用文献|引用文獻|参考资料|參考資料|참고 ?문헌"
)
AFTERWARDS = (  # what may follow it
    "appendix|appendices|supplement(ary|al)?|index|glossary|about the authors?|acknowledge?ments?"
    "|anhang|anhänge|glossar|danksagung|stichwortverzeichnis|annexes?|remerciements|glossaire"
    "|anexos?|apéndices?|apêndices?|agradecimientos|agradecimentos|glosario|appendici|appendice|ringraziamenti"
    "|bijlagen?|dankwoord|приложени[ея]|благодарности|додат(ок|ки)|παράρτημα|附录|附錄|付録|致谢|致謝|謝辞|부록"
)
HEADING = re.compile(rf"((\d+|[ivx]+(?=[.)])|[一二三四五六七八九十]+)[.)、]?\s*)?({NAMES}):?", re.IGNORECASE)
LIST_END = re.compile(
    rf"(?i:(\d+\.?\s+)?({AFTERWARDS}))"
    r"(\s+[A-Z](?=[\s.:]|$))?(\s+(?i:materials?|information))?([.:]?\s+[^\W\d_a-z][^.,;]{2,60})?"
)
LETTERED = re.compile(r"A\.?\s+[A-Z][a-z]+(\s\w[^.,;]{2,60})?")  # an appendix that is called by its letter alone
MOST_MISSING = 2  # numbers in a row, such as those of entries that a page has as pictures
NUMBERED = (r"[\[［〔](\d{1,3})[\]］〕]\s*", r"\((\d{1,3})\)\s+", r"(\d{1,3})[.)]\s+")
AUTHOR = re.compile(rf"{SURNAME},\s+(?:{INITIALS}|[^\W\d_a-z]\w+)|{INITIALS}\s+{SURNAME}[,. ]")
ENTRY_END = re.compile(r"[.。\]](?:[”\")])?$|https?://\S+$")
ABBREVIATION_END = re.compile(r"\b(?:[^\W\d_a-z]|(?i:al|eds?|vol|no|pp|proc|conf|int|trans|univ|st|jr))\.$")


def is_list_end(line: str, before: str) -> bool:
    """Whether a line is the title of what follows the references, such as an appendix.

    "A Title" is one, but not where the line before it has no more of an entry than its authors and "(2001)."
    """
    if not before.endswith((".", "]", "。")) or len(line) > 80:
        return False
    ended = re.search(r"\d", re.sub(rf"^(?:{'|'.join(NUMBERED)})|\(\d{{4}}[a-z]?\)\.$", "", before))
    return bool(LIST_END.fullmatch(line) or (ended and LETTERED.fullmatch(line)))


def style_of(line: str) -> str | None:
    """How a line opens an entry: one of `NUMBERED`, or "author"; None where it opens none."""
    numbered = next((style for style in NUMBERED if re.match(style, line)), None)
    return numbered or ("author" if AUTHOR.match(line) else None)


def has_ended(line: str) -> bool:
    """Whether an entry may end with a line."""
    return bool(ENTRY_END.search(line) and not ABBREVIATION_END.search(line))


def parse(
    lines: list[PlacedLine], vocabulary: Vocabulary, repairs: Counter
) -> tuple[list[PlacedLine], list[tuple[int, str, int]]]:
    """Part the lines of a reference list into its entries.

    An entry begins at the next number in the style of the first one: `[1]`, `(1)` or `1.`. Where there are no numbers
    it begins at a line that opens with an author after a line that ends with a full stop, and is numbered in order.
    A number or two may be missing where the entry before has ended.

    Returns:
        The lines before the first entry, and (number, entry without its number, page) for every entry.
    """
    style = next((style for style in NUMBERED if any(_number(style, line) == 1 for line, _ in lines[:5])), None)
    lead: list[PlacedLine] = []
    entries: list[list[PlacedLine]] = []
    numbers = [0]
    for line, page in lines:
        before = entries[-1][-1][0] if entries else "."
        ended = has_ended(before)
        number = numbers[-1] + 1
        if style:
            found = _number(style, line) or 0
            begins = found == number or bool(entries and ended and number < found <= number + MOST_MISSING)
            line, number = (re.sub(style, "", line, count=1), found) if begins else (line, number)
        else:
            begins = bool(ended and AUTHOR.match(line))
        if begins:
            entries.append([(line, page)])
            numbers.append(number)
        else:
            (entries[-1] if entries else lead).append((line, page))
    joined = [join_lines(entry, vocabulary, repairs)[0].strip() for entry in entries]
    return lead, [(n, text, entry[0][1]) for n, text, entry in zip(numbers[1:], joined, entries, strict=True)]


def _number(style: str, line: str) -> int | None:
    start = re.match(style, line)
    return int(start[1]) if start else None
