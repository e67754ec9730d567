"""Tests of llama_qna/documents/chunks.py, on the shipped paper and on small made documents."""

import json
import re
import shutil
import unicodedata

import pypdfium2
import pytest

from llama_qna.documents.chunks import load, split
from llama_qna.documents.clean import Document, Paragraph
from llama_qna.documents.heldout import heldout_sections, parted
from llama_qna.documents.read import read_document
from llama_qna.models.base import EMBEDDED, load_tokenizer
from llama_qna.project.data import CHUNK_COLUMNS, read_chunks
from llama_qna.project.recipe import Chunking, Heldout
from llama_qna.project.stage import valid_record
from llama_qna.project.variant import REPOSITORY, Variant

PAPER = REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(EMBEDDED)


@pytest.fixture(scope="module")
def document():
    return read_document(PAPER)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "runs"


@pytest.fixture
def table(toy_root, kept):
    """The chunks of the paper, which is loaded once and copied into the root of each test."""
    variant, runs = Variant.load("paper_135m"), toy_root / "runs"
    if kept.exists():
        shutil.copytree(kept, runs)
    else:
        load(variant)
        shutil.copytree(runs, kept)
    return read_chunks(variant)


def common(left, right):
    """The longest end of one text that is the beginning of the other."""
    return next(right[:n] for n in range(min(len(left), len(right)), -1, -1) if left.endswith(right[:n]))


@pytest.mark.parametrize("size, overlap", [(1024, 100), (400, 0), (200, 60)])
def test_no_body_chunk_is_longer_than_chunk_size(size, overlap, document):
    rows = split(document, Chunking(chunk_size=size, chunk_overlap=overlap))
    lengths = [len(row["text"]) for row in rows if row["kind"] == "body"]
    assert max(lengths) <= size
    assert max(lengths) > size / 2, "sections are filled up, not cut small"


def test_overlap_is_inside_a_section_only(document):
    """At the border of two sections nothing is said twice; inside them what is said twice is at most the overlap."""
    rows = [r for r in split(document, Chunking(chunk_size=400, chunk_overlap=100)) if r["kind"] == "body"]
    inside, border = [], []
    for left, right in zip(rows, rows[1:], strict=False):
        (inside if left["section"] == right["section"] else border).append(common(left["text"], right["text"]))
    assert len(border) > 20 and max(map(len, border)) < 3
    assert max(map(len, inside)) <= 100
    assert sum(len(text) > 20 for text in inside) > len(inside) / 3


def test_chinese_is_cut_at_its_full_stops():
    text = "灯塔建于一九六二年，高三十二米。" * 20
    rows = split(Document("d", 1, [Paragraph(text, 1, "")], []), Chunking(chunk_size=100, chunk_overlap=20))
    assert len(rows) > 3 and all(row["text"].endswith("。") for row in rows)


def test_sections_with_the_same_text_are_apart():
    paragraphs = [Paragraph("One two three four.", 1, "A"), Paragraph("Five six seven eight.", 1, "B")]
    rows = split(Document("d", 1, paragraphs, []), Chunking(chunk_size=1024, chunk_overlap=100))
    assert [(row["section"], row["text"]) for row in rows] == [(p.section, p.text) for p in paragraphs]


def test_no_word_is_lost(document):
    rows = split(document, Chunking(chunk_size=300, chunk_overlap=0))
    body = " ".join(row["text"] for row in rows if row["kind"] == "body")
    assert body.split() == " ".join(paragraph.text for paragraph in document.paragraphs).split()


def test_page_of_a_chunk_is_where_its_first_character_stands(document):
    for row in split(document, Chunking(chunk_size=1024, chunk_overlap=100)):
        if row["kind"] == "body":
            start = row["text"].split("\n\n")[0]
            found = [p for p in document.paragraphs if p.section == row["section"] and start in p.text]
            pages = [max(place for place in p.pages if place[0] <= p.text.index(start))[1] for p in found]
            assert row["page"] in pages


def test_text_of_a_chunk_stands_on_its_page(table):
    """Against the raw pages, letters only; formulas and tables stand there in another order."""

    def letters(text):
        return re.sub(r"\W", "", unicodedata.normalize("NFKC", text))

    with pypdfium2.PdfDocument(PAPER) as pdf:
        pages = [letters(page.get_textpage().get_text_bounded()) for page in pdf]
    begins = [(chunk.page, letters(" ".join(chunk.text.split()[:4]))) for chunk in table.itertuples()]
    assert sum(words not in pages[page - 1] for page, words in begins) <= 0.04 * len(begins)


def test_pages_follow_across_paragraphs():
    paragraphs = [Paragraph("alpha " * 20, 1, "S"), Paragraph("beta " * 20, 2, "S"), Paragraph("gamma " * 20, 3, "S")]
    rows = split(Document("d", 3, paragraphs, []), Chunking(chunk_size=130, chunk_overlap=0))
    assert [(row["text"].split()[0], row["page"]) for row in rows] == [("alpha", 1), ("beta", 2), ("gamma", 3)]


