"""Plain text and Markdown files are documents too: their sections, paragraphs, pages and encodings."""

import pytest

from llama_qna import UserError
from llama_qna.documents.extract import extract
from llama_qna.documents.text_files import decode


@pytest.fixture
def read(tmp_path):
    """Write a file and read it as a document."""

    def read(content, name="notes.md"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return extract(path, "pypdfium2")

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


def test_rule_front_matter_and_comments_are_no_text(read):
    text = "---\ntitle: A note\n---\n\n# One\n\nFirst.\n\n---\n\n<!-- hidden -->\n\nSecond<br>part.\n"
    assert pieces(read(text)) == [("One", "First."), ("One", "Second part.")]


@pytest.mark.parametrize("after", ["\n", "# One\n\n", "The first.\n"])
def test_rule_on_top_is_no_front_matter(after, read):
    texts = [text for _, text in pieces(read(f"---\n{after}\nThe second.\n\n---\n\nThe third.\n"))]
    assert texts[-2:] == ["The second.", "The third."] and ("The first." in after) == ("The first." in texts)


def test_list_of_many_levels_keeps_its_last(read):
    text = "".join(f"{'  ' * n}- Level {n}\n" for n in range(30))
    assert [text for _, text in pieces(read(text))] == [f"Level {n}" for n in range(30)]


def test_markup_inside_a_line_is_dropped(read):
    text = "A **bold** word, `code`, a [link](http://example.org) and ![a picture](x.png).\n"
    assert pieces(read(text)) == [("", "A bold word, code, a link and a picture.")]


# --- HTML inside Markdown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "html, expected",
    [
        ('<div align="center">\nThe pump.\n</div>', ["The pump."]),
        ("<details><summary>More</summary>\nThe seal.\n</details>", ["More", "The seal."]),
        ("<p>One</p><p>Two &amp; three</p>", ["One", "Two & three"]),
        ("<ul><li>One<li>Two</ul>", ["One", "Two"]),
        ("<pre>a\nb</pre>", ["a b"]),
        ("<script>f()</script>\n\n<style>p {}</style>\n\n<p>Seen.</p>", ["Seen."]),
        ("<div><p>Never closed", ["Never closed"]),
        ('<img src="x.png" alt="A map">', ["A map"]),
    ],
)
def test_text_of_html_blocks_is_kept(html, expected, read):
    document = read(f"# Pumps\n\n{html}\n\nThe end.\n" if "Never" not in html else f"# Pumps\n\n{html}\n")
    texts = [text for _, text in pieces(document)]
    assert texts == expected + ["The end."] * ("Never" not in html)


@pytest.mark.parametrize(
    "table",
    [
        "| Pump | Flow |\n|---|---|\n| KP-1 | 27 |\n",
        "<table><tr><th>Pump</th><th>Flow</th></tr><tr><td>KP-1</td><td>27</td></tr></table>",
        "<table>\n<thead>\n<tr>\n<th>Pump</th>\n<th>Flow</th>\n</tr>\n</thead>\n<tr><td>KP-1<td>27</table>",
    ],
)
def test_row_of_a_table_is_a_paragraph_with_its_cells_apart(table, read):
    assert [text for _, text in pieces(read(f"# Pumps\n\n{table}\n"))] == ["Pump | Flow", "KP-1 | 27"]


def test_empty_cells_keep_the_others_in_their_columns(read):
    assert read("|a|b|c|\n|-|-|-|\n||x||\n|||\n").text() == "a | b | c\n\n| x |"


@pytest.mark.parametrize("tag", ["<br>", "<br/>", "<br />", "<BR>", "\\\n"])
def test_a_break_parts_words(tag, read):
    assert read(f"The line ends here{tag}and goes on.\n").text() == "The line ends here and goes on."
    assert "grey old" in read(f"| {'grey' + tag.strip(chr(10)) + 'old'} |\n|---|\n| x |\n").text() or tag == "\\\n"


@pytest.mark.parametrize(
    "markdown, text",
    [
        ("10<sup>9</sup> tonnes", "10⁹ tonnes"),
        ("10<sup>−9</sup> m<sup>2</sup>", "10⁻⁹ m²"),
        ("CO<sub>2</sub> and H<sub>2</sub>O", "CO₂ and H₂O"),
        ("the 4<sup>th</sup> of May", "the 4th of May"),
        ("2<sup>0.5</sup>", "2^0.5"),
        ("x<sub>a1</sub>", "x_a1"),
        ("10<sup>*9*</sup>", "10⁹"),
        ("10<sup>9 is never closed", "109 is never closed"),
    ],
)
def test_exponents_stay_exponents(markdown, text, read):
    assert read(markdown + "\n").text() == text
    assert read(f"<div>{markdown.replace('*', '')}</div>\n").text() == text


