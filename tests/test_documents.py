"""Tests of llama_qna/documents/read.py: on the shipped PDFs, on made pages, and on files that are no good."""

import re
from collections import Counter
from functools import cache

import pypdfium2
import pytest
import typst

from llama_qna import UserError
from llama_qna.documents.clean import HYPHEN, clean
from llama_qna.documents.folder import document_hashes, document_paths
from llama_qna.documents.read import read_document, read_folder
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_pdfs import typed

DATA = REPOSITORY / "data"
PDFS = sorted(DATA.glob("pdfs/*/*.pdf"))
PAPER = DATA / "pdfs" / "paper" / "wicketfold.pdf"
EXTRACTORS = ["pypdfium2", "pdfminer"]
by_extractor = pytest.mark.parametrize("extractor", EXTRACTORS)
by_pdf = pytest.mark.parametrize("pdf", PDFS, ids=lambda path: path.stem)
SLOWLY = PDFS[:2]  # the paper and a book: pdfminer takes seconds for each
by_reading = pytest.mark.parametrize(
    "pdf, extractor",
    [(pdf, "pypdfium2") for pdf in PDFS] + [(pdf, "pdfminer") for pdf in SLOWLY],
    ids=lambda value: getattr(value, "stem", value),
)


@cache
def read(pdf, extractor):
    return read_document(pdf, extractor)


def source_sentences(pdf):
    """The sentences of a PDF's Typst source that are plain text, as the PDF prints them."""
    source = DATA / "sources" / pdf.parent.name / f"{pdf.stem}.typ"
    paragraphs = [line for line in source.read_text(encoding="utf-8").splitlines() if re.match(r"[A-Z]", line)]
    sentences = [sentence for text in paragraphs for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)]
    plain = [sentence for sentence in sentences if not re.search(r"[$#*_\\@`<~/\[\]]|--|\.\.\.", sentence)]
    return [re.sub(r'"([^"]*)"', r"“\1”", sentence.replace("'", "’")) for sentence in plain]


# --- the shipped PDFs ------------------------------------------------------------------------------------------------


def test_there_are_five_shipped_pdfs():
    assert [pdf.stem for pdf in PDFS] == [
        "wicketfold", "higher_dimensions", "impossible_and_hard", "mind_and_brain", "next_hundred_years"
    ]  # fmt: skip


@by_reading
def test_sentences_of_the_source_stand_unbroken(pdf, extractor):
    """What is missing are sentences that a figure or a footnote parts at a page's end."""
    text = read(pdf, extractor).text()
    sentences = source_sentences(pdf)
    found = [sentence for sentence in sentences if sentence in text]
    assert len(sentences) > 120
    assert len(found) >= 0.97 * len(sentences)


@by_extractor
@pytest.mark.parametrize(
    "sentence",
    [
        # words broken at a line's end, joined again
        "the device stops at the first classifier that is sure enough of its answer [6, 7].",
        "folded codebooks store most weights as 4-bit indices into three shared tables that fit into the registers of "
        "a microcontroller.",
        "SqueezeNet [5] reduced parameters with narrow layers of 1×1 filters.",
        "There is no wicket after S1, for reasons given in Section 7. Figure 1 shows the arrangement.",
        # compounds broken at their own hyphen, kept
        "On Hedgerow-31 the mean number of multiply-accumulate operations (MACs) falls from 56.0 million to 23.6 "
        "million per image",
        # over the end of a page: hyphen, page number and running header lie in between
        "Shallow-Deep Networks [9] showed that a deep network often reaches the right answer at an intermediate layer",
    ],
)
def test_sentence_with_a_word_broken_at_a_line_end(sentence, extractor):
    assert sentence in read(PAPER, extractor).text()


@by_extractor
def test_running_header_and_page_numbers_of_the_paper_are_gone(extractor):
    document = read(PAPER, extractor)
    assert "Wicketfold: Early-Exit Networks on Small Devices" not in document.text()
    assert "Original document of the Llama-2 QnA repository" not in document.text()
    # what stands on both sides of a page's end
    assert "Attention Is All You Need." in document.text()
    assert not [p.text[-60:] for p in document.paragraphs if re.search(r"[a-z.)] \d$", p.text)]
    assert document.report["repairs"]["running headers, footers, page numbers"] >= 8 + 8


@by_reading
def test_running_header_of_every_page_is_gone(pdf, extractor):
    """Headers are what the raw pages have as their first line more than once; a title page may say it once more."""
    with pypdfium2.PdfDocument(pdf) as raw:
        first = Counter(page.get_textpage().get_text_bounded().splitlines()[0].strip() for page in raw)
    headers = [line for line, count in first.items() if count > 1]
    assert headers
    for header in headers:
        assert read(pdf, extractor).text().count(header) <= 1


