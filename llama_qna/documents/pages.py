"""Where a quoted sentence stands on the pages of its PDF, and a picture of such a page with the sentence marked."""

from __future__ import annotations

import re
import threading
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from llama_qna import UserError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

SHORTEST_PIECE = 8  # letters and digits; fewer in a row are on most pages
MEAN_PIECE = 20  # a sentence in smaller pieces than that is one put together from all over the page
LEAST_SHARE = 0.7  # of a sentence's letters and digits must be found
NEEDS_BORDERS = 20  # a sentence shorter than that could be the inside of a word
CANDIDATES = 3  # so many pages are searched for pieces
SIDE = 4000  # pixels; a picture's longest side, whatever size a page says that it has
MARK = (255, 214, 0, 96)  # red, green, blue, opacity
LOCK = threading.Lock()  # PDFium is not thread-safe
FIRST_WITHOUT_GAPS = "\u0e00"  # from Thai on, most scripts set no spaces between words
PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")
Box = tuple[float, float, float, float]  # left, bottom, right, top in points, y upwards


class Place(NamedTuple):
    """What stands of a sentence on one page."""

    page: int  # from 1
    rectangles: list[Box]  # about one a line


class _Page:
    """The letters and digits of a page in PDFium's order; where they stand is asked of the pages that matter."""

    def __init__(self, pdf: pypdfium2.PdfDocument, number: int, known: dict[int, str]):
        self.pdf, self.number = pdf, number
        if number not in known:
            known[number] = _letters(self.textpage.get_text_range())
        self.letters = known[number]

    @property
    def textpage(self) -> pypdfium2.PdfTextPage:
        return self.pdf[self.number].get_textpage()  # not kept: those of a book take gigabytes

    @cached_property
    def raw(self) -> list[str]:
        """Its characters by PDFium's index; a pair of surrogates becomes one character and a NUL."""
        textpage = self.textpage
        codes = (pdfium.FPDFText_GetUnicode(textpage, n) for n in range(textpage.count_chars()))
        text = "".join(map(chr, codes))
        text = PAIR.sub(lambda match: match.group().encode("utf-16", "surrogatepass").decode("utf-16") + "\0", text)
        return list(text)

    @cached_property
    def indices(self) -> list[int]:
        """PDFium's index of each of the letters."""
        return [n for n, character in enumerate(self.raw) for _ in _letters(character)]

    def rectangles(self, spans: list[tuple[int, int]]) -> list[Box]:
        """Around what stands at (start, end) in the letters, with the full stop."""
        textpage, boxes = self.textpage, []
        for start, end in spans:
            first, last = self.indices[start], self.indices[end - 1]
            while last + 1 < len(self.raw) and not (self.raw[last + 1].isalnum() or self.raw[last + 1].isspace()):
                last += 1
            boxes += [textpage.get_rect(n) for n in range(textpage.count_rects(first, last - first + 1))]
        return boxes

    def is_word(self, start: int, end: int) -> bool:
        """Whether what stands there in the letters is no part of a longer word; Chinese has no gaps between words."""
        if self.letters[start] >= FIRST_WITHOUT_GAPS:
            return True
        first, last = self.indices[start], self.indices[end - 1]
        beside = self.raw[max(0, first - 1) : first] + self.raw[last + 1 : last + 2]
        return not any(character.isalnum() for character in beside)


def find(pdf_path: Path, sentence: str, page: int | None = None) -> list[Place]:
    """Find a quoted sentence on the pages of its PDF.

    >>> find(Path("paper.pdf"), "Traffic is the fraction of inputs that reach a stage.", page=3)

    Letters and digits are compared, so that line ends, hyphens, ligatures, accents and case do not matter. A sentence
    that is nowhere in one piece, since a column, a page or a footnote ends inside it or a letter differs, is found by
    its pieces.

    Args:
        page: where to look first, from 1: there and overleaf; the whole document is searched if that is in vain.

    Returns:
        All places where the sentence stands, in the order of pages; one that goes on overleaf has a place on each page.
        None at all of a sentence that is not there, and in a file that is no PDF: an empty list.

    Raises:
        UserError: the PDF cannot be read.
    """
    wanted = [letters for word in sentence.split() if (letters := _letters(word))]
    if not wanted or pdf_path.suffix.lower() != ".pdf":
        return []
    with _opened(pdf_path) as pdf:
        everywhere = range(len(pdf))
        known = _known_letters(pdf_path, pdf_path.stat().st_mtime_ns)
        near = [n for n in (page - 1, page) if n in everywhere] if page is not None else []
        for numbers in filter(None, (near, everywhere)):
            pages = {n: _Page(pdf, n, known) for n in numbers}
            if found := _whole("".join(wanted), pages) or _in_pieces(wanted, pages):
                return [Place(n + 1, pages[n].rectangles(found[n])) for n in sorted(found)]
    return []


