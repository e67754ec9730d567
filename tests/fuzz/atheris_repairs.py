"""Coverage-guided fuzzing of the text repairs with atheris, which is no dependency of this repository.

    pip install atheris
    python tests/fuzz/atheris_repairs.py CORPUS -runs=1000000 -max_len=512 -timeout=10 -print_final_stats=1

`CORPUS` is a folder for the inputs that reach new code; the options are libFuzzer's. An assertion that fails, an
exception and an input that takes longer than the timeout end the run, with the input in a file `crash-...`.
"""

import sys

import atheris

with atheris.instrument_imports(include=["llama_qna"]):
    from llama_qna.documents import (
        hyphens,  # noqa: F401
        sections,
    )

from tests.fuzz.repairs import check_layout, check_repairs, check_words, page_of, runs_of


def one_input(data: bytes) -> None:
    """The first byte chooses what is tried; the rest is pages with an outline, or the runs of a page."""
    kind, data = data[:1], data[1:]
    if not kind:
        return
    if kind[0] % 4 == 3:
        check_layout(runs_of(data))
    elif kind[0] % 4 == 2:
        check_words(page_of(data))
    else:
        pages = page_of(data).split("\f")
        titles = [line.strip() for line in pages[0].splitlines() if line.strip()][:3] if kind[0] % 4 else []
        check_repairs(pages, {sections.heading_key(title): n for n, title in enumerate(titles)})


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