def test_what_is_no_tag_of_html_is_text(read):
    assert read("A vector<int> of 1 < 2 and a List<String>.\n").text() == "A vector<int> of 1 < 2 and a List<String>."


def test_heading_in_html_begins_a_section(read):
    assert pieces(read('<h1 align="center">Pumps</h1>\n\nThe KP-1.\n')) == [("Pumps", "The KP-1.")]


def test_heading_in_html_that_is_never_closed_is_one_line(read):
    text = "<h2>Pumps\n\nThe KP-1.\n\nThe KP-2.\n\n## Seals\n\nThe seal.\n\n<h2>Taps\n\nThe tap.\n"
    expected = [("Pumps", "The KP-1."), ("Pumps", "The KP-2."), ("Seals", "The seal."), ("Taps", "The tap.")]
    assert pieces(read(text)) == expected


@pytest.mark.parametrize("tag", ["<script>", "<style>", "<template>", '<SCRIPT src="x.js">'])
def test_a_tag_that_is_only_spoken_of_hides_nothing(tag, read):
    text = f"<script>f()</script>\n\nPut {tag} into the head.\n\nThe pump starts."
    assert [text for _, text in pieces(read(text))] == [f"Put {tag} into the head.", "The pump starts."]


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


SAMPLES = {
    "cp1252": "Die Brücke über den Fluß wurde im Jahre 1923 gebaut. Für Fußgänger gibt es einen eigenen Weg.",
    "latin-1": "El señor Núñez vivió aquí muchos años, según decía la gente del barrio.",
    "cp1250": "Most przez rzekę zbudowano w roku 1923. Jeżdżą po nim ciężkie pociągi.",
    "cp1251": "Мост через реку был построен в 1923 году. По нему ходят тяжёлые поезда.",
    "koi8-r": "Мост через реку был построен в 1923 году. По нему ходят тяжёлые поезда.",
    "cp1253": "Η γέφυρα χτίστηκε το 1923. Βαριά τρένα περνούν από πάνω της.",
    "shift_jis": "橋は一九二三年に建てられました。重い列車が通ります。",
    "gb18030": "这座桥建于1923年。重型火车从桥上通过。",
    "big5": "這座橋建於1923年。重型火車從橋上通過。",
    "euc-kr": "다리는 1923년에 건설되었다. 무거운 기차가 다닌다.",
    "utf-16": "The bridge was built in 1923. Über die Brücke fahren Züge.",
    "utf-16-le": "The bridge was built in 1923 and carries heavy trains.",
    "utf-32": "The bridge was built in 1923.",
}


@pytest.mark.parametrize("encoding", SAMPLES)
@pytest.mark.parametrize("times", [1, 40])
def test_encoding_is_recognised(encoding, times):
    text = "\n\n".join([SAMPLES[encoding]] * times)
    assert decode(text.encode(encoding))[0] == text


def test_encoding_is_in_the_report(read):
    assert read(SAMPLES["cp1251"].encode("cp1251"), "plain.txt").report["encoding"] == "cp1251"


@pytest.mark.parametrize("stray", [b"\x81", b"\xff", b"\xe9", b"\x92", b"\xc3"])
@pytest.mark.parametrize(
    "text",
    [*(text for text in SAMPLES.values() if " " in text), "Nothing but plain words stand here, line by line. " * 30],
)
def test_one_stray_byte_is_one_stray_character(stray, text):
    content = text.encode()
    middle = content.find(b" ", 5)
    found, _ = decode(content[:middle] + stray + content[middle:])
    whole = content[:middle].decode()
    assert found[: len(whole)] == whole and found[len(whole) + 1 :] == text[len(whole) :]


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not a text file"),
        (bytes(range(1, 256)) * 4, "not a text file"),
        (b"\x01\x02\x03\x04 abc", "not a text file"),
        (b"", "the file is empty"),
        (b" \n\n\f \n", "no text in the file"),
    ],
)
@pytest.mark.parametrize("name", ["plain.txt", "notes.md"])
def test_file_that_is_no_text(content, reason, name, read):
    with pytest.raises(UserError, match=reason):
        read(content, name)


@pytest.mark.parametrize("content", ["# Only a heading\n", "<!-- nothing -->\n"])
def test_markdown_without_text(content, read):
    with pytest.raises(UserError, match="there is no text in the file"):
        read(content)
