"""What of a corpus nothing is trained on: whole sections, and of them only what stands nowhere else."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from llama_qna.documents import bibliography
from llama_qna.documents.clean import Document, Paragraph
from llama_qna.project.recipe import Heldout

RUN = 5  # so many words in a row are a run
LEAST_RUNS = 8  # of a paragraph that says enough to be known again
KNOWN = 0.6  # a paragraph goes if training text holds so large a share of its runs
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"  # scripts without gaps: each sign counts as a word
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+")


def hold_out(documents: list[Document], heldout: Heldout) -> tuple[list[Document], dict[str, list[str]]]:
    """Choose the held-out sections of every document, and drop of them what training text says too.

    Two editions of a text, or a passage that two documents share, would otherwise be asked about as if nothing had been
    trained on them. A paragraph is known if `KNOWN` of its runs of words stand in training text (the containment of
    Broder 1997, computed exactly: it finds a passage inside a longer one, which the Jaccard similarity of MinHash does
    not).

    Returns:
        The documents, whose reports say what was held out, how many paragraphs were dropped, or why nothing is held
        out; and by name the titles of the held-out sections.
    """
    chosen = {document.name: heldout_sections(document, heldout) for document in documents}
    held = [p for document in documents for p in document.paragraphs if p.section in chosen[document.name]]
    known = set().union(*map(_runs, held))  # all runs that are looked for; below those of them that were found
    found = set()
    for document in documents:
        for paragraph in document.paragraphs:
            if paragraph.section not in chosen[document.name]:
                found |= known.intersection(_runs(paragraph))
    kept = [_without_known(document, chosen[document.name], found) for document in documents]
    for document in kept:
        sections = {paragraph.section for paragraph in document.paragraphs}
        titles = [title for title in chosen[document.name] if title in sections]
        document.report["heldout"] = titles
        if heldout.fraction and not titles:
            document.report["nothing_held_out"] = "all of it known" if chosen[document.name] else "one section"
        chosen[document.name] = titles
    return kept, chosen


def _without_known(document: Document, chosen: list[str], found: set) -> Document:
    kept = [p for p in document.paragraphs if p.section not in chosen or not _is_known(p, found)]
    dropped = len(document.paragraphs) - len(kept)
    report = document.report | ({"heldout_dropped": dropped} if dropped else {})
    return replace(document, paragraphs=kept, report=report)


def _is_known(paragraph: Paragraph, found: set) -> bool:
    runs = set(_runs(paragraph))
    return len(runs) >= LEAST_RUNS and len(runs & found) >= KNOWN * len(runs)


def _runs(paragraph: Paragraph) -> Iterator[tuple[str, ...]]:
    words = WORD.findall(paragraph.text.lower())
    return zip(*(words[start:] for start in range(RUN)), strict=False)


def heldout_sections(document: Document, heldout: Heldout) -> list[str]:
    """Choose the sections of one document that nothing is trained on, by their titles, in the order of the document.

    Sections are drawn in random order, and each is taken that brings their characters nearer to the fraction asked for;
    if even the smallest is far too much, it is taken alone. A document keeps at least one section to train on.
    What stands before the first heading, and the references, are never held out. The choice depends on nothing but the
    document and the recipe's fraction and seed.
    """
    sizes = Counter()
    for paragraph in document.paragraphs:
        if paragraph.section and not bibliography.HEADING.fullmatch(paragraph.section):
            sizes[paragraph.section] += len(paragraph.text)
    if not heldout.fraction or len(sizes) < 2:
        return []
    target = heldout.fraction * sum(len(paragraph.text) for paragraph in document.paragraphs)
    titles = sorted(sizes)
    random.Random(f"{heldout.seed} {document.name}").shuffle(titles)
    chosen, characters = set(), 0
    for title in titles:
        if abs(characters + sizes[title] - target) < abs(characters - target) and len(chosen) < len(titles) - 1:
            chosen.add(title)
            characters += sizes[title]
    chosen = chosen or {min(titles, key=sizes.get)}
    return [title for title in sizes if title in chosen]


def parted(document: Document, heldout: list[str]) -> tuple[str, str]:
    """The text of the training sections, references included, and that of the held-out ones."""
    kept = [paragraph for paragraph in document.paragraphs if paragraph.section not in heldout]
    held = [paragraph for paragraph in document.paragraphs if paragraph.section in heldout]
    return replace(document, paragraphs=kept).text(), replace(document, paragraphs=held, references=[]).text()
