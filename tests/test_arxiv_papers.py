"""Tests of llama_qna/documents/arxiv.py: the API and the PDFs of arXiv, served from loopback."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from llama_qna import UserError, cli
from llama_qna.documents.arxiv import fetch

# the shape of an answer of export.arxiv.org/api/query; the paper is invented
FEED = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">
  <title>arXiv Query</title>
  <opensearch:totalResults>{total}</opensearch:totalResults>
  {entry}
</feed>"""
ENTRY = """<entry>
    <id>http://arxiv.org/abs/{number}</id>
    <updated>2024-05-21T08:00:00Z</updated><published>2024-05-20T17:30:00Z</published>
    <title>Folded Wickets for
  Small Gates</title>
    <summary>  We fold a wicket.
It holds for ħ → 0.
</summary>
    <author><name>Zoë Ōkubo</name></author><author><name>Peter Lind</name></author>
    {links}
  </entry>"""
LINKS = """<link href="https://arxiv.org/abs/{number}" rel="alternate" type="text/html"/>
    <link title="pdf" href="https://arxiv.org/pdf/{number}" rel="related" type="application/pdf"/>"""
LICENCE = '<link rel="license" href="http://creativecommons.org/licenses/by/4.0/"/>'
ERROR = """<entry><id>http://arxiv.org/api/errors#incorrect_id_format</id><title>Error</title>
    <updated>2024-05-21T08:00:00Z</updated><published>2024-05-21T08:00:00Z</published>
    <summary>incorrect id format</summary></entry>"""


def feed(number, links=LINKS):
    return FEED.format(total=1, entry=ENTRY.format(number=number, links=links.format(number=number)))


