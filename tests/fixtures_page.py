"""What the tests of the page share: a variant with one hostile document, and a stand-in that answers at once."""

import shutil
import socket
import time
from contextlib import contextmanager

import pandas as pd
import pytest

from llama_qna import UserError
from llama_qna.answering.retrieval import Answer, Evidence, Source
from llama_qna.project import gold
from llama_qna.project.data import CHUNK_COLUMNS
from llama_qna.project.systems import is_given_passages, model_of
from llama_qna.project.variant import REPOSITORY
from llama_qna.serving.desk import Desk

HOSTILE = (
    "The lid weighs three kilograms. <script>window.hit = 1</script><img src=x onerror='window.hit = 2'> "
    "![a](https://example.org/pixel.png) [b](javascript:window.hit=3) {{7*7}} ${window.hit = 4} "
    "$\\href{javascript:1}{x}$"
)
QUESTION, REFERENCE = "How heavy is the lid?", "The lid weighs three kilograms."


class StandIn:
    """Answers as an `Answerer` does, without a model; it notes what was asked, and how many readers left."""

    computed_by = "a stand-in"

    def __init__(self, variant, seconds: float = 0.0):
        self.variant, self.seconds = variant, seconds
        self.asked, self.left = [], 0

    def reads(self, system: str) -> bool:
        return system == "reader"

    def sources(self, question: str) -> list[Source]:
        return [Source("manual-1", "manual", 3, "2 The lid", HOSTILE), Source("manual-2", "manual", 4, "", "A hinge.")]

    def stream(self, question: str, system: str = "finetuned"):
        if not question:
            raise UserError("the question is empty")
        self.asked.append((question, system))
        return self._pieces(question, system)

    def answer(self, questions, system: str = "reader") -> list[Answer]:
        texts = ["".join(self.stream(question, system)).strip() for question in questions]
        source = self.sources("")[0]
        return [Answer(text, (source,), Evidence(REFERENCE, source)) for text in texts]

    def _pieces(self, question, system):
        text = f"{model_of(system)} says of {question!r}: {HOSTILE if is_given_passages(system) else REFERENCE}"
        try:
            for word in text.split(" "):
                time.sleep(self.seconds)
                yield f"{word} "
        except GeneratorExit:
            self.left += 1
            raise


@pytest.fixture
def manual_root(tmp_path, monkeypatch):
    """A root with the variants `manual`, which has chunks and gold questions, and `fresh`, on which nothing has run."""
    root = tmp_path / "root"
    for name in ("manual", "fresh"):
        (root / name).mkdir(parents=True)
        shutil.copy(REPOSITORY / "paper_135m/variant.yaml", root / name)
    chunks = root / "runs/manual/chunks/chunks.csv"
    chunks.parent.mkdir(parents=True)
    rows = [("manual-1", "manual", 3, "2 The lid", "body", "train", HOSTILE, 60)]
    pd.DataFrame(rows, columns=CHUNK_COLUMNS).to_csv(chunks, index=False)
    asked = {"question_id": "lid-1", "Question": QUESTION, "Answer": REFERENCE, "variants": "3 kg", "kind": "number"}
    asked |= {"document": "manual", "section": "2 The lid", "chunk_split": "train", "fold": "test"}
    path = root / "data/paper/gold.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame([asked | {"evidence": "The lid weighs three kilograms."}])[gold.GOLD_COLUMNS].to_csv(path, index=False)
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    return root


@pytest.fixture
def desk(manual_root, monkeypatch):
    """A desk at which every system is there and stand-ins answer; `desk.answerer(name)` is the stand-in."""
    monkeypatch.setattr("llama_qna.serving.desk.trained", lambda variant, name: (None, None))
    return Desk(manual_root, StandIn)


@contextmanager
def serve(desk, name):
    """Serve the page of a desk on a free port; yields its address."""
    from llama_qna.serving.page import build, launch_options, stay_offline

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "NO_PROXY", "no_proxy"):
            patch.setenv(variable, "1")  # so that they are put back
        stay_offline()
        blocks = build(desk, name)
        blocks.launch(server_port=port, prevent_thread_lock=True, **launch_options())
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        blocks.close(verbose=False)
