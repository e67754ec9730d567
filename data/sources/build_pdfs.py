"""Build every PDF in data from its Typst source in data/sources.

`data/sources/<corpus>/<name>.typ` becomes `data/pdfs/<corpus>/<name>.pdf`, and
`data/sources/arxiv_recorded/<number>.typ` becomes `data/arxiv_recorded/pdf/<number>`,
the address that arXiv gives a paper. Files whose name starts with `_` are
templates and are skipped. Only Typst's
embedded fonts and a fixed timestamp are used, so that the same sources and the
same version of the `typst` package give byte-identical PDFs.

    pip install typst
    python data/sources/build_pdfs.py
"""

from datetime import UTC, datetime
from pathlib import Path

import typst

SOURCES = Path(__file__).resolve().parent
DATA = SOURCES.parent
TIMESTAMP = datetime(2024, 1, 1, tzinfo=UTC)


def main() -> None:
    for source in sorted(SOURCES.glob("*/[!_]*.typ")):
        corpus = source.parent.name
        target = DATA / "pdfs" / corpus / f"{source.stem}.pdf"
        if corpus == "arxiv_recorded":
            target = DATA / corpus / "pdf" / source.stem
        target.parent.mkdir(parents=True, exist_ok=True)
        typst.compile(source, output=target, root=SOURCES, ignore_system_fonts=True, timestamp=TIMESTAMP)
        print(target.relative_to(DATA.parent))


if __name__ == "__main__":
    main()
