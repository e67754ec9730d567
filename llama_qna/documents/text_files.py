"""Plain text and Markdown, in whatever encoding, become a `Document`; HTML inside Markdown keeps its text.

They need no repairs of layout: a blank line parts paragraphs, a form feed parts pages, a Markdown heading begins a
section.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from llama_qna import UserError
from llama_qna.documents.clean import Document, Paragraph, clean_line
from llama_qna.documents.hyphens import Vocabulary, join_lines

MARKDOWN = (".md", ".markdown")
# YAML at the top of a Markdown file, whose last line would be taken for a heading; a rule may stand there too
FRONT_MATTER = re.compile(r"\A---\n(?=[\"']?[\w.-]+[\"']? *:\s).*?\n---\n", re.DOTALL)
NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f\ufffd]")
# Asked first; among all that Python knows, a few odd letters make a rare one look likelier than a common one.
COMMON_ENCODINGS = "cp1252 cp1250 cp1251 koi8_r cp1253 cp1254 cp932 euc_jp gb18030 big5 cp949"
OLDER_ENCODINGS = "iso8859_2 iso8859_5 cp437 cp850 cp866 mac_roman"
UTF_16 = "utf_16_le utf_16_be"  # without a mark at the file's beginning; of plain words half the bytes are NUL
FEW_BYTES = 1 / 1000  # beyond ASCII: too few to tell an encoding by
SAME_CHAOS = 0.01  # what charset-normalizer's measure of mess may differ by where two encodings are equally likely

BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 head header hr html li main nav ol p pre section summary table tbody tfoot "
    "thead tr ul".split()
)
INLINE = frozenset(
    "a abbr acronym area audio b base bdi bdo big br button canvas cite code col colgroup data datalist del dfn "
    "em embed font i iframe img input ins kbd label legend link map mark meta meter noscript object optgroup "
    "option output param picture progress q rp rt ruby s samp script select small source span strike strong style "
    "sub sup svg td template textarea th time title track tt u var video wbr".split()
)
HIDDEN = ("script", "style", "template")
HIDING, HIDING_END = (re.compile(rf"{mark}({'|'.join(HIDDEN)})\b", re.IGNORECASE) for mark in ("<", "</"))
HEADING = re.compile("h[1-6]")
RAISED = str.maketrans("0123456789+-−–=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁼⁽⁾ⁿ")
LOWERED = str.maketrans("0123456789+-−–=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₋₌₍₎")


def read_text(path: Path) -> tuple[list[str], Document]:
    """Read one file.

    Returns:
        Its pages as they stand in the file, and the document; the encoding is in its report.

    Raises:
        UserError: it is no text, or has none.
    """
    text, encoding = decode(path.read_bytes())
    markdown = path.suffix.lower() in MARKDOWN
    pages = (FRONT_MATTER.sub("", text) if markdown else text).rstrip("\f\n").split("\f")
    vocabulary = Vocabulary(pages)
    paragraphs, section, repairs = [], "", Counter()
    for number, page in enumerate(pages, start=1):
        plain = ((False, block.splitlines()) for block in re.split(r"\n\s*\n", page))
        for is_heading, lines in _markdown_blocks(page) if markdown else plain:
            block = [(line, number) for line in (clean_line(line, repairs) for line in lines) if line]
            joined = join_lines(block, vocabulary, repairs)[0] if block else ""
            if is_heading:
                section = joined
            elif joined:
                paragraphs.append(Paragraph(joined, number, section))
    if not paragraphs:
        raise UserError("there is no text in the file")
    report = {"encoding": encoding, "repairs": dict(sorted(repairs.items()))}
    return pages, Document(path.stem, len(pages), paragraphs, [], report)


def decode(content: bytes) -> tuple[str, str]:
    """The text of a file with plain line ends, and the name of its encoding; a stray byte becomes one U+FFFD.

    Raises:
        UserError: it is no text.
    """
    encoding = _encoding(content)
    text = content.decode(encoding, errors="replace")
    if "\0" in text or len(NO_TEXT.findall(text)) > len(text) / 20:
        raise UserError("not a text file, or in an encoding that nobody knows; save it as UTF-8")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), encoding


def _encoding(content: bytes) -> str:
    """UTF-8 where nearly all of it is, else what charset-normalizer finds."""
    from charset_normalizer import from_bytes

    for mark, encoding in ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return encoding
    text = content.decode("utf-8", errors="replace")
    stray = text.count("\ufffd")
    if "\0" not in text and 3 * stray <= len(re.findall(r"[^\x00-\x7f\ufffd]", text)):
        return "utf-8"
    has_nul = b"\0" in content
    if not has_nul and len(re.findall(rb"[\x80-\xff]", content)) <= max(1, FEW_BYTES * len(content)):
        return "cp1252"
    if has_nul and content.count(0) < len(content) / 10:
        return "utf-8"
    for encodings in (UTF_16,) if has_nul else (COMMON_ENCODINGS, OLDER_ENCODINGS):
        found = list(from_bytes(content, cp_isolation=encodings.split()))
        likely = [match for match in found if match.chaos <= found[0].chaos + SAME_CHAOS]
        names = [name for match in likely for name in match.could_be_from_charset]
        if names:
            return "cp1252" if "cp1252" in names else names[0]
    return "utf-8"


def _markdown_blocks(page: str) -> list[tuple[bool, list[str]]]:
    """Headings, paragraphs, list items, rows of tables and code, each with its lines, without markup."""
    from markdown_it import MarkdownIt

    parser = _Html()
    markdown = MarkdownIt(options_update={"maxNesting": 100}).enable(["table", "strikethrough"])
    parser.feed(_without_unclosed(markdown.render(page)))
    parser.close()
    parser.end_block()
    parser.end_heading(closed=False)
    return parser.blocks


def _without_unclosed(html: str) -> str:
    """With tags that would hide all that follows as text: a tag that is never closed is spoken of, and not used."""
    ends = {tag[1].lower(): tag.start() for tag in HIDING_END.finditer(html)}
    return HIDING.sub(lambda tag: tag[0] if tag.start() < ends.get(tag[1].lower(), 0) else f"&lt;{tag[1]}", html)


class _Html(HTMLParser):
    """Collects the blocks of a page; a tag that HTML does not have, as in `vector<int>`, is text."""

    def __init__(self):
        super().__init__()
        self.blocks: list[tuple[bool, list[str]]] = []  # whether it is a heading, and its lines
        self.text, self.hidden, self.cells = "", 0, 0
        self.heading: int | None = None  # the number of the block with which a heading that is not yet closed begins
        self.starts: list[int] = []  # of exponents and indices that are not yet closed

    def end_block(self) -> None:
        if self.text.strip(" |\n"):
            self.blocks.append((False, self.text.splitlines()))
        self.text, self.starts, self.cells = "", [], 0

    def end_heading(self, closed: bool) -> None:
        """Mark the blocks of a heading; of one that is never closed the first."""
        if self.heading is not None:
            end = len(self.blocks) if closed else self.heading + 1
            self.blocks[self.heading : end] = [(True, lines) for _, lines in self.blocks[self.heading : end]]
        self.heading = None

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag in BLOCKS:
            self.end_block()
            if HEADING.fullmatch(tag):
                self.end_heading(closed=False)
                self.heading = len(self.blocks)
        elif tag in ("td", "th"):
            self.text += " | " if self.cells else ""
            self.cells += 1
        elif tag in ("sup", "sub"):
            self.starts.append(len(self.text))
        elif tag in HIDDEN:
            self.hidden += 1
        elif tag == "br":
            self.text += "\n"
        elif tag == "img":
            self.text += dict(attributes).get("alt") or ""
        elif tag not in INLINE:
            self.text += self.get_starttag_text()

    def handle_endtag(self, tag: str) -> None:
        if tag in BLOCKS:
            self.end_block()
            if HEADING.fullmatch(tag):
                self.end_heading(closed=True)
        elif tag in ("sup", "sub") and self.starts:
            start = self.starts.pop()
            self.text = self.text[:start] + shifted(self.text[start:], tag)
        elif tag in HIDDEN:
            self.hidden = max(0, self.hidden - 1)
        elif tag not in INLINE:
            self.text += f"</{tag}>"

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.text += data


def shifted(text: str, tag: str) -> str:
    """What stands raised (`sup`) or lowered (`sub`): 10⁹ is not 109; letters, as in 4th, stay on the line."""
    text, table = text.strip(), RAISED if tag == "sup" else LOWERED
    if all(ord(character) in table for character in text):
        return text.translate(table)
    return ("^" if tag == "sup" else "_") + text if any(map(str.isdigit, text)) else text
