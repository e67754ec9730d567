"""A PDF becomes clean paragraphs, each with its page and section.

Two extractors: pypdfium2 (quick) and pdfminer.six (the study's). What they return goes through the same repairs, and
every repair is counted in the document's report.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from llama_qna import UserError

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


def read_folder(folder: Path, extractor: str) -> list[Document]:
    """Read every PDF of a corpus, in the order of their names.

    Raises:
        UserError: no folder, no PDF in it, or a PDF that cannot be read (named, with its reason).
    """
    paths = sorted(folder.glob("*.pdf")) if folder.is_dir() else []
    if not paths:
        shown = "/".join(folder.parts[-3:])
        raise UserError(f"no PDF in {shown}/: put the documents there and run again")
    return [read_pdf(path, extractor) for path in paths]


def read_pdf(path: Path, extractor: str = "pypdfium2") -> Document:
    """Read and clean one PDF.

    Raises:
        UserError: the file is no PDF, is damaged, encrypted, empty, or holds no text (scanned pages).
    """
    if not path.is_file():
        raise UserError(f"{path.name}: no such file")
    with open(path, "rb") as file:
        head = file.read(1024)
    if not head:
        raise UserError(f"{path.name}: the file is empty")
    if b"%PDF-" not in head:  # readers accept the mark anywhere in the first kilobyte
        raise UserError(f"{path.name}: not a PDF file")
    try:
        pages, headings = (_extract_pdfium if extractor == "pypdfium2" else _extract_pdfminer)(path)
    except Exception as error:  # a damaged file makes the extractors raise whatever they please
        raise _unreadable(path, error) from None
    if not pages:
        raise UserError(f"{path.name}: the PDF has no pages")
    if not any(page.strip() for page in pages):
        raise UserError(f"{path.name}: no text on any of its {len(pages)} pages; a scanned document needs OCR first")
    document = clean(path.stem, pages, headings)
    if not document.paragraphs and not document.references:
        raise UserError(f"{path.name}: nothing but page numbers and running headers on its {len(pages)} pages")
    return document


def _extract_pdfium(path: Path) -> tuple[list[str], dict[str, int | None]]:
    """Text per page, and the titles of the PDF's outline with the page (from 0) that each points to."""
    import pypdfium2

    with pypdfium2.PdfDocument(path) as pdf:
        headings = {}
        for bookmark in pdf.get_toc():
            target = bookmark.get_dest()
            headings.setdefault(_heading_key(bookmark.get_title()), target.get_index() if target else None)
        pages = [page.get_textpage().get_text_bounded().replace("\x02", HYPHEN) for page in pdf]
    # a word broken at the end of a page is joined to what comes next, the page number: part them again
    pages = [re.sub(rf"{HYPHEN}(\d+\s*)$", rf"{HYPHEN}\n\1", page) for page in pages]
    return pages, headings


def _extract_pdfminer(path: Path) -> tuple[list[str], dict[str, int | None]]:
    import logging

    from pdfminer.high_level import extract_text

    logging.getLogger("pdfminer").setLevel(logging.ERROR)  # it warns of every oddity of a damaged file
    pages = extract_text(path).split("\f")[:-1]
    return [re.sub(r"-[ ]*\n", HYPHEN + "\n", page) for page in pages], {}


def _unreadable(path: Path, error: Exception) -> UserError:
    kind = f"{type(error).__name__} {error}".lower()
    if "password" in kind or "encrypt" in kind:
        return UserError(f"{path.name}: the PDF is encrypted; save a copy without a password")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path.name}: the PDF is damaged and cannot be read ({reason})")


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
        repeats = {line for line in repeats if headings.get(_heading_key(line), -1) != index}
        lines = [
            line
            for line in page
            if line not in repeats or on_pages[masked(line)] < most or _heading_key(line) in headings
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


def _heading_key(title: str) -> str:
    """A heading without its number and with plain quotes: outline and page differ in both."""
    return re.sub(r"^[\d.]+\s+", "", " ".join(title.replace("’", "'").split()))


def _is_heading(line: str, headings: dict) -> bool:
    if headings:
        return _heading_key(line) in headings or bool(NAMED_HEADING.fullmatch(line))
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
