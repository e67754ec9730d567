"""Turns paragraphs into words and words into lines, for the writer that draws line by line."""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from reportlab.pdfbase import cidfonts, pdfmetrics, ttfonts

from .texts import NOTE

FAMILIES = {  # upright, bold, italic
    "serif": ("Times-Roman", "Times-Bold", "Times-Italic"),
    "sans": ("Helvetica", "Helvetica-Bold", "Helvetica-Oblique"),
    "mono": ("Courier", "Courier-Bold", "Courier-Oblique"),
    "dejavu": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    "dejavusans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"),
    "song": ("STSong-Light",) * 3,
    "mincho": ("HeiseiMin-W3", "HeiseiKakuGo-W5", "HeiseiMin-W3"),
    "gothic": ("HeiseiKakuGo-W5",) * 3,
}
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
VOWELS = frozenset("aeiouyäöüáéíóúàèìòùâêîôûąęóаеёиоуыэюя")
DIGRAPHS = frozenset("ch ck sc th sh ph gh gn qu gu ll rr sz cz rz dz tr dr br pr cr gr fr pl cl bl fl gl st".split())
CLOSING = "。、，；：？！）」』”》%"
OPENING = "（「『“《"
CJK = re.compile(rf"[{OPENING}]*(?:[0-9.]+|[A-Za-z]+|\x02.*?\x03|.)(?:\x02.*?\x03|[{CLOSING}])*")
INLINE = re.compile(r"\x02(.*?)\x03|([⁰¹²³⁴⁵⁶⁷⁸⁹]+)|([√π]+)")


@dataclass(frozen=True)
class Span:
    """Some characters in one font."""

    text: str
    font: str
    size: float
    rise: float = 0
    tracking: float = 0
    heavy: bool = False  # outlined, to look bold

    @property
    def width(self) -> float:
        """Give the width as drawn."""
        return pdfmetrics.stringWidth(self.text, self.font, self.size) + self.tracking * len(self.text)


@dataclass(frozen=True)
class Word:
    """What is not divided but by hyphenation."""

    spans: tuple[Span, ...]
    space: float  # wide in front of it, 0 where nothing parts it from the word before
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> float:
        """Give the width without the space."""
        return sum(span.width for span in self.spans)


@dataclass
class Line:
    """The words of one line."""

    words: list[Word] = field(default_factory=list)
    room: float = 0
    last: bool = False  # of its paragraph, not to be justified

    @property
    def width(self) -> float:
        """Give the natural width."""
        return sum(word.width + word.space for word in self.words) - (self.words[0].space if self.words else 0)


@cache
def load_fonts() -> None:
    """Make the fonts that are not built in known to reportlab."""
    folder = Path(find_spec("matplotlib").submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    for name in {*FAMILIES["dejavu"], *FAMILIES["dejavusans"]}:
        pdfmetrics.registerFont(ttfonts.TTFont(name, folder / f"{name}.ttf"))
    for name in ("STSong-Light", "HeiseiMin-W3", "HeiseiKakuGo-W5"):
        pdfmetrics.registerFont(cidfonts.UnicodeCIDFont(name))


def make_words(text: str, span: Span, cjk: bool, mark: Callable[[str], str] | None = None) -> list[Word]:
    """Cut a text into words; `mark` gives the mark of a footnote, and the note goes with the word that bears it."""
    notes: list[str] = []

    def take(match: re.Match) -> str:
        notes.append(match[1])
        return f"\x02{mark(match[1])}\x03" if mark else ""

    marked = NOTE.sub(take, text)
    tokens = CJK.findall(marked) if cjk else marked.split(" ")
    gap = 0 if cjk else pdfmetrics.stringWidth(" ", span.font, span.size) + span.tracking
    words = []
    for token in tokens:
        own = tuple(notes.pop(0) for _ in range(token.count("\x02"))) if notes else ()
        words.append(Word(tuple(_spans(token, span)), gap, own))
    return words


def _spans(token: str, span: Span) -> list[Span]:
    """Cut a token where a mark, a raised figure or a symbol begins or ends."""
    done, at = [], 0
    for match in INLINE.finditer(token):
        if match.start() > at:
            done.append(replace(span, text=token[at : match.start()]))
        if match[3]:
            done.append(replace(span, text=match[3], font="Symbol"))
        else:
            raised = match[1] or match[2].translate(RAISED)
            done.append(replace(span, text=raised, size=span.size * 0.65, rise=span.size * 0.36))
        at = match.end()
    if at < len(token) or not token:
        done.append(replace(span, text=token[at:]))
    return done


def small_caps(text: str, span: Span) -> list[Word]:
    """Set a text in capitals, the small letters as smaller ones."""
    words = []
    for token in text.split(" "):
        spans = []
        for piece in re.findall(r"[a-zß-ÿа-яё]+|[^a-zß-ÿа-яё]+", token):
            small = piece.upper() != piece
            spans.append(replace(span, text=piece.upper(), size=span.size * (0.78 if small else 1)))
        words.append(Word(tuple(spans), span.size * 0.3))
    return words


def break_lines(words: list[Word], room: Callable[[int], float], hyphen: str) -> list[Line]:
    """Fill lines one after the other; `room` gives the width of the n-th one."""
    lines, line, queue = [], Line(room=room(0)), deque(words)
    while queue:
        word = queue.popleft()
        left = line.room - (line.width + word.space if line.words else 0)
        if word.width <= left + 0.01:
            line.words.append(word)
            continue
        head, tail = split_word(word, left, hyphen)
        if head:
            line.words.append(head)
            queue.appendleft(tail)
        elif line.words:
            queue.appendleft(word)
        else:
            line.words.append(word)
        lines.append(line)
        line = Line(room=room(len(lines)))
    if line.words:
        lines.append(line)
    lines[-1].last = True
    return lines


def split_word(word: Word, left: float, hyphen: str) -> tuple[Word | None, Word]:
    """Divide a word so that its first part fits, or give None."""
    span = word.spans[0]
    for place, sign in reversed(break_places(span.text, hyphen)):
        head = replace(span, text=span.text[:place] + sign)
        if head.width <= left:
            tail = (replace(span, text=span.text[place:]), *word.spans[1:])
            return Word((head,), word.space), replace(word, spans=tail)
    return None, word


@cache
def break_places(text: str, hyphen: str) -> list[tuple[int, str]]:
    """List where a word may be divided, with the sign to add: after its own hyphens, and by rule of thumb."""
    places = [(i + 1, "") for i in range(2, len(text) - 3) if text[i] == "-"]
    low = text.lower()
    for i in range(2, len(text) - 2 if hyphen and len(text) > 5 and "-" not in text and "@" not in text else 0):
        before, here, after = low[i - 1], low[i], low[i + 1]
        if not (
            low[: i + 3].isalpha() and here not in VOWELS and after in VOWELS and low[i - 1 : i + 1] not in DIGRAPHS
        ):
            continue
        if before in VOWELS or (before.isalpha() and low[i - 2] in VOWELS):
            places.append((i, hyphen))
    return places
