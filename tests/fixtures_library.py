"""A folder with a document, a root of its own, and an answerer that quotes, for the tests of documents in a folder."""

import threading
from types import SimpleNamespace

import pytest

from llama_qna.answering.reader import check_question
from llama_qna.answering.retrieval import Answer, Evidence
from llama_qna.answering.sentences import Sentences
from llama_qna.project.recipe import EMBEDDED
from llama_qna.serving import library
from tests.fixtures_models import tokenizer

BRIDGE = ["The bridge at Orsk is 412 metres long.", "It was built of red granite in 1841."]
FERRY = ["A ferry crosses the sound twice a week.", "Its captain was called Brandt."]
QUESTION = "How long is the bridge at Orsk?"


class Quoting:
    """Quotes the best sentence, where there is one; what the reader itself answers is tested at the end."""

    def __init__(self, chunks, reader):
        self.sentences, self.asked, self.at_once = Sentences(chunks), [], threading.Semaphore()
        self.tokenizer = tokenizer()

    @classmethod
    def of(cls, chunks, reader):
        return cls(chunks, reader)

    def answer(self, questions):
        assert self.at_once.acquire(blocking=False), "one at a time"
        self.asked += questions
        answers = [self._answer(question) for question in questions if check_question(self.tokenizer, question) is None]
        self.at_once.release()
        return answers

    def _answer(self, question):
        found = self.sentences.find(question, 6)
        sources = tuple(self.sentences.passage(n) for n in found)
        if not found:
            return Answer("The documents do not say.", sources, said_not=True)
        return Answer("412 metres", sources, Evidence(self.sentences.all[found[0]].text, sources[0]))


@pytest.fixture(autouse=True, name="root")
def root_fixture(tmp_path, monkeypatch, request):
    """A root of its own, for what is kept; and the stand-in, but where the test asks for the real reader."""
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(tmp_path / "root"))
    if not {"copied_reader", "true_reader"} & set(request.fixturenames):
        (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
        stand_in = SimpleNamespace(adapter=tmp_path, recipe=SimpleNamespace(base_model=EMBEDDED))
        monkeypatch.setattr(library, "Reader", SimpleNamespace(load=lambda name: stand_in))
        monkeypatch.setattr(library, "check_reader", lambda reader: None)
        monkeypatch.setattr(library, "ReadingAnswerer", Quoting)
    return tmp_path / "root"


@pytest.fixture(name="papers")
def papers_fixture(tmp_path, make_pdf):
    """A folder with one PDF of two pages."""
    folder = tmp_path / "papers"
    folder.mkdir()
    make_pdf(folder / "orsk.pdf", FERRY, BRIDGE)
    return folder


def one_line(text):
    return len(text.strip().splitlines()) == 1


def no_room(*_):
    raise OSError(28, "No space left on device")