@by_pdf
def test_pages_are_counted(pdf):
    with pypdfium2.PdfDocument(pdf) as raw:
        count = len(raw)
    for extractor in EXTRACTORS if pdf in SLOWLY else EXTRACTORS[:1]:
        document = read(pdf, extractor)
        pages = [paragraph.page for paragraph in document.paragraphs]
        assert document.pages == count
        pages += [page for _, _, page in document.references]
        assert pages == sorted(pages)
        assert pages[0] == 1 and pages[-1] in (count - 1, count), "the last page may hold only the end of a paragraph"


@by_extractor
def test_references_are_complete_and_in_order(extractor):
    references = read(PAPER, extractor).references
    assert [number for number, _, _ in references] == list(range(1, 36))
    assert references[0][1] == (
        "Y. LeCun, J. S. Denker, and S. A. Solla. Optimal Brain Damage. In Advances in Neural Information Processing "
        "Systems, 1989."
    )
    assert references[-1][1] == (
        "T.-Y. Lin, M. Maire, S. Belongie, J. Hays, P. Perona, D. Ramanan, P. Dollár, and C. L. Zitnick. Microsoft "
        "COCO: Common Objects in Context. In European Conference on Computer Vision, pages 740–755, 2014."
    )
    assert [references[n][2] for n in (0, 10, 34)] == [7, 7, 8]


@by_extractor
def test_every_reference_is_as_in_the_source(extractor):
    source = (DATA / "sources" / "paper" / "wicketfold.typ").read_text(encoding="utf-8")
    entries = [entry.replace("\\", "") for entry in re.findall(r"^\[\d+\] (.*)$", source, re.M)]
    assert [entry for _, entry, _ in read(PAPER, extractor).references] == entries


@by_extractor
def test_sections_of_the_paper_with_their_pages(extractor):
    first = {}
    for paragraph in read(PAPER, extractor).paragraphs:
        first.setdefault(paragraph.section, paragraph.page)
    expected = {"Abstract": 1, "1 Introduction": 1, "2 Related Work": 1, "3.1 Backbone and wickets": 2}
    expected |= {"3.2 The hinge score": 3, "5.3 Baselines": 5, "8.3 Field test": 6, "10 Conclusion": 7}
    assert {section: first.get(section) for section in expected} == expected


def test_sections_of_the_paper_are_those_of_its_source():
    source = (DATA / "sources" / "paper" / "wicketfold.typ").read_text(encoding="utf-8")
    titles = re.findall(r"^={1,2} (.*)$", source, re.M)
    found = [section for section in dict.fromkeys(p.section for p in read(PAPER, "pypdfium2").paragraphs) if section]
    bare = [re.sub(r"^[\d.]+ ", "", section) for section in found]
    # a chapter that opens with a section of its own has no text
    without_text = ["Method", "Experimental Setup", "Results", "Energy and Deployment"]
    assert bare == ["Abstract", *(title for title in titles if title not in without_text), "Acknowledgements"]


@pytest.mark.parametrize("pdf", PDFS[1:], ids=lambda path: path.stem)
def test_sections_of_a_book_are_those_of_its_source(pdf):
    source = (DATA / "sources" / pdf.parent.name / f"{pdf.stem}.typ").read_text(encoding="utf-8")
    titles = [title.replace("'", "’") for title in re.findall(r"^== (.*)$", source, re.M)]
    sections = dict.fromkeys(p.section.replace("'", "’") for p in read(pdf, "pypdfium2").paragraphs if p.section)
    assert [re.sub(r"^[\d.]+ ", "", section) for section in sections] == titles


@pytest.mark.parametrize("pdf", SLOWLY, ids=lambda path: path.stem)
def test_both_extractors_give_the_same_words(pdf):
    """About 99% of the words; the rest are exponents (10 12 or 1012) and the letters of formulas."""
    one, other = (Counter(re.findall(r"\w+", read(pdf, extractor).text())) for extractor in EXTRACTORS)
    assert (one & other).total() > 0.985 * max(one.total(), other.total())


@by_extractor
def test_letters_of_formulas_are_plain(extractor):
    text = read(PAPER, extractor).text()
    assert not re.findall("[\U0001d400-\U0001d7ff]", text)
    assert "Let pk be the calibrated class probabilities of wicket k" in text
    assert "The input stops at wicket k if hk is at least the threshold θk" in text, "ℎ is U+210E, not of the block"


@by_reading
def test_no_ligature_no_control_character_is_left(pdf, extractor):
    text = read(pdf, extractor).text()
    assert not re.findall("[ﬀ-ﬆ\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\ue000-\uf8ff\ufffe]", text)


