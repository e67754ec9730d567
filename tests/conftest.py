"""What the tests share: a root of their own to work in, so that the repository stays as it is, and the real command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llama_qna.project.variant import REPOSITORY

# Files that use the fixture `small_run`, or the export `merged`, share a process, so that it is made once.
SMALL_RUN = {"test_answering", "test_engine", "test_evaluation", "test_page_browser", "test_serving", "test_training"}
MERGED = {"test_takeaway", "test_takeaway_places"}
MODELS = {"small_run", "shallow_folder", "tiny_folder"}  # fixtures that train or save a model


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests share a process, and so do the files that use the small run, and those that use the export."""
    from xdist.scheduler import LoadFileScheduling

    class Shared(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            stem = Path(file).stem
            return "small run" if stem in SMALL_RUN else "merged" if stem in MERGED else file

    return Shared(config, log)


def pytest_collection_modifyitems(items):
    """Files that make models begin first, so that at the end no process waits long for the other."""
    makers = {item.path for item in items if MODELS & set(item.fixturenames)}
    items.sort(key=lambda item: (item.path.stem not in SMALL_RUN, item.path not in makers))


@pytest.fixture
def toy_root(tmp_path, monkeypatch):
    """A root with the variant paper_135m and the paper's PDF; LLAMA_QNA_ROOT names it."""
    root = tmp_path / "root"
    (root / "paper_135m").mkdir(parents=True)
    recipe = (REPOSITORY / "paper_135m" / "variant.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in recipe if not line.startswith("heldout:")]  # tests hold out what they say themselves
    (root / "paper_135m" / "variant.yaml").write_text("".join(kept), encoding="utf-8")
    (root / "data" / "pdfs" / "paper").mkdir(parents=True)
    shutil.copy(REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf", root / "data" / "pdfs" / "paper")
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    return root


@pytest.fixture
def edit_recipe(toy_root):
    """Replace a piece of the toy root's recipe: `edit_recipe("seed: 42", "seed: 43")`."""

    def edit(old, new):
        path = toy_root / "paper_135m" / "variant.yaml"
        text = path.read_text(encoding="utf-8")
        assert old in text, f"the recipe has no {old!r} any more"
        path.write_text(text.replace(old, new), encoding="utf-8")

    return edit


@pytest.fixture
def run_cli(toy_root):
    """The real command in a process of its own, without a network; `CompletedProcess` with its output as text."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "llama_qna", *arguments],
            cwd=REPOSITORY,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def make_pdf():
    """Write a small PDF by hand: `make_pdf(path, ["a line", "another"], ["the next page"])`."""

    def make(path, *pages):
        kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
        objects = [
            "<< /Type /Catalog /Pages 2 0 R >>",
            f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
        for n, lines in enumerate(pages):
            text = "".join(f"({line}) Tj T* " for line in lines)
            content = f"BT /F1 10 Tf 14 TL 40 800 Td {text}ET"
            objects += [
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * n} 0 R "
                "/Resources << /Font << /F1 3 0 R >> >> >>",
                f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
            ]
        body, places = "%PDF-1.4\n", []
        for number, content in enumerate(objects, start=1):
            places.append(len(body))
            body += f"{number} 0 obj\n{content}\nendobj\n"
        table = "".join(f"{place:010} 00000 n \n" for place in places)
        path.write_text(
            f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
            f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n",
            encoding="latin-1",
        )
        return path

    return make
