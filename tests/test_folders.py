"""Tests of llama_qna/documents/read.py on files that are no good, and on folders of all kinds of files."""

import os

import pypdfium2
import pytest
import typst

from llama_qna import UserError
from llama_qna.documents.folder import document_hashes, document_paths
from llama_qna.documents.read import first_document, read_document, read_folder
from llama_qna.project.recipe import ReadLimits
from llama_qna.project.variant import REPOSITORY

PAPER = REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf"
by_extractor = pytest.mark.parametrize("extractor", ["pypdfium2", "pdfminer"])

# --- files that are no good ------------------------------------------------------------------------------------------


def not_a_pdf(path):
    path.write_text("just a note")


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    content = PAPER.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def encrypted(path):
    path.write_bytes((REPOSITORY / "tests" / "data" / "encrypted.pdf").read_bytes())


def without_text(path):
    pdf = pypdfium2.PdfDocument.new()
    pdf.new_page(200, 200)
    pdf.save(path)


def missing(path):
    pass


@by_extractor
@pytest.mark.parametrize(
    "make, reason",
    [
        (not_a_pdf, "not a PDF"),
        (empty, "empty"),
        (truncated, "damaged"),
        (encrypted, "encrypted"),
        (without_text, "no text"),
        (missing, "no such file"),
    ],
)
def test_bad_file_is_named_with_its_reason(make, reason, extractor, tmp_path):
    make(tmp_path / "thesis.pdf")
    with pytest.raises(UserError, match=rf"^thesis\.pdf: .*{reason}"):
        read_document(tmp_path / "thesis.pdf", extractor)


@pytest.mark.parametrize("at", [0.1, 0.9, 0.999])
@by_extractor
def test_truncated_anywhere(at, extractor, tmp_path):
    content = PAPER.read_bytes()
    (tmp_path / "thesis.pdf").write_bytes(content[: int(len(content) * at)])
    with pytest.raises(UserError, match=r"^thesis\.pdf: the PDF is damaged"):
        read_document(tmp_path / "thesis.pdf", extractor)


def kid_is_no_page(content):
    return content.replace(b"/Kids [4 0 R 6 0 R]", b"/Kids [4 0 R 3 0 R]")


def size_is_no_box(content):
    return content.replace(b"[0 0 595 842]", b"1234567890123")


def octal_beyond_a_byte(content):
    return content.replace(b"Page one", b"Pa\\700ne")


@by_extractor
@pytest.mark.parametrize("damage", [kid_is_no_page, size_is_no_box, octal_beyond_a_byte])
def test_damage_inside_is_read_over_or_reported(damage, extractor, make_pdf, tmp_path):
    path = make_pdf(tmp_path / "thesis.pdf", ["Page one of it."], ["Page two of it."])
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    try:
        assert "of it." in read_document(path, extractor).text()
    except UserError as error:
        assert str(error).startswith("thesis.pdf: ")


def test_mark_of_a_pdf_after_some_rubbish_is_accepted(make_pdf, tmp_path):
    path = make_pdf(tmp_path / "small.pdf", ["Hello there."])
    path.write_bytes(b"\n\n" + path.read_bytes())
    assert read_document(path).text() == "Hello there."


@by_extractor
def test_font_that_does_not_say_what_its_letters_are_needs_ocr(extractor, tmp_path):
    """Such a PDF looks right and holds no text: its glyphs have numbers of their own."""
    readable = typst.compile(b"The ferry leaves at seven, and nobody may smoke on either of them.")
    (tmp_path / "thesis.pdf").write_bytes(readable.replace(b"/ToUnicode", b"/ToNothing"))
    with pytest.raises(UserError, match=r"^thesis\.pdf: .*needs OCR"):
        read_document(tmp_path / "thesis.pdf", extractor)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_folder_is_missing_or_without_documents(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "2405.11913.json").write_text("{}")
    for name in ("corpus", "nowhere"):
        with pytest.raises(UserError, match=rf"no document .* in .*/{name}/"):
            read_folder(tmp_path / name)


