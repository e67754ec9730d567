"""The runs of a PDF's pages by pdfminer.six, the study's reader, which is far slower than PDFium."""

from __future__ import annotations

import logging
from itertools import groupby
from pathlib import Path

from llama_qna.documents.runs import BOLD, ITALIC, Face, Page, Run


def read_pdfminer(path: Path) -> tuple[list[Page], dict[str, int | None]]:
    """The pages of a PDF; its outline is not read."""
    from pdfminer.high_level import extract_pages
    from pdfminer.layout import LTChar, LTTextLine

    logging.getLogger("pdfminer").setLevel(logging.ERROR)  # it warns of every oddity of a damaged file

    def lines(container):
        for item in container:
            if isinstance(item, LTTextLine):
                yield item
            elif hasattr(item, "__iter__"):
                yield from lines(item)

    def runs(line):
        """The letters of a line that have one font, its spaces with them."""
        last = None
        letters = []
        for item in line:
            if isinstance(item, LTChar):
                last = (item.fontname, round(item.size, 1), round(item.y0, 1))
            if last:
                letters.append((last, item))
        for (name, size, _), group in groupby(letters, key=lambda letter: letter[0]):
            items = [item for _, item in group]
            drawn = [item for item in items if isinstance(item, LTChar)]
            text = "".join(item.get_text() for item in items)
            if text.strip():
                base = drawn[0].matrix[5]
                face = Face(name.split("+")[-1], bool(BOLD.search(name)), bool(ITALIC.search(name)))
                turn = 0 if drawn[0].upright else 1
                yield Run(text.rstrip("\n"), drawn[0].x0, drawn[-1].x1, base, size, face, base, turn)

    return [
        Page(page.width, page.height, [run for line in lines(page) for run in runs(line)])
        for page in extract_pages(str(path))
    ], {}