class Arxiv(ThreadingHTTPServer):
    """Serves `feed` and `pdf`, after the answers in `first`: (status, content, headers) for either."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.feed, self.pdf, self.first, self.asked = feed("2405.11913v2"), b"", [], []
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that hung up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, url = self.server, urlsplit(self.path)
        server.asked.append(self.path)
        is_api = url.path == "/api/query"
        status, content, headers = 200, server.feed.encode() if is_api else server.pdf, {}
        if is_api:
            self.server.numbers = parse_qs(url.query)["id_list"]
        if server.first:
            status, content, headers = server.first.pop(0) or (status, content, headers)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        if "X-Stalled" in headers:
            server.released.wait(20)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def arxiv(monkeypatch, make_pdf, tmp_path):
    monkeypatch.setattr("llama_qna.documents.arxiv.BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Arxiv() as server:
        server.pdf = make_pdf(tmp_path / "served.pdf", ["Folded wickets are small gates that fold."]).read_bytes()
        monkeypatch.setenv("LLAMA_QNA_ARXIV", server.url + "/")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "pdfs" / "mine"


BUSY = (503, b"<html>busy</html>", {"Retry-After": "0"})
BY_HAND = "download 2405.11913 by hand into data/pdfs/mine/"


def complaint(number, folder):
    with pytest.raises(UserError) as caught:
        fetch(number, folder)
    assert not folder.exists() or list(folder.iterdir()) == [], "nothing is left behind"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_paper_and_what_arxiv_says_of_it(arxiv, folder):
    path = fetch("2405.11913", folder)
    assert path == folder / "2405.11913.pdf" and path.read_bytes() == arxiv.pdf
    assert json.loads((folder / "2405.11913.json").read_text(encoding="utf-8")) == {
        "number": "2405.11913v2",
        "title": "Folded Wickets for Small Gates",
        "authors": ["Zoë Ōkubo", "Peter Lind"],
        "summary": "We fold a wicket. It holds for ħ → 0.",
        "published": "2024-05-20",
        "url": "http://arxiv.org/abs/2405.11913v2",
    }
    assert sorted(found.name for found in folder.iterdir()) == ["2405.11913.json", "2405.11913.pdf"]
    assert arxiv.numbers == ["2405.11913"] and arxiv.asked[1:] == ["/pdf/2405.11913v2"]
    fetch("2405.11913", folder)
    assert len(arxiv.asked) == 2, "it is there and is not fetched again"


@pytest.mark.parametrize(
    "number, served, name",
    [
        ("2405.11913v1", "2405.11913v1", "2405.11913v1.pdf"),
        ("hep-th/9901001", "hep-th/9901001v3", "hep-th_9901001.pdf"),
        ("math.GT/0309136v1", "math.GT/0309136v1", "math.GT_0309136v1.pdf"),
    ],
)
def test_versions_and_old_numbers(arxiv, folder, number, served, name):
    arxiv.feed = feed(served)
    assert fetch(number, folder).name == name
    assert arxiv.numbers == [number] and arxiv.asked[-1] == f"/pdf/{served}"
    assert json.loads((folder / name).with_suffix(".json").read_text())["number"] == served


def test_a_licence_is_kept_where_it_is_given(arxiv, folder):
    arxiv.feed = feed("2405.11913v2", LINKS + LICENCE)
    facts = json.loads(fetch("2405.11913", folder).with_suffix(".json").read_text())
    assert facts["license"] == "http://creativecommons.org/licenses/by/4.0/"


@pytest.mark.parametrize("empty", [FEED.format(total=0, entry=""), FEED.format(total=1, entry=ERROR), "<html>?</html>"])
def test_a_paper_that_does_not_exist(arxiv, folder, empty):
    arxiv.feed = empty
    assert complaint("2405.99999", folder) == "arXiv has no paper 2405.99999"
    assert len(arxiv.asked) == 1


@pytest.mark.parametrize("status", [400, 404])
def test_a_number_that_arxiv_refuses(arxiv, folder, status):
    arxiv.first = [(status, FEED.format(total=1, entry=ERROR).encode(), {})]
    assert complaint("2499.99999", folder) == "arXiv has no paper 2499.99999"


def test_a_withdrawn_paper(arxiv, folder):
    arxiv.feed = feed("2405.11913v2", "")
    assert complaint("2405.11913", folder) == "arXiv has no PDF of 2405.11913: the paper may be withdrawn"


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("before", [0, 1], ids=["API", "PDF"])
def test_a_busy_arxiv_is_asked_again(arxiv, folder, status, before):
    arxiv.first = [None] * before + [(status, b"busy", {}), (status, b"busy", {"Retry-After": "0"})]
    assert fetch("2405.11913", folder).read_bytes() == arxiv.pdf
    assert len(arxiv.asked) == 4


@pytest.mark.parametrize("before", [0, 1], ids=["API", "PDF"])
def test_an_arxiv_that_stays_busy(arxiv, folder, before):
    arxiv.first = [None] * before + [BUSY] * 20
    assert complaint("2405.11913", folder) == f"arXiv answered 503: try again in some minutes, or {BY_HAND}"
    assert len(arxiv.asked) == before + 5, "no more than four times again"


def test_it_waits_longer_each_time(arxiv, folder, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr("llama_qna.documents.arxiv.BACKOFF_SECONDS", 3.0)
    arxiv.first = [(503, b"busy", {})] * 4 + [None, (503, b"busy", {"Retry-After": "7"})]
    fetch("2405.11913", folder)
    assert waits == [3, 6, 12, 24, 7], "the PDF as long as the server asks"


def test_a_page_in_place_of_the_pdf(arxiv, folder):
    arxiv.pdf = b"<!DOCTYPE html><html><body>arXiv is generating your PDF</body></html>"
    assert complaint("2405.11913", folder) == (
        f"arXiv sent no PDF for 2405.11913, as it does when it is busy: try again in some minutes, or {BY_HAND}"
    )


def test_a_download_that_breaks_off(arxiv, folder):
    arxiv.first = [None, (200, arxiv.pdf[:300], {"Content-Length": str(len(arxiv.pdf))})]
    assert complaint("2405.11913", folder).startswith("arXiv cannot be reached (ChunkedEncodingError): check the net")
    assert fetch("2405.11913", folder).read_bytes() == arxiv.pdf, "the next try begins anew"


def test_without_a_network(arxiv, folder, monkeypatch):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("LLAMA_QNA_ARXIV", f"http://127.0.0.1:{taken.getsockname()[1]}")
        text = complaint("2405.11913", folder)
    assert text == f"arXiv cannot be reached (ConnectionError): check the network, or {BY_HAND}"


@pytest.mark.parametrize("stalled", ["api", "pdf"])
def test_a_server_that_never_answers(arxiv, folder, monkeypatch, stalled):
    monkeypatch.setattr("llama_qna.documents.arxiv.TIMEOUT_SECONDS", (0.2, 0.2))
    if stalled == "pdf":
        half = {"Content-Length": str(len(arxiv.pdf)), "X-Stalled": "in the middle"}
        arxiv.first = [None, (200, arxiv.pdf[:300], half)]
        text = complaint("2405.11913", folder)
        arxiv.released.set()
    else:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
            monkeypatch.setenv("LLAMA_QNA_ARXIV", f"http://127.0.0.1:{silent.getsockname()[1]}")
            text = complaint("2405.11913", folder)
    assert text.startswith("arXiv cannot be reached (Connect")


def test_a_disk_that_refuses_leaves_no_half_pdf(arxiv, folder):
    (folder / "2405.11913.pdf").mkdir(parents=True)  # the name cannot be taken
    with pytest.raises(OSError):
        fetch("2405.11913", folder)
    assert not list(folder.glob("*.partial"))


def test_load_fetches_a_paper(arxiv, toy_root, capsys):
    assert cli.main(["load", "paper_135m", "--arxiv", "2405.11913"]) == 0
    assert "fetched 2405.11913.pdf\n" in capsys.readouterr().out
    chunks = (toy_root / "runs" / "paper_135m" / "chunks" / "chunks.csv").read_text(encoding="utf-8")
    assert "Folded wickets are small gates that fold." in chunks
    assert (toy_root / "data" / "pdfs" / "paper" / "2405.11913.json").is_file()


def test_a_missing_paper_is_one_line_in_the_terminal(arxiv, toy_root, capsys):
    arxiv.feed = FEED.format(total=0, entry="")
    assert cli.main(["load", "paper_135m", "--arxiv", "2405.99999"]) == 2
    assert capsys.readouterr().err == "llama-qna: arXiv has no paper 2405.99999\n"
