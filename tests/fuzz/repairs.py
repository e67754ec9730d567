"""Text of hostile pages from a few bytes, and what must hold of the repairs whatever the text is.

The hypothesis tests and the atheris harness share both: a page is spelt in pieces that the repairs look for, so that
few bytes reach far into them, with any character of Unicode between the pieces.
"""

from __future__ import annotations

from collections import Counter

from llama_qna.documents.clean import ANY_DROPPED, HYPHEN, LIGATURE, clean, clean_line
from llama_qna.documents.columns import parts
from llama_qna.documents.hyphens import PAGE_BREAK, Vocabulary, close_up_capitals, join_lines
from llama_qna.documents.runs import Face, Page, Run
from tests.fixtures_pdfs import typed

PIECES = [
    "\n", "\n", "\n\n", " ", " ", "\r\n", "\t", "\x0c", "\x0c", HYPHEN, f"{HYPHEN}\n", "-\n", "\u2013\n", "\xad\n",
    "\xa0", "-", ".", ",", "?", ":", "1", "12", "iv", "xlii", "Page 3 of 9", "- 7 -", "1.2 Methods", "2 Results",
    "3.1.4 More", "Introduction", "Abstract", "References", "Bibliography", "Appendix A. Tables", "[1] ", "[2] ",
    "(1) ", "1. ", "2. ", "Knuth, D. E. ", "D. E. Knuth, ", "https://a.example/b", "Contents", ". . . . . . 12",
    "..........iv", "C H A P T E R", "O N E  T W O", "A B C D", "ﬁ", "ﬄ", "𝑥", "ℎ", "\x00", "\x07", "\u200b",
    "\ue000", "�", "\ud800", "\u202e", "😀", "the", "method", "well-known", "micro", "controller", "neural", "network",
    "A sentence of five words. ", "Figure 3: x",
]  # fmt: skip


def page_of(data: bytes) -> str:
    """The text that bytes spell: a piece for each below 128, else a character from this byte and the next two."""
    parts, place = [], 0
    while place < len(data):
        byte = data[place]
        if byte < 128:
            parts.append(PIECES[byte % len(PIECES)])
            place += 1
        else:
            parts.append(chr(int.from_bytes(data[place : place + 3], "big") % 0x110000))
            place += 3
    return "".join(parts)


def runs_of(data: bytes) -> list[Run]:
    """The runs of a page: four bytes are a row of two columns, of a line over both, or of one piece anywhere."""
    runs, top = [], 820.0
    for shape, down, start, length in zip(*(data[n::4] for n in range(4)), strict=False):
        top -= down % 24
        row = {
            0: [(50, 250 + length % 60), (310 + start % 8, 340 + start)],
            1: [(50, 250 + length % 40), (310, 540)],
            2: [(50 + start % 4, 540)],
            3: [(2.5 * start, 2.5 * start + length)],
        }[shape % 4]
        for left, right in row:
            text = ("word " if start % 3 else "Word ") * (1 + (length if shape & 16 else 60) % 13) + "-" * (down & 1)
            face = Face("made", bool(shape & 32), bool(shape & 64))
            runs.append(Run(text.strip(), left, right, top, 8 + shape % 5, face, low=top, order=len(runs)))
    return runs


def check_repairs(pages: list[str], headings: dict[str, int | None]) -> None:
    """Clean a document; nothing that must go is left, and every paragraph knows its pages."""
    document = clean("fuzzed", typed(*pages), headings)
    assert document.pages == len(pages)
    for paragraph in document.paragraphs:
        _check_text(paragraph.text)
        offsets = [offset for offset, _ in paragraph.pages]
        numbers = [page for _, page in paragraph.pages]
        assert offsets[0] == 0 and offsets == sorted(offsets) and offsets[-1] <= len(paragraph.text)
        assert numbers == sorted(set(numbers)) and numbers[0] == paragraph.page
        assert 1 <= numbers[0] and numbers[-1] <= len(pages)
    for number, entry, page in document.references:  # several lists may each begin at 1
        _check_text(entry)
        assert number >= 1 and 1 <= page <= len(pages)
    assert all(count >= 0 for count in document.report["repairs"].values())


def check_words(text: str) -> None:
    """Closing up capitals changes spaces alone, and joining lines loses no letter."""
    vocabulary, report = Vocabulary([text]), Counter()
    for line in text.splitlines():
        assert "".join(close_up_capitals(line, vocabulary, report).split()) == "".join(line.split())
    lines = [
        (line, 1 + n // 3) for n, line in enumerate(map(lambda x: clean_line(x, Counter()), text.splitlines())) if line
    ]
    if lines:
        joined, places = join_lines(lines, vocabulary, report)
        assert _letters(joined) == _letters("".join(line for line, _ in lines))
        assert [page for _, page in places] == sorted({page for _, page in lines})


def check_layout(runs: list[Run]) -> None:
    """Putting runs in order neither loses one nor takes one twice."""
    ordered = [run for part in parts(runs) for run in part.runs]
    assert sorted(map(id, ordered)) == sorted(map(id, runs))
    clean("fuzzed", [Page(595, 842, runs)], {})


def _check_text(text: str) -> None:
    assert not any(mark in text for mark in (HYPHEN, PAGE_BREAK, "\n", "\r"))
    assert not ANY_DROPPED.search(text) and not LIGATURE.search(text)
    text.encode()  # half a character could be written to no file


def _letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())