def test_page_of_a_chunk_that_begins_inside_a_paragraph():
    paragraph = Paragraph("alpha " * 20 + "beta " * 20, 1, "S", ((0, 1), (120, 2)))
    rows = split(Document("d", 2, [paragraph], []), Chunking(chunk_size=60, chunk_overlap=0))
    assert [(row["text"].split()[0], row["page"]) for row in rows] == [("alpha", 1)] * 2 + [("beta", 2)] * 2


def test_references_are_chunks_of_their_own(table):
    references = table[table.kind == "reference"]
    assert [re.match(r"\[(\d+)\] ", text).group(1) for text in references.text] == [str(n) for n in range(1, 36)]
    assert set(references.section) == {"References"}
    assert references.iloc[0].text.startswith("[1] Y. LeCun")


def test_chunk_ids_are_unique_and_name_the_document(table, toy_root, make_pdf):
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "another.pdf", ["Another document stands here."])
    both = load(Variant.load("paper_135m"))
    assert both.chunk_id.is_unique
    assert all(chunk.chunk_id.startswith(f"{chunk.document}-") for chunk in both.itertuples())
    assert set(both.document) == {"another", "wicketfold"}
    assert set(both.chunk_id) > set(table.chunk_id), "a document beside does not rename the chunks"


def test_token_counts_are_the_tokenizers(table, tokenizer):
    assert list(table.columns) == CHUNK_COLUMNS
    expected = [len(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids) for text in table.text]
    assert list(table.tokens) == expected


def test_second_load_is_skipped(table, toy_root, capsys):
    file = toy_root / "runs" / "paper_135m" / "chunks" / "chunks.csv"
    before = file.stat().st_mtime_ns
    again = load(Variant.load("paper_135m"))
    assert "nothing has changed" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before
    assert again.equals(table)


def test_changed_pdf_is_read_again(table, toy_root, make_pdf, capsys):
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf", ["Only this sentence is left of it."])
    again = load(Variant.load("paper_135m"))
    assert list(again.text) == ["Only this sentence is left of it."]
    assert "nothing has changed" not in capsys.readouterr().out


def test_text_file_beside_is_read_and_read_again_when_it_changes(table, toy_root, capsys):
    note = toy_root / "data" / "pdfs" / "paper" / "note.TXT"
    for line in ("A note.", "Another note."):
        note.write_text(line)
        again = load(Variant.load("paper_135m"))
        assert list(again[again.document == "note"].text) == [line]
        assert len(again) == len(table) + 1
    assert "nothing has changed" not in capsys.readouterr().out


def test_changed_limits_are_another_recipe(table, edit_recipe, capsys):
    edit_recipe("chunking:", "read_limits: {seconds: 60}\nchunking:")
    assert load(Variant.load("paper_135m")).equals(table)
    assert "nothing has changed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "old, new", [("chunk_size: 1024", "chunk_size: 512"), ("extractor: pypdfium2", "extractor: pdfminer")]
)
def test_changed_recipe_is_done_again(old, new, table, edit_recipe, capsys):
    edit_recipe(old, new)
    assert not load(Variant.load("paper_135m")).equals(table)
    assert "nothing has changed" not in capsys.readouterr().out


def test_recipe_of_a_later_stage_does_not_matter(table, edit_recipe, capsys):
    edit_recipe("learning_rate: 0.001", "learning_rate: 0.002")
    load(Variant.load("paper_135m"))
    assert "nothing has changed" in capsys.readouterr().out


def test_control_token_in_a_document_is_plain_text(toy_root, make_pdf, tokenizer):
    line = "A turn begins with <|im_start|>system and ends with <|im_end|> there."
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf", [line])
    table = load(Variant.load("paper_135m"))
    assert list(table.text) == [line]
    as_control = len(tokenizer(line)["input_ids"])
    pieces = [len(tokenizer(piece)["input_ids"]) for piece in re.split(r"(?<=\|>)|(?=<\|)", line)]
    assert table.tokens[0] > as_control, "spelled out, a control token is several tokens"
    assert table.tokens[0] > sum(pieces)


def test_text_that_looks_like_no_value_stays_text(toy_root, make_pdf):
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf", ["NA"])
    assert list(load(Variant.load("paper_135m")).text) == ["NA"]


def test_files_of_the_stage(table, toy_root, document):
    folder = toy_root / "runs" / "paper_135m" / "chunks"
    names = {"chunks.csv", "documents.json", "heldout.txt", "run.json", "text.txt"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "text.txt").read_text(encoding="utf-8") == document.text()
    assert (folder / "heldout.txt").read_text(encoding="utf-8") == ""
    results = {"documents": 1, "chunks": len(table), "tokens": int(table.tokens.sum())}
    assert valid_record(folder, "load")["results"] == results | {"heldout_sections": 0, "left_out": 0}