# --- made pages ------------------------------------------------------------------------------------------------------


def text_of(*pages, headings=None):
    return clean("made", typed(*pages), headings or {}).text().replace("\n\n", " ")


def test_header_and_footer_with_changing_numbers_are_dropped():
    bodies = ["Alpha opens it.", "Beta goes on.", "Gamma nears the end.", "Delta closes it."]
    pages = [f"My Journal, page {n}\n{body}\nVol. 3, no. {n}" for n, body in enumerate(bodies, start=1)]
    document = clean("made", typed(*pages), {})
    assert document.text().split() == "Alpha opens it. Beta goes on. Gamma nears the end. Delta closes it.".split()
    assert document.report["repairs"]["running headers, footers, page numbers"] == 8


@pytest.mark.parametrize("number", ["7", "- 7 -", "– 12 –", "ix", "1024"])
def test_bare_page_number_at_an_edge_is_dropped(number):
    assert text_of(f"The body stays.\n{number}") == "The body stays."
    assert text_of(f"{number}\nThe body stays.") == "The body stays."


def test_number_inside_a_page_stays():
    assert "42" in text_of("The number is\n42\nas everybody knows.")


def test_line_that_stands_on_one_page_only_stays():
    assert text_of("A Title\nThe body stays.", "Another page.") == "A Title The body stays. Another page."


def test_dotted_lines_of_a_table_of_contents_are_dropped():
    assert text_of("1 Intro . . . . . . . 3\n2 Method .......... 5\nReal text.") == "Real text."


def test_broken_word_is_joined():
    assert text_of(f"We change the architec{HYPHEN}ture of it.") == "We change the architecture of it."
    assert text_of(f"All classi{HYPHEN}\nfiers agree.") == "All classifiers agree."
    assert text_of("All classi-\nfiers agree.") == "All classifiers agree."


def test_compound_that_the_document_spells_with_its_hyphen_is_kept():
    assert "a well-known house" in text_of(f"It is a well{HYPHEN}known house.\nA well-known one it is.")
    assert "LarchNet-5" in text_of(f"It is called LarchNet{HYPHEN}5 by us.")
    assert "Hardware-Aware" in text_of(f"This is Hardware{HYPHEN}Aware work.")


def test_repairs_are_counted():
    pages = typed(f"The ﬁrst of\x01 two archi{HYPHEN}tects. A well{HYPHEN}Known one, 𝑘.")
    repairs = clean("made", pages, {}).report["repairs"]
    assert repairs["ligatures"] == 1
    assert repairs["formula letters"] == 1
    assert repairs["control and private-use characters dropped"] == 1
    assert (repairs["line-end hyphens joined"], repairs["line-end hyphens kept"]) == (1, 1)


def test_ligatures_become_letters():
    assert text_of("The ﬁnal ﬂow is eﬃcient, baﬄing and oﬀ.") == "The final flow is efficient, baffling and off."


def test_formula_letters_become_plain():
    assert text_of("Let 𝑝 and 𝛽 and 𝐑 and ℎ be given.") == "Let p and β and R and h be given."


def test_headings_by_their_look_and_references():
    page = "1 Introduction\nSome text.\n2.1 The Method\nMore.\nReferences\n[1] A. One. First.\n[2] B. Two. A\nlong one"
    document = clean("made", typed(page), {})
    assert [(p.section, p.text) for p in document.paragraphs] == [
        ("1 Introduction", "Some text."),
        ("2.1 The Method", "More."),
    ]
    assert document.references == [(1, "A. One. First.", 1), (2, "B. Two. A long one", 1)]


def test_outline_decides_what_a_heading_is():
    document = clean("made", typed("Beginning\nText one.\n1 Looks Like It\nText two."), {"Beginning": 0})
    assert {paragraph.section for paragraph in document.paragraphs} == {"Beginning"}
    assert document.text().split() == "Text one. 1 Looks Like It Text two.".split()


def test_heading_of_the_outline_that_is_also_the_running_header_is_found_where_it_stands():
    pages = ["Beginnings\nText one.", "Beginnings\nText two.", "Beginnings\nText three."]
    document = clean("made", typed(*pages), {"Beginnings": 0})
    assert [(p.section, p.text) for p in document.paragraphs] == [
        ("Beginnings", "Text one."), ("Beginnings", "Text two."), ("Beginnings", "Text three.")
    ]  # fmt: skip


def test_words_of_the_page_come_through(make_pdf, tmp_path):
    path = make_pdf(
        tmp_path / "small.pdf", ["A head", "Hello there.", "1"], ["A head", "Good bye.", "2"], ["A head", "3"]
    )
    for extractor in EXTRACTORS:
        assert read_document(path, extractor).text().split() == "Hello there. Good bye.".split()


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
