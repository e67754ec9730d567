"""Tests of llama_qna/chunks.py, on the shipped paper and on small made documents."""

import re
import unicodedata

import pypdfium2
import pytest

from llama_qna import chunks, models, records
from llama_qna.cleaning import Document, Paragraph
from llama_qna.documents import read_pdf
from llama_qna.variants import REPOSITORY, Chunking, Variant

PAPER = REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf"


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(models.EMBEDDED)


@pytest.fixture(scope="module")
def document():
    return read_pdf(PAPER)


@pytest.fixture
def table(toy_root):
    return chunks.load(Variant.load("paper_135m"))


def common(left, right):
    """The longest end of one text that is the beginning of the other."""
    return next(right[:n] for n in range(min(len(left), len(right)), -1, -1) if left.endswith(right[:n]))


@pytest.mark.parametrize("size, overlap", [(1024, 100), (400, 0), (200, 60)])
def test_no_body_chunk_is_longer_than_chunk_size(size, overlap, document):
    rows = chunks.split(document, Chunking(chunk_size=size, chunk_overlap=overlap))
    lengths = [len(row["text"]) for row in rows if row["kind"] == "body"]
    assert max(lengths) <= size
    assert max(lengths) > size / 2, "sections are filled up, not cut small"


def test_overlap_is_inside_a_section_only(document):
    """At the border of two sections nothing is said twice; inside them what is said twice is at most the overlap."""
    rows = [r for r in chunks.split(document, Chunking(chunk_size=400, chunk_overlap=100)) if r["kind"] == "body"]
    inside, border = [], []
    for left, right in zip(rows, rows[1:], strict=False):
        (inside if left["section"] == right["section"] else border).append(common(left["text"], right["text"]))
    assert len(border) > 20 and max(map(len, border)) < 3
    assert max(map(len, inside)) <= 100
    assert sum(len(text) > 20 for text in inside) > len(inside) / 3


def test_sections_with_the_same_text_are_apart():
    paragraphs = [Paragraph("One two three four.", 1, "A"), Paragraph("Five six seven eight.", 1, "B")]
    rows = chunks.split(Document("d", 1, paragraphs, []), Chunking(chunk_size=1024, chunk_overlap=100))
    assert [(row["section"], row["text"]) for row in rows] == [(p.section, p.text) for p in paragraphs]


def test_no_word_is_lost(document):
    rows = chunks.split(document, Chunking(chunk_size=300, chunk_overlap=0))
    body = " ".join(row["text"] for row in rows if row["kind"] == "body")
    assert body.split() == " ".join(paragraph.text for paragraph in document.paragraphs).split()


def test_page_of_a_chunk_is_where_its_first_paragraph_begins(document):
    for row in chunks.split(document, Chunking(chunk_size=1024, chunk_overlap=100)):
        if row["kind"] == "body":
            start = row["text"].split("\n\n")[0]
            pages = [p.page for p in document.paragraphs if p.section == row["section"] and start in p.text]
            assert row["page"] in pages


def test_text_of_a_chunk_stands_on_its_page(table):
    """Against the raw pages, letters only. A chunk that goes on with a paragraph of the page before may be late."""

    def letters(text):
        return re.sub(r"\W", "", unicodedata.normalize("NFKC", text))

    with pypdfium2.PdfDocument(PAPER) as pdf:
        pages = [letters(page.get_textpage().get_text_bounded()) for page in pdf] + [""]
    begins = [(chunk.page, letters(" ".join(chunk.text.split()[:6]))) for chunk in table.itertuples()]
    late = [(page, words) for page, words in begins if words not in pages[page - 1]]
    assert all(words in pages[page] for page, words in late), late
    assert len(late) <= 2, late