# --- held-out sections -----------------------------------------------------------------------------------------------


def sections(sizes, name="made"):
    """A document with a section of so many characters for each title; "" is what stands before the first heading."""
    paragraphs = [Paragraph("x" * size, 1, title) for title, size in sizes.items()]
    return Document(name, 1, paragraphs, [(1, "An entry.", 1)])


def held(document, fraction, seed=0):
    return heldout_sections(document, Heldout(fraction=fraction, seed=seed))


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_held_out_characters_are_about_the_fraction(fraction, document):
    total = sum(len(paragraph.text) for paragraph in document.paragraphs)
    for seed in range(5):
        _, text = parted(document, held(document, fraction, seed))
        assert abs(len(text) / total - fraction) < 0.06


def test_choice_depends_on_document_and_seed_alone(document):
    choice = held(document, 0.2)
    assert choice == held(document, 0.2)
    titles = list(dict.fromkeys(paragraph.section for paragraph in document.paragraphs))
    assert choice == [title for title in titles if title in choice], "in the order of the document"
    assert len({tuple(held(document, 0.2, seed)) for seed in range(10)}) > 5


def test_nothing_is_held_out_unless_asked_for(document):
    assert held(document, 0.0) == []


def test_at_least_one_section_is_held_out_and_never_all():
    assert len(held(sections({"A": 500, "B": 500}), 0.01)) == 1
    assert len(held(sections({"A": 500, "B": 500}), 0.99)) == 1
    assert len(held(sections({"A": 10, "B": 10, "C": 10}), 0.99)) == 2
    assert held(sections({"A": 900, "B": 100}), 0.01) == ["B"], "the smallest overshoots least"


def test_one_section_front_matter_and_references_are_not_held_out():
    assert held(sections({"": 100, "A": 500}), 0.5) == []
    for seed in range(5):
        assert held(sections({"": 500, "A": 100, "References": 900, "B": 100}), 0.9, seed) in (["A"], ["B"])


def test_section_whose_title_comes_twice_is_held_out_in_both_places():
    paragraphs = [Paragraph(text, 1, text[0]) for text in ("A first.", "B first.", "A second.", "C.", "B second.")]
    document = Document("d", 1, paragraphs, [])
    rows = split(document, Chunking(), ["A"])
    assert [(row["text"], row["split"]) for row in rows] == [
        ("A first.", "heldout"),
        ("B first.", "train"),
        ("A second.", "heldout"),
        ("C.", "train"),
        ("B second.", "train"),
    ]
    assert parted(document, ["A"]) == ("B first.\n\nC.\n\nB second.", "A first.\n\nA second.")


@pytest.mark.parametrize("size, overlap", [(1024, 100), (200, 90)])
def test_no_held_out_text_stands_in_a_training_chunk(size, overlap, document):
    choice = held(document, 0.3)
    rows = split(document, Chunking(chunk_size=size, chunk_overlap=overlap), choice)
    train = [row["text"] for row in rows if row["split"] == "train"]
    training, text = parted(document, choice)
    windows = {text[n : n + 50] for n in range(len(text) - 49)}
    assert len(windows) > 5000 and len(train) > 30
    for piece in [*train, training]:
        assert not windows & {piece[n : n + 50] for n in range(len(piece) - 49)}


def test_holding_out_changes_the_marks_of_chunks_and_nothing_else(table, toy_root, document, edit_recipe):
    edit_recipe("chunking:", "heldout: {fraction: 0.2, seed: 7}\nchunking:")
    marked = load(Variant.load("paper_135m"))
    assert marked.drop(columns="split").equals(table.drop(columns="split"))
    choice = held(document, 0.2, 7)
    assert set(marked[marked.split == "heldout"].section) == set(choice)
    assert not set(marked[marked.split == "train"].section) & set(choice)
    folder = toy_root / "runs" / "paper_135m" / "chunks"
    texts = tuple((folder / name).read_text(encoding="utf-8") for name in ("text.txt", "heldout.txt"))
    assert texts == parted(document, choice)
    assert texts[0].endswith(f"[35] {document.references[-1][1]}")
    assert json.loads((folder / "documents.json").read_text())["documents"]["wicketfold"]["heldout"] == choice
    assert valid_record(folder, "load")["results"]["heldout_sections"] == len(choice)


def test_document_beside_does_not_change_what_is_held_out(toy_root, make_pdf, edit_recipe):
    edit_recipe("chunking:", "heldout: {fraction: 0.2}\nchunking:")
    alone = load(Variant.load("paper_135m"))
    (toy_root / "data" / "pdfs" / "paper" / "another.md").write_text("# A\n\nOne part.\n\n# B\n\nThe other part.\n")
    both = load(Variant.load("paper_135m"))
    assert both[both.document == "wicketfold"].reset_index(drop=True).equals(alone)
    assert sorted(both[both.document == "another"].split) == ["heldout", "train"]
