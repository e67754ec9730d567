"""What is drawn on a canvas of reportlab: the words of a line, accents, turned text, a picture, watermarks."""

import unicodedata
from dataclasses import replace

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas

from .model import Layout
from .setting import Span, Word

ACCENTS = {"\u0300": "`", "\u0301": "´", "\u0302": "ˆ", "\u0303": "˜", "\u0308": "¨", "\u0327": "¸"}


def draw_words(c: Canvas, words: list[Word], x: float, y: float, stretch: float, how: str) -> None:
    """Draw the words of a line, stretched over the slack."""
    if not words:
        return
    spaced = any(word.space for word in words[1:])
    gaps = len(words) - 1 if spaced else sum(len(s.text) for w in words for s in w.spans) - 1
    extra = stretch / max(gaps, 1)
    if how == "line":
        draw_whole_line(c, words, x, y, extra, spaced)
        return
    for i, word in enumerate(words):
        x += (word.space + (extra if spaced else 0)) if i else 0
        for span in word.spans:
            x = draw_span(c, span, x, y, 0 if spaced else extra, how)


def draw_whole_line(c: Canvas, words: list[Word], x: float, y: float, extra: float, spaced: bool) -> None:
    """Draw a line with one operator for each run of one font, spaces included."""
    text = c.beginText(x, y)
    text.setWordSpace(extra if spaced else 0)
    runs: list[Span] = []
    for i, word in enumerate(words):
        for j, span in enumerate(word.spans):
            lead = " " if i and not j and word.space else ""
            if runs and replace(runs[-1], text="") == replace(span, text=""):
                runs[-1] = replace(runs[-1], text=runs[-1].text + lead + span.text)
            elif runs:
                runs[-1] = replace(runs[-1], text=runs[-1].text + lead)
                runs.append(span)
            else:
                runs.append(span)
    for span in runs:
        text.setFont(span.font, span.size)
        text.setRise(span.rise)
        text.setCharSpace(span.tracking + (0 if spaced else extra))
        text.setTextRenderMode(2 if span.heavy else 0)
        text.textOut(span.text)
    text.setCharSpace(0)
    text.setWordSpace(0)
    text.setRise(0)
    text.setTextRenderMode(0)
    c.setLineWidth(0.35)
    c.drawText(text)


def draw_span(c: Canvas, span: Span, x: float, y: float, extra: float, how: str) -> float:
    """Draw a span as a word or by single characters, and give where it ends."""
    c.setFont(span.font, span.size)
    pieces = [span.text] if how == "word" and not extra and not span.tracking else list(span.text)
    for piece in pieces:
        accent = unicodedata.normalize("NFD", piece)[1:] if how == "accents" and len(piece) == 1 else ""
        width = pdfmetrics.stringWidth(piece, span.font, span.size)
        if accent in ACCENTS and piece.lower() not in "íîìï":
            draw_accented(c, piece, ACCENTS[accent], span, x, y + span.rise)
        else:
            c.drawString(x, y + span.rise, piece)
        x += width + span.tracking + extra
    return x


def draw_accented(c: Canvas, piece: str, accent: str, span: Span, x: float, y: float) -> None:
    """Draw an accent and then its letter over it."""
    base = unicodedata.normalize("NFD", piece)[0]
    width = pdfmetrics.stringWidth(base, span.font, span.size)
    shift = (width - pdfmetrics.stringWidth(accent, span.font, span.size)) / 2
    c.drawString(x + shift, y + (span.size * 0.2 if base.isupper() and accent != "¸" else 0), accent)
    c.drawString(x, y, base)


def draw_turned(c: Canvas, text: str, x: float, y: float, font: str, size: float) -> None:
    """Draw a text that runs upwards."""
    c.saveState()
    c.translate(x, y)
    c.rotate(90)
    c.setFont(font, size)
    c.drawString(0, 0, text)
    c.restoreState()


def draw_picture(c: Canvas, x: float, y: float, width: float, height: float) -> None:
    """Draw hills under a sun."""
    c.setFillGray(0.88)
    c.rect(x, y, width, height, fill=1)
    c.setFillGray(0.7)
    c.circle(x + width * 0.7, y + height * 0.75, 40, fill=1)
    c.setFillGray(0.5)
    path = c.beginPath()
    path.moveTo(x, y)
    path.curveTo(x + width * 0.2, y + height * 0.7, x + width * 0.5, y + height * 0.1, x + width, y + height * 0.5)
    path.lineTo(x + width, y)
    c.drawPath(path, fill=1)
    c.setFillGray(0)


def draw_watermark(c: Canvas, layout: Layout, index: int) -> None:
    """Draw the watermark of a page."""
    kind, _, text = layout.watermark.partition(":")
    width, height = layout.size_of_page
    if kind == "side" and index == 0:
        c.setFillGray(0.5)
        draw_turned(c, text, 22, height * 0.3, "Times-Roman", 9)
    elif kind == "middle":
        c.setFillGray(0.3)
        c.setFont("Helvetica", 7)
        c.drawCentredString(width / 2, height / 2, text)
    elif kind == "diagonal":
        c.saveState()
        c.setFillGray(0.85)
        c.translate(width / 2, height / 2)
        c.rotate(50)
        c.setFont("Helvetica-Bold", 80)
        c.drawCentredString(0, -25, text)
        c.restoreState()
    c.setFillGray(0)
