"""How well PDFs in many layouts are read: by our loader, by plain pypdfium2 and by plain pdfminer.six.

Builds the layouts of `tests/layouts`, whose every paragraph is known, in a temporary folder, reads and scores each
(`tests/layouts/scoring.py`), writes `benchmarks/results/layouts.json` and from it the tables of `docs/documents.md`.

    python -m benchmarks.layouts
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import fmean, median

from llama_qna import UserError
from llama_qna.documents.read import read_document
from llama_qna.project import marked, provenance
from llama_qna.project.files import write_json
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.tables import markdown
from tests.layouts import LAYOUTS, Case, Layout, build
from tests.layouts.scoring import character_error_rate, heading_scores, leaks

RESULTS = REPOSITORY / "benchmarks" / "results" / "layouts.json"
BEFORE = RESULTS.with_name("layouts_before.json")  # of the loader that took headings from numbers and English words
PAGE = REPOSITORY / "docs" / "documents.md"
CONTROL = "pypdfium2 by pages"  # how much a reader gains by the mere parting of lines, in which notes fall out
GOOD = 0.01  # a character error rate that is good enough
KINDS = {  # what layouts are told apart by, in the words of the page
    "one column": lambda layout: layout.columns == 1,
    "two or three columns": lambda layout: layout.columns > 1,
    "stored in another order than read": lambda layout: layout.order != "natural",
    "words, letters or accents placed by themselves": lambda layout: layout.draw != "line",
    "line numbers": lambda layout: layout.line_numbers > 0,
    "watermark or stamp": lambda layout: bool(layout.watermark),
    "notes in the margin": lambda layout: layout.has("side"),
    "footnotes": lambda layout: layout.has("notes"),
    "no footnotes, margin notes, figures, tables or formulas": lambda layout: not _has_notes(layout),
    "with an outline": lambda layout: layout.has("outline"),
    "without an outline": lambda layout: not layout.has("outline"),
    "English": lambda layout: layout.text.startswith("en"),
    "another European language": lambda layout: layout.text[:2] in ("de", "fr", "es", "pl", "ru"),
    "Chinese or Japanese": lambda layout: layout.text[:2] in ("zh", "ja"),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(layout, Path(folder)) for layout in LAYOUTS]
    facts = {"layouts": rows, "date": datetime.now(UTC).date().isoformat(), "git": provenance.git_state()}
    written_by = {name: metadata.version(name) for name in ("typst", "reportlab", "rapidfuzz")}
    facts |= {"machine": provenance.machine(), "versions": provenance.versions() | written_by}
    write_json(RESULTS, facts)
    write_page(json.loads(RESULTS.read_text(encoding="utf-8")))


def measure(layout: Layout, folder: Path) -> dict:
    """Build a layout and score every reader on it."""
    case = build(layout, folder)
    kinds = [kind for kind, belongs in KINDS.items() if belongs(layout)]
    row = {"name": case.name, "tries": layout.tries, "producer": layout.producer, "language": case.language}
    scores = {reader: score(*read(case.path), case) for reader, read in READERS.items()}
    print(f"{case.name:24}", *(f"{reader} {found['error_rate']:.3f}" for reader, found in scores.items()))
    return row | {"kinds": kinds, "headings": len(case.headings), "readers": scores}


def score(paragraphs: list[str], headings: list[str], case: Case) -> dict:
    """What a reader's body and headings are worth; headings as counts, so that they can be summed."""
    found, invented = heading_scores(headings, case)
    return {
        "error_rate": round(character_error_rate(paragraphs, case), 5),
        "headings_found": round(found * len(case.headings)),
        "headings_invented": round(invented * len(headings)),
        "headings_given": len(headings),
        "leaks": leaks(paragraphs, case),
    }


def read_ours(path: Path) -> tuple[list[str], list[str]]:
    """Paragraphs and reference entries of the loader, and its headings; nothing where it refuses the file."""
    try:
        document = read_document(path, "pypdfium2")
    except UserError:
        return [], []
    body = [paragraph.text for paragraph in document.paragraphs] + [entry for _, entry, _ in document.references]
    return body, [title for title, _ in document.headings]


def read_pypdfium2(path: Path) -> tuple[list[str], list[str]]:
    """The lines that pypdfium2 gives: it knows no paragraphs."""
    import pypdfium2

    with pypdfium2.PdfDocument(path) as pdf:
        text = "\n".join(page.get_textpage().get_text_range() for page in pdf)
    return [line for line in text.splitlines() if line.strip()], []


def read_pages(path: Path) -> tuple[list[str], list[str]]:
    """What pypdfium2 gives, each page a paragraph: a note can then not be told from the body around it."""
    import pypdfium2

    with pypdfium2.PdfDocument(path) as pdf:
        return [page.get_textpage().get_text_range() for page in pdf], []


def read_pdfminer(path: Path) -> tuple[list[str], list[str]]:
    """The blocks that pdfminer.six gives, with blank lines between them."""
    from pdfminer.high_level import extract_text

    return [block for block in re.split(r"\n\s*\n", extract_text(path)) if block.strip()], []


