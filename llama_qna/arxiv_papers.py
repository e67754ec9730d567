"""A paper from arXiv by its number: the PDF into the corpus, what arXiv says of it beside."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from llama_qna import UserError, records

NUMBER = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})(v\d+)?")


def fetch(number: str, folder: Path) -> Path:
    """Download one paper into `folder`, and its title, authors and abstract into `<number>.json`.

    Returns:
        The path of the PDF; a paper that is there already is not fetched again.

    Raises:
        UserError: no arXiv number, no such paper, or arXiv cannot be reached.
    """
    if not NUMBER.fullmatch(number):
        raise UserError(f"{number!r} is no arXiv number; they look like 2405.11913")
    path = folder / f"{number.replace('/', '_')}.pdf"
    if path.is_file():
        return path
    import arxiv
    import requests

    try:
        paper = next(arxiv.Client(num_retries=3, delay_seconds=3).results(arxiv.Search(id_list=[number])), None)
        if paper is None:
            raise UserError(f"arXiv has no paper {number}")
        with urllib.request.urlopen(paper.pdf_url, timeout=60) as answer:
            content = answer.read()
    except (arxiv.ArxivError, requests.RequestException, OSError) as error:
        raise UserError(
            f"arXiv cannot be reached ({type(error).__name__}): check the network, or download {number} by hand into "
            f"{'/'.join(folder.parts[-3:])}/"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"title": paper.title, "authors": [str(author) for author in paper.authors], "summary": paper.summary}
    records.write_json(path.with_suffix(".json"), facts)
    partial = path.with_suffix(".pdf.partial")
    partial.write_bytes(content)
    partial.rename(path)
    return path
