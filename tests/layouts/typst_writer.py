"""Sets a prepared text with Typst."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pypdfium2
import typst

from .model import Layout
from .texts import LABELS, NOTE, Block, Document

FAMILIES = {
    "serif": "Libertinus Serif",
    "modern": "New Computer Modern",
    "mono": "DejaVu Sans Mono",
    "dejavu": "DejaVu Serif",
    "sans": "DejaVu Sans",
}
MASTHEAD = ("Annals of Inland History", "Vol. 12, No. 3 (2016), pp. 190–195", "https://doi.org/10.5555/aih.2016.0190")
LOOKS = {
    "size": "",
    "bold": 'weight: "bold"',
    "caps": "",
    "italic": 'style: "italic"',
    "smallcaps": "",
    "spaced": "tracking: 0.25em",
    "runin": 'weight: "bold"',
    "underline": "",
}
FOLIOS = {
    "center": "align(center, str(n))",
    "dash": 'align(center, "– " + str(n) + " –")',
    "of": 'align(center, str(n) + " / " + str(counter(page).final().first()))',
    "roman": 'align(center, numbering("i", n))',
    "outer": "align(if even {left} else {right}, str(n))",
}
RUNNING = {
    "outer": "align(if even {left} else {right}, if even [#n#h(1em)#short] else [#short#h(1em)#n])",
    "corners": "if even [#n #h(1fr) #short] else [#short #h(1fr) #n]",
    "center": "align(center, emph(short))",
    "chapter": "if even [#n #h(1fr) #emph(short)] else [#emph(chapter) #h(1fr) #n]",
    "author": "if even [#n #h(1fr) #emph(author)] else [#emph(short) #h(1fr) #n]",
    "number": "align(right, str(n))",
}


@cache
def fonts() -> typst.Fonts:
    """Find the fonts once: Typst's own and the DejaVu files that come with matplotlib."""
    folder = Path(find_spec("matplotlib").submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return typst.Fonts(include_system_fonts=False, font_paths=[str(folder)])


def write(document: Document, layout: Layout, path: Path) -> tuple[list[str], list[str]]:
    """Write the PDF; give the strings outside the body and further notes."""
    source = "\n".join([*_settings(document, layout), *_front(document, layout), *_flow(document, layout)])
    typst.compile(source.encode(), output=str(path), font_paths=fonts(), pdf_tags=layout.has("tags"))
    absent = _margin_texts(layout, path)
    if layout.watermark:
        absent.append(layout.watermark.partition(":")[2])
    return absent, list(MASTHEAD) if layout.front == "masthead" else []


def _string(text: str) -> str:
    """Write a text as a Typst string."""
    return json.dumps(text, ensure_ascii=False)


def _settings(document: Document, layout: Layout) -> list[str]:
    """Write the set and show rules."""
    width, height = layout.size_of_page
    inner, outer, top, bottom = layout.margins
    sides = f"inside: {inner}pt, outside: {outer}pt" if layout.two_sided else f"left: {inner}pt, right: {outer}pt"
    numbered = layout.line_numbers > 0
    gap = f"{layout.leading - 0.68:.2f}em"
    spacing, indent = (gap, f"{layout.indent}pt") if layout.indent else ("1.1em", "0pt")
    return [
        f"#set page(width: {width}pt, height: {height}pt, columns: {layout.columns}, "
        f"margin: ({sides}, top: {top}pt, bottom: {bottom}pt), {_furniture(document, layout)})",
        f"#set columns(gutter: {layout.gap}pt)",
        f"#set text(font: {_string(FAMILIES[layout.font])}, size: {layout.size}pt, "
        f'lang: "{document.language}", hyphenate: {str(bool(layout.hyphen)).lower()})',
        f"#set par(justify: {str(layout.justify).lower()}, leading: {gap}, spacing: {spacing}, "
        f"first-line-indent: {indent})",
        f"#set heading(bookmarked: {str(layout.has('outline')).lower()})",
        '#set footnote(numbering: "*")' if layout.has("stars") else "",
        f"#set par.line(numbering: n => if calc.rem(n, {layout.line_numbers}) == 0 [#n])" if numbered else "",
        *(_heading_rule(layout, level) for level in (1, 2)),
    ]


def _furniture(document: Document, layout: Layout) -> str:
    """Write header, footer and background of the pages."""
    short = document.short.upper() if layout.running == "outer" else document.short
    names = (
        f"let n = here().page() + {layout.first_page - 1}; let even = calc.even(n);"
        f"set text(size: {layout.size * 0.85:.1f}pt); let short = {_string(short)};"
        f"let author = {_string(', '.join(a[0] for a in document.authors))};"
        "let above = query(selector(heading.where(level: 1)).before(here()));"
        "show linebreak: [ ];"
        "let chapter = if above.len() > 0 {above.last().body} else {short};"
    )
    first = f"if n != {layout.first_page} " if layout.front != "bare" else ""
    parts = []
    if layout.running:
        parts.append(f"header: context {{{names} {first}{{{RUNNING[layout.running]}}}}}")
    if layout.folio:
        parts.append(f"footer: context {{{names} {FOLIOS[layout.folio]}}}")
    kind, _, text = layout.watermark.partition(":")
    if kind == "diagonal":
        parts.append(f"background: rotate(-50deg, text(90pt, fill: luma(215), {_string(text)}))")
    elif kind == "middle":
        parts.append(f"background: text(7pt, fill: luma(90), {_string(text)})")
    elif kind == "side":
        parts.append(
            f"background: place(left + horizon, dx: 12pt, rotate(-90deg, reflow: true, "
            f"text(8pt, fill: luma(130), {_string(text)})))"
        )
    return ", ".join(parts)


def _heading_rule(layout: Layout, level: int) -> str:
    """Write how headings of one level look."""
    size = layout.size * (1 + (layout.head_scale - 1) / level)
    body = {"caps": "upper(it.body)", "smallcaps": "smallcaps(it.body)", "underline": "underline(it.body)"}.get(
        layout.head, "it.body"
    )
    look = LOOKS[layout.head] + (', style: "italic"' if level == 2 and layout.head in ("size", "caps") else "")
    where = "align(center, {})" if layout.center_heads else "{}"
    text = f"text(size: {size:.1f}pt, hyphenate: false, {look.strip(', ') or 'weight: 400'}, {body})"
    around = f"width: 100%, above: {1.9 - 0.3 * level}em, below: 0.9em, sticky: true"
    inner = f"set par(justify: false); {where.format(text)}"
    return f"#show heading.where(level: {level}): it => block({around}, {{{inner}}})"


def _front(document: Document, layout: Layout) -> list[str]:
    """Write title, authors and abstract across all columns."""
    if layout.front == "bare":
        return []
    lines = []
    if layout.front == "masthead":
        lines += [
            f"#line(length: 100%) #text(0.85em)[{MASTHEAD[0]} #h(1fr) {MASTHEAD[1]}]\n\n",
            f"#text(0.85em, {_string(MASTHEAD[2])}) #line(length: 100%) #v(1em)",
        ]
    lines.append(f"#align(center, text(1.9em, hyphenate: false, {_string(document.title)})) #v(0.6em)")
    for name, *rest in document.authors:
        lines.append(f"#align(center, {_string(name)})")
        lines += [f"#align(center, text(0.85em, {_string(part)}))" for part in rest]
    if layout.front == "titlepage":
        return ["#v(1fr)", *lines, "#v(2fr)", "#pagebreak()"]
    if document.abstract:
        lines.append(f"#v(0.5em) #align(center, strong({_string(LABELS[document.language])}))")
        lines.append(f"#pad(x: 2.5em, text(0.92em, {_string(document.abstract)}))")
    return ['#place(top, scope: "parent", float: true, clearance: 2em, block(width: 100%)[', *lines, "])"]


def _flow(document: Document, layout: Layout) -> list[str]:
    """Write all blocks, and the run-in headings together with their paragraphs."""
    parts, run_in, kind = [], "", ""
    for block in document.blocks:
        if block.kind == "heading" and block.level == 2 and layout.head == "runin":
            run_in = f"#strong({_string(' '.join(filter(None, [block.number, block.text])) + '.')})#h(0.8em)"
            continue
        gap = "" if block.kind == kind == "item" and not block.number else "\n"
        parts.append(gap + _block(block, layout, run_in))
        run_in, kind = "", block.kind
    return parts


def _block(block: Block, layout: Layout, run_in: str) -> str:
    """Write one block."""
    if block.kind == "heading":
        split = "#pagebreak(weak: true)\n" if layout.has("slides") else ""
        return split + f"#heading(level: {block.level})[{_heading(block)}]"
    if block.kind == "para":
        return _margin_note(block, layout) + run_in + _inline(block.text)
    if block.kind == "item":
        marker = f"#h(1em)#{_string(block.number + ' ')}" if block.number else "- "
        return marker + _inline(block.text)
    if block.kind == "quote":
        return f"#pad(x: 2em, y: 0.4em)[#set par(first-line-indent: 0pt)\n{_inline(block.text)}]"
    if block.kind == "equation":
        return '#math.equation(block: true, numbering: "(1)", $T = 2 pi sqrt(L / g)$)'
    return _float(block, layout)


def _heading(block: Block) -> str:
    """Write number and words of a heading."""
    if block.number.endswith("\n"):
        return f"#{_string(block.number.strip())} \\ #{_string(block.text)}"
    return (f"#{_string(block.number)}#h(0.7em)" if block.number else "") + f"#{_string(block.text)}"


def _float(block: Block, layout: Layout) -> str:
    """Write a figure, a table or a page with a picture."""
    if block.kind == "picture":
        return "#pagebreak(weak: true)\n#rect(width: 100%, height: 100%, fill: luma(200))\n#pagebreak()"
    if block.kind == "table":
        cells = ", ".join(f"[#{_string(cell)}]" for row in block.rows for cell in row)
        inner, above = f"table(columns: {len(block.rows[0])}, stroke: (x, y) => (y: 0.5pt), {cells})", "top"
    else:
        points = "(0pt, 70pt), (50pt, 5pt), (95pt, 40pt), (150pt, 70pt)"
        inner, above = f"polygon(fill: luma(220), stroke: 1pt, {points})", "bottom"
    figure = (
        f"figure(supplement: none, numbering: none, caption: figure.caption(position: {above}, "
        f"text(0.85em, {_string(block.text)})), {inner})"
    )
    if block.kind == "table" and layout.has("turned"):
        return f"#pagebreak(weak: true)\n#align(center + horizon, rotate(-90deg, reflow: true, {figure}))\n#pagebreak()"
    scope = "parent" if layout.has("wide") else "column"
    place = "top + center" if layout.columns > 1 else "auto"
    return f'#place({place}, scope: "{scope}", float: true, {figure})' if layout.has("float") else f"#{figure}"


def _margin_note(block: Block, layout: Layout) -> str:
    """Write the note beside a paragraph."""
    if not block.side:
        return ""
    room = layout.margins[1] - 24
    text = f"align(left, text(7.5pt, par(justify: false, {_string(block.side)})))"
    return f"#place(right, dx: {room + 10}pt, block(width: {room}pt, {text}))"


def _inline(text: str) -> str:
    """Write a text with its footnotes and raised figures."""
    pieces = enumerate(NOTE.split(text))
    return "".join(f"#footnote[#{_string(piece)}]" if i % 2 else _raised(piece) for i, piece in pieces if piece)


def _raised(text: str) -> str:
    """Write a text whose superscript figures are ordinary figures raised and made small."""
    parts, plain, digits = [], "", "⁰¹²³⁴⁵⁶⁷⁸⁹"
    for char in text:
        if char not in digits:
            plain += char
            continue
        if plain:
            parts.append(f"#{_string(plain)}")
        parts.append(f"#super(typographic: false)[{digits.index(char)}]")
        plain = ""
    return "".join(parts) + (f"#{_string(plain)}" if plain else "")


def _margin_texts(layout: Layout, path: Path) -> list[str]:
    """Read from the written file what stands in the header and the footer, and the line numbers."""
    width, height = layout.size_of_page
    left, (_, _, top, bottom) = min(layout.margins[:2]) - 4, layout.margins
    bands = [(left, height - top + 6, width, height), (left, 0, width, bottom - 6)]
    if layout.line_numbers:
        bands.append((0, bottom, left, height - top))
    pdf = pypdfium2.PdfDocument(path)
    texts = [page.get_textpage().get_text_bounded(*band) for page in pdf for band in bands]
    pdf.close()
    return list(dict.fromkeys(line.strip() for text in texts for line in text.splitlines() if line.strip()))