def test_pages_follow_across_paragraphs():
    paragraphs = [Paragraph("alpha " * 20, 1, "S"), Paragraph("beta " * 20, 2, "S"), Paragraph("gamma " * 20, 3, "S")]
    rows = chunks.split(Document("d", 3, paragraphs, []), Chunking(chunk_size=130, chunk_overlap=0))
    assert [(row["text"].split()[0], row["page"]) for row in rows] == [("alpha", 1), ("beta", 2), ("gamma", 3)]


def test_references_are_chunks_of_their_own(table):
    references = table[table.kind == "reference"]
    assert [re.match(r"\[(\d+)\] ", text).group(1) for text in references.text] == [str(n) for n in range(1, 36)]
    assert set(references.section) == {"References"}
    assert references.iloc[0].text.startswith("[1] Y. LeCun")


def test_chunk_ids_are_unique_and_name_the_document(table, toy_root, make_pdf):
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "another.pdf", ["Another document stands here."])
    both = chunks.load(Variant.load("paper_135m"))
    assert both.chunk_id.is_unique
    assert all(chunk.chunk_id.startswith(f"{chunk.document}-") for chunk in both.itertuples())
    assert set(both.document) == {"another", "wicketfold"}
    assert set(both.chunk_id) > set(table.chunk_id), "a document beside does not rename the chunks"


def test_token_counts_are_the_tokenizers(table, tokenizer):
    assert list(table.columns) == chunks.COLUMNS
    expected = [len(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids) for text in table.text]
    assert list(table.tokens) == expected


def test_second_load_is_skipped(table, toy_root, capsys):
    file = toy_root / "runs" / "paper_135m" / "chunks" / "chunks.csv"
    before = file.stat().st_mtime_ns
    again = chunks.load(Variant.load("paper_135m"))
    assert "nothing has changed" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before
    assert again.equals(table)


def test_changed_pdf_is_read_again(table, toy_root, make_pdf, capsys):
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf", ["Only this sentence is left of it."])
    again = chunks.load(Variant.load("paper_135m"))
    assert list(again.text) == ["Only this sentence is left of it."]
    assert "nothing has changed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "old, new", [("chunk_size: 1024", "chunk_size: 512"), ("extractor: pypdfium2", "extractor: pdfminer")]
)
def test_changed_recipe_is_done_again(old, new, table, edit_recipe, capsys):
    edit_recipe(old, new)
    assert not chunks.load(Variant.load("paper_135m")).equals(table)
    assert "nothing has changed" not in capsys.readouterr().out


def test_recipe_of_a_later_stage_does_not_matter(table, edit_recipe, capsys):
    edit_recipe("learning_rate: 0.001", "learning_rate: 0.002")
    chunks.load(Variant.load("paper_135m"))
    assert "nothing has changed" in capsys.readouterr().out


def test_control_token_in_a_document_is_plain_text(toy_root, make_pdf, tokenizer):
    line = "A turn begins with <|im_start|>system and ends with <|im_end|> there."
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf", [line])
    table = chunks.load(Variant.load("paper_135m"))
    assert list(table.text) == [line]
    as_control = len(tokenizer(line)["input_ids"])
    pieces = [len(tokenizer(piece)["input_ids"]) for piece in re.split(r"(?<=\|>)|(?=<\|)", line)]
    assert table.tokens[0] > as_control, "spelled out, a control token is several tokens"
    assert table.tokens[0] > sum(pieces)


def test_text_that_looks_like_no_value_stays_text(toy_root, make_pdf):
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf", ["NA"])
    assert list(chunks.load(Variant.load("paper_135m")).text) == ["NA"]


def test_files_of_the_stage(table, toy_root, document):
    folder = toy_root / "runs" / "paper_135m" / "chunks"
    assert {path.name for path in folder.iterdir()} == {"chunks.csv", "documents.json", "run.json", "text.txt"}
    assert (folder / "text.txt").read_text(encoding="utf-8") == document.text()
    record = records.valid_record(folder, "load")
    assert record["results"] == {"documents": 1, "chunks": len(table), "tokens": int(table.tokens.sum())}
