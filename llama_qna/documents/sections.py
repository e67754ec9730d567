"""Which lines of a document are titles of its sections: the PDF's outline says so, or else their look and number."""

from __future__ import annotations

import re

from llama_qna.documents import bibliography

NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,2})\.?\s+([A-Z][^.!?]{2,80}\??)")
NAMED = re.compile(r"abstract|introduction|conclusions?|acknowledge?ments?", re.IGNORECASE)
MOST_WORDS = 12


def heading_key(title: str) -> str:
    """A heading without its number and with plain quotes: outline and page differ in both."""
    return re.sub(r"^[\d.]+\s+", "", " ".join(title.replace("’", "'").split()))


def numbered_heading(line: str) -> tuple[int, ...]:
    """The number of a line that looks like a numbered heading, as (chapter, section, ...); else empty."""
    match = NUMBERED.fullmatch(line)
    return tuple(map(int, match[1].split("."))) if match and len(line.split()) <= MOST_WORDS else ()


class Headings:
    """Tells the headings of one document; asked line by line, it remembers the number that it has come to.

    Args:
        outline: titles from the PDF's outline by `heading_key`; empty if there is none.
    """

    def __init__(self, outline: dict[str, int | None]):
        self.outline = outline
        self.number: tuple[int, ...] = ()
        self.outline_has_references = any(bibliography.HEADING.fullmatch(title) for title in outline)

    def is_heading(self, line: str, after: str, in_references: bool) -> bool:
        """Whether a line is a heading.

        Args:
            after: the next line of the page. If it goes on in lower case, a numbered line belongs to its sentence.
            in_references: inside a reference list, where a numbered line is an entry.
        """
        if bibliography.HEADING.fullmatch(line) and not self.outline_has_references:
            return True
        if self.outline:
            return heading_key(line) in self.outline or bool(NAMED.fullmatch(line))
        if NAMED.fullmatch(line):
            return True
        number = numbered_heading(line)
        if in_references or not number or after[:1].islower() or not follows(number, self.number):
            return False
        self.number = number
        return True


def follows(number: tuple[int, ...], last: tuple[int, ...]) -> bool:
    """Whether a heading's number can come after the last one: 4.2 after 4.1, 4.1.3 or 4.

    The number after the next passes too, since a heading may have been missed; so does any sub-number 1 at first.
    """
    level = len(number) - 1
    if number[-1] == 1 and level and (not last or number[:-1] == last or follows(number[:-1], last)):
        return True
    if len(last) <= level:
        return number == (1,)
    return number[:level] == last[:level] and 1 <= number[level] - last[level] <= 2