def test_one_bad_file_in_a_folder_is_left_out_with_its_reason(make_pdf, tmp_path):
    make_pdf(tmp_path / "a.pdf", ["Hello there."])
    empty(tmp_path / "b.pdf")
    documents, left_out = read_folder(tmp_path)
    assert [document.text() for document in documents] == ["Hello there."]
    assert left_out == {"b.pdf": "the file is empty"}


def test_folder_without_any_readable_document(tmp_path):
    empty(tmp_path / "b.pdf")
    with pytest.raises(UserError, match=r"^b\.pdf: the file is empty$"):
        read_folder(tmp_path)
    not_a_pdf(tmp_path / "a.pdf")
    expected = r"^none of the 2 documents can be read: a\.pdf: not a PDF file; b\.pdf: the file is empty$"
    with pytest.raises(UserError, match=expected):
        read_folder(tmp_path)


def test_folder_is_read_in_the_order_of_names(make_pdf, tmp_path):
    for name in ("b", "a", "c"):
        make_pdf(tmp_path / f"{name}.pdf", [f"This is {name}."])
    assert [document.name for document in read_folder(tmp_path)[0]] == ["a", "b", "c"]


def test_names_of_documents_are_unique(make_pdf, tmp_path):
    """A PDF keeps the name that it has alone, whatever stands beside it."""
    for file in ("a.pdf", "a.txt.pdf", "b.PDF"):
        make_pdf(tmp_path / file, [f"This is {file}."])
    for file in ("a.md", "a.txt", "c.TXT"):
        (tmp_path / file).write_text(f"This is {file}.")
    names = {document.text(): document.name for document in read_folder(tmp_path)[0]}
    assert names.pop("This is a.txt.") == "a.txt.txt"
    expected = {"a.pdf": "a", "a.txt.pdf": "a.txt", "b.PDF": "b", "a.md": "a.md", "c.TXT": "c"}
    assert names == {f"This is {file}.": name for file, name in expected.items()}


def test_documents_of_a_folder(make_pdf, tmp_path):
    make_pdf(tmp_path / "a.PDF", ["Hello there."])
    (tmp_path / "._a.pdf").write_bytes(b"what macOS leaves on other disks")
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "gone.pdf").symlink_to(tmp_path / "nowhere.pdf")
    (tmp_path / "picture.png").write_bytes(b"no document")
    assert [path.name for path in document_paths(tmp_path)] == ["a.PDF", "gone.pdf"]
    hashes = document_hashes(tmp_path)
    assert (len(hashes["a.PDF"]), hashes["gone.pdf"], hashes["picture.png"]) == (64, "unreadable", "not read")
    left_out = read_folder(tmp_path)[1]
    assert set(left_out) == {"gone.pdf", "picture.png"}
    assert left_out["gone.pdf"] == "no such file" and "OCR" in left_out["picture.png"]


def test_subfolders_are_read_and_their_names_say_so(make_pdf, tmp_path):
    corpus = tmp_path / "corpus"
    (corpus / "b" / "deep" / "er").mkdir(parents=True)
    (corpus / ".git").mkdir()
    (corpus / ".git" / "notes.md").write_text("Hidden.")
    make_pdf(corpus / "a.pdf", ["On top."])
    make_pdf(corpus / "b" / "a.pdf", ["Below."])
    (corpus / "b" / "deep" / "er" / "notes.md").write_text("Deep below.")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text("Secret.")
    (corpus / "c").symlink_to(tmp_path / "outside")
    (corpus / "b" / "round").symlink_to(corpus)
    documents, left_out = read_folder(corpus)
    expected = {"a": "On top.", "b/a": "Below.", "b/deep/er/notes": "Deep below."}
    assert {document.name: document.text() for document in documents} == expected
    assert [document.report["file"] for document in documents] == ["a.pdf", "b/a.pdf", "b/deep/er/notes.md"]
    assert set(left_out) == {"c", "b/round"} and all("link" in reason for reason in left_out.values())


