"""Tests of llama_qna/documents/loader.py: clean sections for LangChain, and the same ones for the load stage."""

import pytest
from langchain_core.document_loaders import BaseLoader
from langchain_text_splitters import RecursiveCharacterTextSplitter

from llama_qna import UserError
from llama_qna.documents import SectionLoader
from llama_qna.documents.chunks import split
from llama_qna.documents.clean import Document, Paragraph
from llama_qna.documents.loader import sections
from llama_qna.documents.read import read_document
from llama_qna.project.recipe import Chunking
from llama_qna.project.variant import REPOSITORY

PAPER = REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf"


def test_sections_of_a_folder_with_what_is_known_of_them(tmp_path, make_pdf):
    make_pdf(tmp_path / "a.pdf", ["Hello there."])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.md").write_text("# One\n\nFirst.\n\nSecond.\n\n# Two\n\nThird.\n")
    loader = SectionLoader(tmp_path)
    assert isinstance(loader, BaseLoader)
    found = [(s.page_content, s.metadata["document"], s.metadata["section"]) for s in loader.load()]
    assert found == [
        ("Hello there.", "a", ""),
        ("First.\n\nSecond.", "b/notes", "One"),
        ("Third.", "b/notes", "Two"),
    ]
    last = loader.load()[-1].metadata
    assert (last["page"], last["kind"], last["source"]) == (1, "body", str(tmp_path / "b" / "notes.md"))
    assert isinstance(last["language"], str)
    assert all(isinstance(value, str | int) for value in last.values()), "what every vector store takes"


def test_the_language_of_a_document_is_named(tmp_path):
    text = "Der Leuchtturm steht auf dem Felsen im Norden, und der Wärter zündet jeden Abend die Lampe an."
    (tmp_path / "turm.md").write_text(f"# Der Turm\n\n{text}\n", encoding="utf-8")
    (section,) = SectionLoader(tmp_path).load()
    assert section.metadata["language"] == "de"


def test_one_file_and_its_references():
    loaded = list(SectionLoader(str(PAPER)).lazy_load())
    assert [s.metadata["kind"] for s in loaded].count("reference") == 35
    text = "\n\n".join(s.page_content for s in loaded)
    assert text == read_document(PAPER).text()


def test_a_file_is_read_when_its_turn_comes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"This is {name}.")
    sections_of = SectionLoader(tmp_path).lazy_load()
    assert next(sections_of).page_content == "This is a."
    (tmp_path / "b.txt").write_text("Changed since.")
    assert next(sections_of).page_content == "Changed since."


def test_what_cannot_be_read_is_named_and_the_others_go_on(tmp_path):
    (tmp_path / "a.pdf").write_text("no PDF")
    (tmp_path / "b.txt").write_text("A text.")
    (tmp_path / "c.docx").write_bytes(b"")
    loader = SectionLoader(tmp_path)
    assert [s.page_content for s in loader.load()] == ["A text."]
    assert set(loader.left_out) == {"a.pdf", "c.docx"}


@pytest.mark.parametrize("name", ["nowhere", "nowhere.pdf"])
def test_nothing_there_is_a_users_error(name, tmp_path):
    with pytest.raises(UserError, match="no document"):
        SectionLoader(tmp_path / name).load()


def test_one_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "page.html").write_text("<p>Text.</p>")
    loader = SectionLoader(tmp_path / "page.html")
    assert loader.load() == [] and "pandoc" in loader.left_out["page.html"]


def test_a_splitter_of_ones_own_keeps_the_metadata_and_finds_the_page():
    (section,) = (s for s in SectionLoader(PAPER).load() if s.metadata["section"] == "2 Related Work")
    splitter = RecursiveCharacterTextSplitter(chunk_size=300, chunk_overlap=0, add_start_index=True)
    pieces = splitter.split_documents([section])
    assert {piece.metadata["section"] for piece in pieces} == {"2 Related Work"}
    assert {section.page_at(piece.metadata["start_index"]) for piece in pieces} == {1, 2}


def test_the_load_stage_splits_the_same_sections():
    document = read_document(PAPER)
    rows = split(document, Chunking())
    whole = {s.metadata["section"]: s.page_content for s in sections(document) if s.metadata["kind"] == "body"}
    for row in rows:
        assert row["kind"] == "reference" or row["text"] in whole[row["section"]]


def test_page_of_every_character():
    paragraphs = [Paragraph("abcdef", 2, "A", ((0, 2), (3, 3))), Paragraph("ghi", 5, "A")]
    (section,) = sections(Document("d", 5, paragraphs, []))
    assert [section.page_at(n) for n in (0, 2, 3, 5, 8, 10)] == [2, 2, 3, 3, 5, 5]