READERS: dict[str, Callable[[Path], tuple[list[str], list[str]]]] = {
    "ours": read_ours,
    "pypdfium2": read_pypdfium2,
    "pdfminer.six": read_pdfminer,
    CONTROL: read_pages,
}
SHOWN = [reader for reader in READERS if reader != CONTROL]


def write_page(facts: dict) -> None:
    """Put the result and the tables into docs/documents.md."""
    marked.write(PAGE, result=result(facts))
    marked.write(PAGE, measured=table(facts))


def result(facts: dict) -> str:
    """The result in a sentence."""
    rows = facts["layouts"]
    ours = _summary(rows, "ours")
    return (
        f"Of {len(rows)} layouts the loader reads {ours['good']} with at most {GOOD:.0%} wrong characters "
        f"(median {ours['median']:.1%});\nit finds {ours['found']:.0%} of the headings, and "
        f"{ours['invented']:.0%} of those that it gives are none."
    )


def table(facts: dict) -> str:
    """The tables of the documentation: all layouts together, and their kinds."""
    rows = facts["layouts"]
    about = f"{facts['date']}, Python {facts['versions']['python']}, pypdfium2 {facts['versions']['pypdfium2']}, "
    about += f"pdfminer.six {facts['versions']['pdfminer.six']}; [`layouts.json`](../benchmarks/results/layouts.json) "
    return "\n\n".join([
        _summary_table(rows), about + "has every layout and score, and what of running heads and the like leaked.",
        "## What fails", _finding(rows), _kind_table(rows),
    ])  # fmt: skip


def _has_notes(layout: Layout) -> bool:
    return any(map(layout.has, ("notes", "side", "figure", "table", "equation", "picture")))


def _summary(rows: list[dict], reader: str) -> dict:
    """Median and mean error rate, how many are good, and the headings of all layouts together."""
    scores = [row["readers"][reader] for row in rows]
    rates = [found["error_rate"] for found in scores]
    sums = {key: sum(found[f"headings_{key}"] for found in scores) for key in ("found", "invented", "given")}
    return {
        "median": median(rates),
        "mean": fmean(rates),
        "good": sum(rate <= GOOD for rate in rates),
        "found": sums["found"] / sum(row["headings"] for row in rows),
        "invented": sums["invented"] / max(1, sums["given"]),
        "leaking": sum(bool(found["leaks"]) for found in scores),
    }


def _summary_table(rows: list[dict]) -> str:
    before = json.loads(BEFORE.read_text(encoding="utf-8"))["layouts"]
    sums = {"ours": _summary(rows, "ours"), "ours before": _summary(before, "ours")}
    sums |= {reader: _summary(rows, reader) for reader in READERS if reader != "ours"}
    lines = [
        ["character error rate, median", *(f"{found['median']:.1%}" for found in sums.values())],
        ["character error rate, mean", *(f"{found['mean']:.1%}" for found in sums.values())],
        [f"layouts with at most {GOOD:.0%}", *(f"{found['good'] / len(rows):.0%}" for found in sums.values())],
        ["headings found", *(f"{sums[ours]['found']:.0%}" for ours in ("ours", "ours before")), *"---"],
        ["headings invented", *(f"{sums[ours]['invented']:.0%}" for ours in ("ours", "ours before")), *"---"],
        ["layouts that leak what is no text", *(f"{found['leaking'] / len(rows):.0%}" for found in sums.values())],
    ]
    return markdown([f"{len(rows)} layouts", *sums], lines)


def _finding(rows: list[dict]) -> str:
    """Which layouts miss the goals, and where the loader has most errors left."""
    ours = {row["name"]: (row["readers"]["ours"], row["headings"]) for row in rows}
    bad = [f"`{name}`" for name, (found, _) in ours.items() if found["error_rate"] > GOOD]
    heads = [
        f"`{name}`" for name, (found, there) in ours.items()
        if found["headings_found"] < there or found["headings_invented"]
    ]  # fmt: skip
    worst = sorted(ours, key=lambda name: -ours[name][0]["error_rate"])[:5]
    rates = ", ".join(f"`{name}` {ours[name][0]['error_rate']:.1%}" for name in worst)
    control = _summary(rows, CONTROL)["median"]
    return (
        f"More than {GOOD:.0%} wrong characters: {', '.join(bad) or 'none'}. Headings missed or invented: "
        f"{', '.join(heads) or 'none'}. The most errors: {rates}. Plain pypdfium2 with each page as one paragraph has "
        f"{control:.1%}. A layout may be of several kinds."
    )


def _kind_table(rows: list[dict]) -> str:
    lines = []
    for kind in KINDS:
        if some := _of_kind(rows, kind):
            sums = {reader: _summary(some, reader) for reader in SHOWN}
            heads = [f"{sums['ours'][key]:.0%}" for key in ("found", "invented")]
            lines.append([kind, str(len(some)), *(f"{found['median']:.1%}" for found in sums.values()), *heads])
    return markdown(["kind", "layouts", *(f"{reader}, median" for reader in SHOWN), "found", "invented"], lines)


def _of_kind(rows: list[dict], kind: str) -> list[dict]:
    return [row for row in rows if kind in row["kinds"]]


if __name__ == "__main__":
    main()