def test_a_folder_that_may_not_be_read_is_named(make_pdf, tmp_path, monkeypatch):
    """Whoever runs the tests may read everything, so that the refusal is a made one."""
    (tmp_path / "closed").mkdir()
    make_pdf(tmp_path / "a.pdf", ["On top."])
    scan = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert read_folder(tmp_path)[1] == {"closed": "a folder that cannot be read"}


@pytest.mark.parametrize(
    "name, advice",
    [
        ("notes.docx", "pandoc"),
        ("book.EPUB", "pandoc"),
        ("page.html", "pandoc"),
        ("table.xlsx", "PDF"),
        ("scan.jpeg", "OCR"),
        ("all.zip", "unpack"),
        ("what.xyz", "Markdown"),
        ("README", "Markdown"),
    ],
)
def test_file_of_another_kind_is_named_with_what_to_do(name, advice, tmp_path):
    (tmp_path / "good.txt").write_text("A good text.")
    (tmp_path / name).write_bytes(b"whatever")
    (document,), left_out = read_folder(tmp_path)
    assert document.name == "good" and set(left_out) == {name} and advice in left_out[name]
    (tmp_path / "good.txt").unlink()
    with pytest.raises(UserError, match=rf"no document .*{name}: .*{advice}"):
        read_folder(tmp_path)


def test_what_systems_and_the_fetcher_leave_beside_is_not_named(make_pdf, tmp_path):
    make_pdf(tmp_path / "2405.11913.pdf", ["A paper."])
    for name in ("2405.11913.json", ".DS_Store", "~$notes.docx", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"{}")
    assert read_folder(tmp_path)[1] == {}


def test_doubles_are_one_document(make_pdf, tmp_path):
    """Copies under another name, in another folder, of another kind; a bad file twice is bad twice."""
    make_pdf(tmp_path / "b.pdf", ["The same text."])
    (tmp_path / "a").mkdir()
    for copy in ("a/b.pdf", "c.pdf"):
        (tmp_path / copy).write_bytes((tmp_path / "b.pdf").read_bytes())
    (tmp_path / "d.md").write_text("The same text.")
    (tmp_path / "d.txt").write_text("The same  text.\n")
    for name in ("x.pdf", "y.pdf"):
        not_a_pdf(tmp_path / name)
    documents, left_out = read_folder(tmp_path)
    assert [document.name for document in documents] == ["a/b"]
    assert set(left_out) == {"b.pdf", "c.pdf", "d.md", "d.txt", "x.pdf", "y.pdf"}
    assert all("the same" in left_out[name] and "a/b.pdf" in left_out[name] for name in ("b.pdf", "c.pdf", "d.md"))
    assert left_out["x.pdf"] == left_out["y.pdf"] == "not a PDF file"


def test_a_text_beside_the_same_bytes_that_call_themselves_a_pdf_is_read(tmp_path):
    for name in ("notes.pdf", "notes.txt"):
        (tmp_path / name).write_text("The lamp is green.")
    documents, left_out = read_folder(tmp_path)
    assert [document.text() for document in documents] == ["The lamp is green."]
    assert left_out == {"notes.pdf": "not a PDF file"}


def test_the_first_document_is_the_first_that_can_be_read_and_a_pdf_where_there_is_one(tmp_path, make_pdf):
    (tmp_path / "a.pdf").write_text("no PDF")
    with pytest.raises(UserError, match="none of the documents in .* can be read"):
        first_document(tmp_path)
    (tmp_path / "a.md").write_text("A text.")
    path, document = first_document(tmp_path)
    assert (path, document.text()) == (tmp_path / "a.md", "A text.")
    (tmp_path / "b").mkdir()
    make_pdf(tmp_path / "b" / "c.pdf", ["Hello there."])
    path, document = first_document(tmp_path)
    assert (path, document.name) == (tmp_path / "b" / "c.pdf", "b/c")
    with pytest.raises(UserError, match="can be read"):
        first_document(tmp_path, limits=ReadLimits(seconds=0.001))
