"""Builds every layout into a folder: python -m tests.layouts FOLDER."""

import sys
from pathlib import Path

import pypdfium2

from .layouts import LAYOUTS, build


def main(folder: str) -> None:
    """Build all layouts and print one line for each."""
    for layout in LAYOUTS:
        case = build(layout, Path(folder))
        pages = len(pypdfium2.PdfDocument(case.path))
        print(f"{case.name:24} {layout.producer:9} {case.language} {pages} pages  {layout.tries}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
