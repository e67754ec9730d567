"""How well a document could be read, and the lines that say so at the end of the stage."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from llama_qna.documents.clean import ANY_DROPPED, HYPHEN

NO_LETTER = re.compile(rf"{ANY_DROPPED.pattern}|{HYPHEN}|\(cid:\d+\)")  # pdfminer's way to say so is the last one
NEARLY_EMPTY = 200  # characters of a document
NEARLY_EMPTY_PAGES = 50  # characters a page, on average
MUCH_DROPPED = 0.01  # of the characters
NOTHING_HELD_OUT = {
    "one section": "no second section was found to train on",
    "all of it known": "training text says the same elsewhere",
}
MOST_LINES = 40  # that say the same; more files stand together in one


def needs_ocr(page: str) -> bool:
    """Whether the raw text of a PDF page has no letters, or mostly characters whose font does not say what they are."""
    unknown = len(NO_LETTER.findall(page))
    return sum(map(str.isalnum, NO_LETTER.sub("", page))) <= unknown if unknown else not page.strip()


def shortfalls(reports: dict) -> list[str]:
    """What the stage could not read or not hold out, a line a file, from the content of `documents.json`.

    Many files of which the same is to be said are named in one line.
    """
    lines = _lines("left out: ", reports["left_out"].items())
    documents = reports["documents"].values()
    lines += _lines("", ((report["file"], said) for report in documents for said in _of_document(report)))
    for reason, said in NOTHING_HELD_OUT.items():
        files = [report["file"] for report in documents if report.get("nothing_held_out") == reason]
        lines += [f"nothing is held out of {', '.join(files)}: {said}"] if files else []
    return lines


def _lines(opening: str, found: Iterable[tuple[str, str]]) -> list[str]:
    by_reason = defaultdict(list)
    for file, said in found:
        by_reason[said].append(file)
    lines = []
    for said, files in by_reason.items():
        if len(files) > MOST_LINES:
            lines.append(f"{opening}{len(files)} files: {said}: {', '.join(files)}")
        else:
            lines += [f"{opening}{file}: {said}" for file in files]
    return lines


def not_read(report: dict) -> list[str]:
    """What of a document could not be read, from its report: pages, and a share of its characters."""
    said = []
    pages = ", ".join(map(str, report["needs_ocr"]))
    if pages:
        said.append(f"pages {pages} need OCR" if "," in pages else f"page {pages} needs OCR")
    dropped = report["repairs"].get("control and private-use characters dropped", 0)
    if dropped > MUCH_DROPPED * report["characters"]:
        kinds = [name.removeprefix("dropped: ") for name in report["repairs"] if name.startswith("dropped: ")]
        said.append(f"{dropped / report['characters']:.1%} of the characters were dropped ({', '.join(kinds)})")
    return said


def _of_document(report: dict) -> list[str]:
    said = not_read(report)
    characters, count = report["characters"], report["pages"]
    if characters < max(NEARLY_EMPTY, NEARLY_EMPTY_PAGES * count):
        said.append(f"nearly empty: {characters} characters on {count} page{'s' * (count != 1)}")
    if report.get("heldout_dropped"):
        said.append(f"{report['heldout_dropped']} held-out paragraphs went, since training text says nearly the same")
    return said
