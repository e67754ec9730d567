"""A paper from arXiv by its number: the PDF into the corpus, what arXiv says of it beside."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from llama_qna import UserError, __version__
from llama_qna.project.files import write_bytes, write_json

NUMBER = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})(v\d+)?")
BACKOFF_SECONDS = 3.0  # arXiv asks for at most one request in three seconds (info.arxiv.org/help/api/tou.html)
TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, and between two pieces of an answer


def fetch(number: str, folder: Path) -> Path:
    """Download one paper into `folder`, and what arXiv says of it (title, authors, abstract, …) into `<number>.json`.

    A busy server is asked again, later each time. The environment variable `LLAMA_QNA_ARXIV` names another server with
    arXiv's API and PDFs, such as a mirror: `https://export.arxiv.org`.

    Returns:
        The path of the PDF; a paper that is there already is not fetched again.

    Raises:
        UserError: no arXiv number, no such paper, no PDF of it, or arXiv cannot be reached.
    """
    if not NUMBER.fullmatch(number):
        raise UserError(f"{number!r} is no arXiv number; they look like 2405.11913")
    path = folder / f"{number.replace('/', '_')}.pdf"
    if path.is_file():
        return path
    import arxiv
    import requests

    by_hand = f"download {number} by hand into {'/'.join(folder.parts[-3:])}/"
    session, server = _session(), os.environ.get("LLAMA_QNA_ARXIV", "").rstrip("/")
    try:
        paper = _find(number, session, server)
        if paper.pdf_url is None:
            raise UserError(f"arXiv has no PDF of {number}: the paper may be withdrawn")
        answer = session.get(server + urlsplit(paper.pdf_url).path if server else paper.pdf_url)
        answer.raise_for_status()
    except (arxiv.HTTPError, requests.HTTPError) as error:
        status = error.status if isinstance(error, arxiv.HTTPError) else error.response.status_code
        raise UserError(f"arXiv answered {status}: try again in some minutes, or {by_hand}") from None
    except (arxiv.ArxivError, requests.RequestException) as error:
        raise UserError(f"arXiv cannot be reached ({type(error).__name__}): check the network, or {by_hand}") from None
    if b"%PDF-" not in answer.content[:1024]:
        busy = "as it does when it is busy: try again in some minutes"
        raise UserError(f"arXiv sent no PDF for {number}, {busy}, or {by_hand}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), _facts(paper))
    write_bytes(path, answer.content)
    return path


def _session():
    """A session that retries with back-off and never waits for ever."""
    import requests
    from requests.adapters import HTTPAdapter, Retry

    class Patient(Retry):
        def get_backoff_time(self):
            return max(BACKOFF_SECONDS, super().get_backoff_time())  # urllib3 itself would not wait before the first

    patient = Patient(
        total=4,
        connect=1,  # without a network the user should hear of it soon
        read=2,
        backoff_factor=BACKOFF_SECONDS,
        status_forcelist=(429, 500, 502, 503, 504),
        retry_after_max=60,
        raise_on_status=False,
    )
    session = requests.Session()
    session.headers["User-Agent"] = f"llama-qna/{__version__}"
    session.mount("https://", HTTPAdapter(max_retries=patient))
    session.mount("http://", HTTPAdapter(max_retries=patient))
    session.request = functools.partial(session.request, timeout=TIMEOUT_SECONDS)
    return session


def _find(number: str, session, server: str):
    """What the API says of a paper, as an `arxiv.Result`."""
    import arxiv

    client = arxiv.Client(page_size=1, num_retries=0)  # the session retries
    client._session = session  # arxiv 4.0.2 has no public way to set a time-out
    if server:
        client.query_url_format = f"{server}/api/query?{{}}"
    try:
        paper = next(client.results(arxiv.Search(id_list=[number], max_results=1)), None)
    except arxiv.HTTPError as error:
        if error.status not in (400, 404):
            raise
        paper = None
    if paper is None or not NUMBER.fullmatch(paper.get_short_id()):  # the API tells some errors as an entry
        raise UserError(f"arXiv has no paper {number}")
    return paper


def _facts(paper) -> dict:
    facts = {
        "number": paper.get_short_id(),  # with the version
        "title": paper.title.strip(),
        "authors": [str(author) for author in paper.authors],
        "summary": " ".join(paper.summary.split()),
        "published": paper.published.date().isoformat(),
        "url": paper.entry_id,
    }
    licences = [link.href for link in paper.links if link.rel == "license"]  # RFC 4946; arXiv does not always say
    return facts | ({"license": licences[0]} if licences else {})
