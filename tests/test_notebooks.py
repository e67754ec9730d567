"""Tests of notebooks/: the form of a course, and that what is committed holds nothing of the machine that made it."""

import ast
import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llama_qna.documents.arxiv import fetch
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.run import default_variant

COURSE = sorted((REPOSITORY / "notebooks").glob("0[1-5]_*.ipynb"))
MACHINE = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|mnt)/|\w+Warning:")


def cells_of(path, kind):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem[:2])
class TestNotebook:
    def test_it_is_short_and_says_first_what_it_needs(self, path):
        prose, code = cells_of(path, "markdown"), cells_of(path, "code")
        assert 15 <= len(prose) + len(code) <= 25
        assert max(len(cell["source"]) for cell in code) <= 8
        head = "".join(prose[0]["source"])
        assert all(f"| {row} |" in head for row in ("goes in", "comes out", "hardware", "time"))
        assert sum("**Try it.**" in "".join(cell["source"]) for cell in prose) >= 2

    def test_parameters_are_literals_and_name_a_variant(self, path):
        (parameters,) = (cell for cell in cells_of(path, "code") if "parameters" in cell["metadata"].get("tags", []))
        for line in ast.parse("".join(parameters["source"])).body:
            ast.literal_eval(line.value)
        Variant.load(default_variant(path))

    def test_outputs_hold_nothing_of_a_machine(self, path):
        outputs = [output for cell in cells_of(path, "code") for output in cell["outputs"]]
        texts = ["".join(output.get("text", [])) for output in outputs]
        texts += ["".join(output.get("data", {}).get("text/html", [])) for output in outputs]
        texts += ["".join(output.get("data", {}).get("text/plain", [])) for output in outputs]
        assert not [found[0] for text in texts if (found := MACHINE.search(text))]
        assert not [output for output in outputs if output["output_type"] == "error"]


def test_the_recorded_paper_of_notebook_3(tmp_path, monkeypatch):
    """A folder with arXiv's two addresses, served as it is, is an arXiv with one paper."""
    recorded = partial(SimpleHTTPRequestHandler, directory=REPOSITORY / "data" / "arxiv_recorded")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), recorded) as server:
        monkeypatch.setenv("LLAMA_QNA_ARXIV", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        paper = fetch("2400.00001", tmp_path)
        server.shutdown()
        thread.join()
    assert paper.read_bytes() == (REPOSITORY / "data" / "arxiv_recorded" / "pdf" / "2400.00001v1").read_bytes()
    assert json.loads(paper.with_suffix(".json").read_text(encoding="utf-8"))["number"] == "2400.00001v1"