def picture(pdf_path: Path, page: int, rectangles: list[Box], scale: float = 2.0) -> Image:
    """Render one page with rectangles marked.

    Args:
        page: from 1.
        rectangles: of `find`.
        scale: pixels a point; less for a page of a monstrous size.

    Raises:
        UserError: the PDF cannot be read, or has no such page.
    """
    from PIL import Image, ImageDraw

    with _opened(pdf_path) as pdf:
        if not 1 <= page <= len(pdf):
            raise UserError(f"{pdf_path.name} has no page {page}; it has {len(pdf)}")
        leaf = pdf[page - 1]
        bitmap = leaf.render(scale=min(scale, SIDE / max(leaf.get_size())))
        position = bitmap.get_posconv(leaf)  # knows the page's rotation and what is cropped of it
        corners = [(position.to_bitmap(*box[:2]), position.to_bitmap(*box[2:])) for box in rectangles]
        image = bitmap.to_pil().convert("RGBA")
    marks = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(marks)
    for one, other in corners:
        (left, right), (top, bottom) = map(sorted, zip(one, other, strict=True))
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=MARK)
    return Image.alpha_composite(image, marks).convert("RGB")


@contextmanager
def _opened(path: Path) -> Iterator[pypdfium2.PdfDocument]:
    with LOCK:
        try:
            pdf = pypdfium2.PdfDocument(path)
        except (pypdfium2.PdfiumError, OSError) as error:
            raise UserError(f"{path.name}: the PDF cannot be read ({first_line(error)})") from None
        with pdf:
            yield pdf


@lru_cache(maxsize=16)
def _known_letters(path: Path, changed: int) -> dict[int, str]:
    """What was read of a file's pages; `find` fills it, so that the next sentence is found at once."""
    return {}


def _letters(text: str) -> str:
    """Letters and digits without case, ligatures, accents and gaps (NFKD parts what is joined)."""
    return NEITHER_LETTER_NOR_DIGIT.sub("", unicodedata.normalize("NFKD", text).casefold())


def _whole(sentence: str, pages: dict[int, _Page]) -> dict[int, list[tuple[int, int]]]:
    """By page the (start, end) in its letters where the sentence stands in one piece."""
    found = {}
    for number, page in pages.items():
        spans = [match.span() for match in re.finditer(re.escape(sentence), page.letters)]
        if len(sentence) < NEEDS_BORDERS:
            spans = [span for span in spans if page.is_word(*span)]
        if spans:
            found[number] = spans
    return found


def _in_pieces(words: list[str], pages: dict[int, _Page]) -> dict[int, list[tuple[int, int]]]:
    """By page the (start, end) of the pieces of a sentence that stands on a page, or on one and the next."""
    sentence = "".join(words)
    samples = [sentence[n : n + SHORTEST_PIECE] for n in range(0, len(sentence) - SHORTEST_PIECE + 1, 4)]
    counts = {n: sum(sample in page.letters for sample in samples) for n, page in pages.items()}
    likeliest = sorted(counts, key=lambda n: counts[n] + counts.get(n + 1, 0), reverse=True)[:CANDIDATES]
    best, most = {}, 0.0
    for number in likeliest:
        first, second = pages[number].letters, pages[number + 1].letters if number + 1 in pages else ""
        pieces = _pieces(words, first + "\n" + second)
        share = sum(end - start for start, end in pieces) / len(sentence)
        if share > most and share >= LEAST_SHARE and len(pieces) <= 1 + len(sentence) / MEAN_PIECE:
            border, most = len(first), share
            on_second = [(start - border - 1, end - border - 1) for start, end in pieces if start > border]
            on_first = [(start, end) for start, end in pieces if start < border]
            best = {n: places for n, places in ((number, on_first), (number + 1, on_second)) if places}
    return best


def _pieces(words: list[str], text: str) -> list[tuple[int, int]]:
    """Where runs of a sentence's words stand in a text: the longest first, the others near the one beside them."""
    runs, between, at = [], [""], 0  # between[n] stands in the sentence before runs[n]
    while at < len(words):
        beginnings = list(accumulate(words[at:]))
        count = bisect_left(beginnings, True, key=lambda beginning: beginning not in text)
        if count and len(beginnings[count - 1]) >= SHORTEST_PIECE:
            runs.append(beginnings[count - 1])
            between.append("")
            at += count
        else:
            between[-1] += words[at]
            at += 1
    if not runs:
        return []
    middle = max(range(len(runs)), key=lambda n: len(runs[n]))
    places = {middle: text.find(runs[middle])}
    for n in range(middle + 1, len(runs)):
        after = text.find(runs[n], places[n - 1] + len(runs[n - 1]))
        places[n] = after if after >= 0 else text.rfind(runs[n])
    for n in range(middle - 1, -1, -1):
        before = text.rfind(runs[n], 0, places[n + 1])
        places[n] = before if before >= 0 else text.find(runs[n])
    spans = [[places[n], places[n] + len(runs[n])] for n in range(len(runs))]
    for (one, after), word in zip(pairwise(spans), between[1:], strict=False):
        for cut in range(len(word) - 1, 0, -1):  # the halves of a word at the end of a column and the head of the next
            if text.startswith(word[:cut], one[1]) and text.endswith(word[cut:], 0, after[0]):
                one[1], after[0] = one[1] + cut, after[0] - len(word) + cut
                break
    return [(start, end) for start, end in spans]
