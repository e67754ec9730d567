"""Plain text and Markdown files are documents too: their sections, paragraphs, pages and encodings."""

import pytest

from llama_qna import UserError
from llama_qna.documents.read import read_document


@pytest.fixture
def read(tmp_path):
    """Write a file and read it as a document."""

    def read(content, name="notes.md"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_document(path)

    return read


def pieces(document):
    return [(paragraph.section, paragraph.text) for paragraph in document.paragraphs]


# --- Markdown --------------------------------------------------------------------------------------------------------


def test_headings_of_both_kinds_begin_sections(read):
    text = "Before.\n\n# One #\n\nFirst.\n\n### One *b*\nSecond.\n\nTwo\n===\n\nThird.\n\nTwo\nand more\n---\nFourth.\n"
    expected = [
        ("", "Before."),
        ("One", "First."),
        ("One b", "Second."),
        ("Two", "Third."),
        ("Two and more", "Fourth."),
    ]
    assert pieces(read(text)) == expected


@pytest.mark.parametrize("fence", ["```", "~~~~"])
def test_no_heading_begins_inside_code(fence, read):
    text = f"# One\n\n{fence}sh\n# a comment\n\nrm x\n{fence}\n\n    # indented\n\n#hashtag is no heading.\n"
    assert {section for section, _ in pieces(read(text))} == {"One"}
    assert [text for _, text in pieces(read(text))] == ["# a comment rm x", "# indented", "#hashtag is no heading."]


def test_rule_front_matter_and_html_are_no_text(read):
    text = "---\ntitle: A note\n---\n\n# One\n\nFirst.\n\n---\n\n<!-- hidden -->\n\nSecond<br>part.\n"
    assert pieces(read(text)) == [("One", "First."), ("One", "Secondpart.")]


def test_markup_inside_a_line_is_dropped(read):
    text = "A **bold** word, `code`, a [link](http://example.org) and ![a picture](x.png).\n"
    assert pieces(read(text)) == [("", "A bold word, code, a link and a picture.")]


def test_items_of_a_list_are_paragraphs(read):
    text = "- One\n- Two\n  goes on\n\n1. Three\n"
    assert [text for _, text in pieces(read(text))] == ["One", "Two goes on", "Three"]


def test_report(read):
    report = read("# One\n\nA ﬁne\x01 line.\n\n# Two\n\nMore.\n").report
    assert (report["pages"], report["sections"], report["needs_ocr"]) == (1, 2, [])
    assert (report["characters"], report["characters_per_page"]) == (33, 33)
    assert report["repairs"]["ligatures"] == 1
    assert report["repairs"]["control and private-use characters dropped"] == 1


# --- plain text ------------------------------------------------------------------------------------------------------


def test_wrapped_lines_are_joined_and_blank_lines_part_paragraphs(read):
    document = read("A short sentence.\nThe same\n  paragraph.\n \n\n# Another one.\n", "plain.txt")
    assert pieces(document) == [("", "A short sentence. The same paragraph."), ("", "# Another one.")]


def test_hyphens_at_line_ends(read):
    document = read("The archi-\ntecture of a well-\nknown house.\n", "plain.txt")
    assert document.text() == "The architecture of a well-known house."


def test_form_feeds_part_pages(read):
    document = read("One.\n\f\n\fThree.\n\f", "plain.txt")
    assert [(paragraph.text, paragraph.page) for paragraph in document.paragraphs] == [("One.", 1), ("Three.", 3)]
    assert (document.pages, document.report["needs_ocr"]) == (3, []), "a blank page of text hides nothing"


# --- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding, line_end, read):
    content = f"Müller’s café{line_end}costs 5 €.{line_end}{line_end}Really.".encode(encoding)
    assert [text for _, text in pieces(read(content, "plain.TXT"))] == ["Müller’s café costs 5 €.", "Really."]


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not a text file"),
        (bytes(range(1, 256)) * 4, "not a text file"),
        ("text".encode("utf-16"), "not a text file"),
        (b"\x01\x02\x03\x04 abc", "not a text file"),
        (b"", "the file is empty"),
        (b" \n\n\f \n", "no text in the file"),
    ],
)
@pytest.mark.parametrize("name", ["plain.txt", "notes.md"])
def test_file_that_is_no_text(content, reason, name, read):
    with pytest.raises(UserError, match=rf"^{name}: .*{reason}"):
        read(content, name)


@pytest.mark.parametrize("content", ["# Only a heading\n", "<!-- nothing -->\n"])
def test_markdown_without_text(content, read):
    with pytest.raises(UserError, match=r"^notes\.md: there is no text in the file"):
        read(content)
