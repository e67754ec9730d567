"""Raw page texts become clean paragraphs, each with its page and section; every repair is counted."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

HYPHEN = "\ufffe"  # how a hyphen at a line's end is marked until `_join_lines` decides what it was
LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st"}
REFERENCES_HEADING = re.compile(r"(\d+\.?\s+)?(references|bibliography)", re.IGNORECASE)
NUMBERED_HEADING = re.compile(r"\d{1,2}(\.\d{1,2}){0,2}\.?\s+[A-Z][^.!?]{2,80}")
NAMED_HEADING = re.compile(r"(abstract|introduction|conclusions?|acknowledge?ments?)", re.IGNORECASE)
PAGE_NUMBER = re.compile(r"[-–\s]*(\d{1,4}|[ivxl]{1,6})[-–\s]*")
CONTENTS_LINE = re.compile(r"(\.\s*){5,}\d*$")
FORMULA_LETTERS = re.compile("[\U0001d400-\U0001d7ff\u210e\u2112]")
DROPPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufe00-\ufe0f\ue000-\uf8ff]")  # control, selectors, private use


@dataclass(frozen=True)
class Paragraph:
    text: str
    page: int  # counted from 1
    section: str


@dataclass
class Document:
    """A document as the stages after it see it."""

    name: str
    pages: int
    paragraphs: list[Paragraph]
    references: list[tuple[int, str, int]]  # (number, entry, page)
    report: dict = field(default_factory=dict)

    def text(self) -> str:
        """All text once, without overlaps: what perplexity is measured on."""
        entries = [f"[{number}] {entry}" for number, entry, _ in self.references]
        return "\n\n".join([paragraph.text for paragraph in self.paragraphs] + entries)


def clean(name: str, pages: list[str], headings: dict[str, int | None]) -> Document:
    """Turn raw page texts into paragraphs and reference entries.

    Args:
        pages: raw text, one string a page.
        headings: section titles known from the PDF's outline, with their pages; empty: found by their look.
    """
    report = Counter()
    lines = [[_clean_line(line, report) for line in page.splitlines()] for page in pages]
    lines = [[line for line in page if line] for page in lines]
    lines = _drop_page_furniture(lines, headings, report)
    vocabulary = Counter(word.lower() for page in lines for line in page for word in re.findall(r"[\w-]+", line))

    paragraphs: list[Paragraph] = []
    reference_lines: list[tuple[str, int]] = []
    section, block, block_page = "", [], 1

    def flush():
        if block:
            text = _join_lines(block, vocabulary, report)
            paragraphs.append(Paragraph(text, block_page, section))
            block.clear()

    for number, page in enumerate(lines, start=1):
        width = sorted(map(len, page))[int(len(page) * 0.8)] if page else 0
        for line in page:
            if _is_heading(line, headings):
                flush()
                section = line
            elif REFERENCES_HEADING.fullmatch(section):
                reference_lines.append((line, number))
            else:
                if not block:
                    block_page = number
                block.append(line)
                if re.search(r"[.!?:][\"')\]]*$", line) and len(line) < 0.85 * width:
                    flush()
    flush()
    references = _parse_references(reference_lines, vocabulary, report)
    characters = sum(map(len, pages))
    return Document(
        name=name,
        pages=len(pages),
        paragraphs=paragraphs,
        references=references,
        report={
            "pages": len(pages),
            "characters": characters,
            "characters_per_page": round(characters / len(pages)),
            "pages_without_text": [n for n, page in enumerate(pages, start=1) if not page.strip()],
            "sections": len({paragraph.section for paragraph in paragraphs}),
            "reference_entries": len(references),
            "repairs": dict(sorted(report.items())),
        },
    )


def _clean_line(line: str, report: Counter) -> str:
    for ligature, letters in LIGATURES.items():
        if ligature in line:
            report["ligatures"] += line.count(ligature)
            line = line.replace(ligature, letters)
    if FORMULA_LETTERS.search(line):
        # italic formula letters are code points of their own; a model knows the plain ones
        import unicodedata

        line, count = FORMULA_LETTERS.subn(lambda m: unicodedata.normalize("NFKC", m.group()), line)
        report["formula letters"] += count
    kept = "".join(c for c in line if c == HYPHEN or not DROPPED.match(c))
    report["control and private-use characters dropped"] += len(line) - len(kept)
    return " ".join(kept.replace("\u00ad", "").split())


def _drop_page_furniture(pages: list[list[str]], headings: dict, report: Counter) -> list[list[str]]:
    """Drop running headers, footers, page numbers and the dotted lines of a table of contents.

    Digits aside, a line is furniture if it stands on most pages, or stands at a page's edge and on another page too. So
    is a bare number at an edge. The place where a heading itself stands is spared.
    """

    def masked(line):
        return re.sub(r"\d+", "#", line)

    on_pages = Counter(form for page in pages for form in {masked(line) for line in page})
    most = max(3, len(pages) // 2)
    kept = []
    for index, page in enumerate(pages):
        # lines without letters repeat in tables: only one at an edge, the page number, is taken for furniture
        repeats = [line for line in page if on_pages[masked(line)] > 1 and re.search(r"[^\W\d]", line)]
        repeats = {line for line in repeats if headings.get(heading_key(line), -1) != index}
        lines = [
            line
            for line in page
            if line not in repeats or on_pages[masked(line)] < most or heading_key(line) in headings
        ]
        for edge in (0, -1):
            numbers = 0
            while lines and (lines[edge] in repeats or (not numbers and PAGE_NUMBER.fullmatch(lines[edge]))):
                numbers += lines[edge] not in repeats
                del lines[edge]
        report["running headers, footers, page numbers"] += len(page) - len(lines)
        body = [line for line in lines if not CONTENTS_LINE.search(line)]
        report["contents lines"] += len(lines) - len(body)
        kept.append(body)
    return kept


def heading_key(title: str) -> str:
    """A heading without its number and with plain quotes: outline and page differ in both."""
    return re.sub(r"^[\d.]+\s+", "", " ".join(title.replace("’", "'").split()))


def _is_heading(line: str, headings: dict) -> bool:
    if headings:
        return heading_key(line) in headings or bool(NAMED_HEADING.fullmatch(line))
    return any(p.fullmatch(line) for p in (NUMBERED_HEADING, NAMED_HEADING, REFERENCES_HEADING))


def _join_lines(lines: list[str], vocabulary: Counter, report: Counter) -> str:
    """Join lines to running text, and the halves of a word that was broken at a line's end."""

    def join(match):
        head, tail = match.groups()
        whole, hyphenated = (head + tail).lower(), f"{head}-{tail}".lower()
        is_word = vocabulary[whole] >= vocabulary[hyphenated] and head.isalpha() and tail[:1].islower()
        report["line-end hyphens joined" if is_word else "line-end hyphens kept"] += 1
        return head + tail if is_word else f"{head}-{tail}"

    # pdfium marks a broken word and drops the line break; pdfminer keeps both
    text = re.sub(rf"([\w-]+)(?:{HYPHEN}\s*|-\n)([\w-]+)", join, "\n".join(lines))
    return text.replace(HYPHEN, "-").replace("\n", " ")


def _parse_references(lines: list[tuple[str, int]], vocabulary: Counter, report: Counter) -> list[tuple[int, str, int]]:
    """Entries that begin with `[n]`, in order; a line that begins otherwise goes on with the entry before it."""
    entries: list[tuple[int, list[str], int]] = []
    for line, page in lines:
        start = re.match(r"\[(\d{1,3})\]\s*", line)
        if start and int(start.group(1)) == len(entries) + 1:
            entries.append((int(start.group(1)), [line[start.end() :]], page))
        elif entries:
            entries[-1][1].append(line)
    return [(number, _join_lines(parts, vocabulary, report), page) for number, parts, page in entries]
