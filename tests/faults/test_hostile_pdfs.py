"""PDFs, links and names of strangers: each is read or named in one line, within the limits, and nothing of it runs."""

import gzip
import json
import os
import pickle
import random
import zlib
from pathlib import Path

import psutil
import pytest

from llama_qna import UserError, cli
from llama_qna.documents.folder import document_hashes
from llama_qna.documents.read import read_document, read_folder
from llama_qna.project.recipe import ReadLimits
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_pdfs import FONT, PAGE, many_blanks, one_page, stream, write_pdf

PAPER = REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf"
ENCRYPTED = REPOSITORY / "tests" / "data" / "encrypted.pdf"
LIMITS = ReadLimits(seconds=20, memory_gb=0.6)
SHORT = ReadLimits(seconds=3, memory_gb=0.6)
HELLO = "BT /F1 10 Tf 40 800 Td (Hello there.) Tj ET"
CID = (
    "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /F "
    "/CIDSystemInfo << /Registry (A) /Ordering (B) /Supplement 0 >> >>"
)
by_extractor = pytest.mark.parametrize("extractor", ["pypdfium2", "pdfminer"])


def pages_in_a_tree(path, levels, width):
    """A tree of pages whose every node names the next one `width` times: width ** levels pages from a few lines."""
    first = f"<< /Type /Pages /Kids [6 0 R] /Count {min(width**levels, 2**31 - 1)} >>"
    page = PAGE.format(FONT).replace("/Contents 5 0 R", "/Contents 4 0 R")
    nodes = [f"<< /Type /Pages /Kids [{f'{n + 7} 0 R ' * width}] /Count 1 >>" for n in range(levels)]
    return write_pdf(path, "<< /Type /Catalog /Pages 2 0 R >>", first, "null", stream(HELLO), "null", *nodes, page)


def many_empty_pages(path, pages):
    kids = " ".join(f"{n} 0 R" for n in range(3, 3 + pages))
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>"
    tree = f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>"
    return write_pdf(path, "<< /Type /Catalog /Pages 2 0 R >>", tree, *[page] * pages)


def claims_pages(path):
    return one_page(path, stream(HELLO), count=2**31 - 1)


def endless_unicode_map(path):
    """A font whose map from codes to letters claims four thousand million of them."""
    cmap = "begincmap 1 begincodespacerange <00000000> <FFFFFFFF> endcodespacerange\n"
    cmap += "1 beginbfrange <00000000> <FFFFFFFF> <0041> endbfrange endcmap"
    font = "<< /Type /Font /Subtype /Type0 /BaseFont /F /Encoding /Identity-H /ToUnicode 7 0 R"
    font += " /DescendantFonts [8 0 R] >>"
    return one_page(path, stream(HELLO), font, stream(cmap), CID, resources="/Font << /F1 6 0 R >>")


def many_fonts(path):
    """Twenty thousand fonts, each used for one letter."""
    fonts = " ".join(f"/F{n} << /Type /Font /Subtype /Type1 /BaseFont /X{n} >>" for n in range(20_000))
    content = "BT 40 800 Td " + " ".join(f"/F{n} 10 Tf (a) Tj" for n in range(20_000)) + " ET"
    return one_page(path, stream(content), resources=f"/Font << {fonts} >>")


def font_that_is_a_bomb(path):
    """An embedded font of 2 GB, deflated to 2 MB."""
    font = "<< /Type /Font /Subtype /TrueType /BaseFont /B /FontDescriptor 7 0 R >>"
    descriptor = "<< /Type /FontDescriptor /FontName /B /Flags 32 /FontBBox [0 0 1 1] /FontFile2 8 0 R >>"
    file = stream(many_blanks(2048), "/Filter /FlateDecode /Length1 2147483648")
    return one_page(path, stream(HELLO), font, descriptor, file, resources="/Font << /F1 6 0 R >>")


def picture_that_is_a_bomb(path):
    """A picture of 60,000 by 60,000 points beside a line of text, ten times on the page."""
    picture = stream(
        zlib.compress(bytes(2**22), 9),
        "/Type /XObject /Subtype /Image /Width 60000 /Height 60000 /ColorSpace /DeviceRGB /BitsPerComponent 8 "
        "/Filter /FlateDecode",
    )
    return one_page(path, stream(HELLO + " /I Do" * 10), picture, resources=f"{FONT} /XObject << /I 6 0 R >>")


def stream_of_itself(path):
    """The length of a stream is the stream itself, and so is its filter."""
    return one_page(path, b"<< /Length 5 0 R /Filter 5 0 R >>\nstream\n" + HELLO.encode() + b"\nendstream")


def objects_that_refer_in_a_ring(path):
    return write_pdf(path, "<< /Type /Catalog /Pages 2 0 R >>", "3 0 R", "2 0 R")


def page_that_is_its_own_parent(path):
    page = PAGE.format(FONT).replace("/Parent 2 0 R", "/Parent 4 0 R")
    pages = "<< /Type /Pages /Kids [4 0 R] /Count 1 /Parent 2 0 R >>"
    return write_pdf(path, "<< /Type /Catalog /Pages 2 0 R >>", pages, "null", page, stream(HELLO))


def brackets_without_end(path):
    return one_page(path, stream("[" * 300_000 + HELLO))


def dictionaries_without_end(path):
    return write_pdf(path, "<< /Type /Catalog /Pages 2 0 R >>", "<< /Kids " * 100_000)


def tables_that_point_at_each_other(path):
    """Two cross-reference tables, each the other's predecessor."""
    body = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n"
    first = len(body)
    table = b"xref\n0 1\n0000000000 65535 f \ntrailer\n<< /Size 3 /Root 1 0 R /Prev %010d >>\n"
    second = first + len(table % 0)
    path.write_bytes(body + table % second + table % first + b"startxref\n%d\n%%%%EOF\n" % first)
    return path


BOMBS = [
    claims_pages, endless_unicode_map, many_fonts, font_that_is_a_bomb, picture_that_is_a_bomb, stream_of_itself,
    objects_that_refer_in_a_ring, page_that_is_its_own_parent, brackets_without_end, dictionaries_without_end,
    tables_that_point_at_each_other,
    lambda path: pages_in_a_tree(path, 9, 10), lambda path: pages_in_a_tree(path, 60, 1),
]  # fmt: skip
NAMES = [getattr(make, "__name__", "") for make in BOMBS[:-2]] + ["pages_in_a_wide_tree", "pages_in_a_deep_tree"]


CASES = [pytest.param(make, "pypdfium2", id=f"{name}-pypdfium2") for make, name in zip(BOMBS, NAMES, strict=True)] + [
    pytest.param(make, "pdfminer", id=f"{name}-pdfminer", marks=pytest.mark.slow)
    for make, name in zip(BOMBS, NAMES, strict=True)
]


@pytest.mark.parametrize("make, extractor", CASES)
def test_bombs_and_rings_are_read_or_named_within_the_limits(make, extractor, tmp_path):
    try:
        assert read_document(make(tmp_path / "odd.pdf"), extractor, SHORT).text().strip()
    except UserError as error:
        assert str(error).startswith("odd.pdf: ") and "\n" not in str(error)
    assert psutil.Process().children() == []


def test_ring_that_pdfminer_never_leaves_is_stopped_by_the_clock(tmp_path):
    with pytest.raises(UserError, match=r"^ring\.pdf: reading it takes more than 2 seconds"):
        read_document(objects_that_refer_in_a_ring(tmp_path / "ring.pdf"), "pdfminer", ReadLimits(seconds=2))


@pytest.mark.parametrize("make", [claims_pages, picture_that_is_a_bomb])
def test_text_beside_a_bomb_that_is_not_touched_is_read(make, tmp_path):
    assert read_document(make(tmp_path / "odd.pdf"), limits=LIMITS).text() == "Hello there."


@pytest.mark.parametrize("extractor", ["pypdfium2", pytest.param("pdfminer", marks=pytest.mark.slow)])
def test_ten_thousand_empty_pages(extractor, tmp_path):
    path = many_empty_pages(tmp_path / "empty.pdf", 10_000)
    with pytest.raises(UserError, match=r"^empty\.pdf: (no text on any of its 10000 pages|.*read_limits\.seconds)"):
        read_document(path, extractor, ReadLimits(seconds=20, memory_gb=0.6))


@by_extractor
def test_scripts_and_attachments_stay_where_they_are(extractor, tmp_path):
    """Neither run nor read: what opens with the document, with its pages, and what is attached."""
    mark = tmp_path / "code_has_run"
    actions = (
        f"/OpenAction << /S /JavaScript /JS (app.launchURL\\('file://{mark}'\\)) >> "
        f"/AA << /WC << /S /Launch /Win << /F (touch) /P ({mark}) >> /F (touch {mark}) >> >> "
        "/Names << /EmbeddedFiles << /Names [(secret words) 6 0 R] >> /JavaScript << /Names [(x) 7 0 R] >> >>"
    )
    pages = "<< /Type /Pages /Kids [4 0 R] /Count 1 >>"
    file = "<< /Type /Filespec /F (evil.exe) /EF << /F 8 0 R >> >>"
    path = write_pdf(
        tmp_path / "scripts.pdf", f"<< /Type /Catalog /Pages 2 0 R {actions} >>", pages, "null", PAGE.format(FONT),
        stream(HELLO), file, "<< /S /JavaScript /JS (secret words) >>", stream("secret words"),
    )  # fmt: skip
    assert read_document(path, extractor, LIMITS).text() == "Hello there."
    assert not mark.exists()


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.write_text, (self.mark, "ran")


def test_character_map_named_by_a_path_is_not_opened(tmp_path):
    """pdfminer.six before 20251230 unpickled the file that a font's encoding names (CVE-2025-64512)."""
    mark, file = tmp_path / "code_has_run", tmp_path / "evil.pickle.gz"
    file.write_bytes(gzip.compress(pickle.dumps(Bomb(mark))))
    name = str(tmp_path / "evil").replace("/", "#2F")
    font = f"<< /Type /Font /Subtype /Type0 /BaseFont /F /Encoding /{name} /DescendantFonts [7 0 R] >>"
    path = one_page(tmp_path / "odd.pdf", stream(HELLO), font, CID, resources="/Font << /F1 6 0 R >>")
    try:
        read_document(path, "pdfminer", LIMITS)
    except UserError as error:
        assert "\n" not in str(error)
    assert not mark.exists()


@by_extractor
def test_encrypted_and_wrong_extension_are_named(extractor, tmp_path):
    cases = {
        "locked.pdf": (ENCRYPTED.read_bytes(), "encrypted"),
        "zip.pdf": (b"PK\3\4" + bytes(3000), "not a PDF file"),
    }
    cases["page.pdf"] = (b"<html><body>Hello</body></html>", "not a PDF file")
    cases["paper.txt"] = (PAPER.read_bytes(), "not a text file")
    cases["paper.md"] = (gzip.compress(b"Hello there." * 99), "not a text file")
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"^{name}: .*{reason}"):
            read_document(tmp_path / name, extractor, LIMITS)


def damaged(content, seed):
    """A tenth of the damages each: cut off, bytes flipped, a piece left out, a piece doubled."""
    draw, data = random.Random(seed), bytearray(content)
    place, length = draw.randrange(len(data)), draw.randrange(1, 4000)
    match seed % 4:
        case 0:
            return bytes(data[:place])
        case 1:
            for _ in range(length % 200):
                data[draw.randrange(len(data))] = draw.randrange(256)
            return bytes(data)
        case 2:
            return bytes(data[:place] + data[place + length :])
        case _:
            return bytes(data[: place + length] + data[place:])


def read_damaged(extractor, seeds, folder):
    for seed in seeds:
        path = folder / f"damaged-{seed}.pdf"
        path.write_bytes(damaged(PAPER.read_bytes(), seed))
        try:
            assert read_document(path, extractor, ReadLimits(seconds=30, memory_gb=0.6)).paragraphs
        except UserError as error:
            assert str(error).startswith(f"{path.name}: ") and "\n" not in str(error)


@by_extractor
def test_damaged_paper_is_read_or_named(extractor, tmp_path):
    read_damaged(extractor, range(2 if extractor == "pdfminer" else 6), tmp_path)


@pytest.mark.slow
@by_extractor
def test_paper_damaged_in_many_ways_is_read_or_named(extractor, tmp_path):
    read_damaged(extractor, range(100, 120 if extractor == "pdfminer" else 200), tmp_path)


# --- names and links -------------------------------------------------------------------------------------------------

ODD_NAMES = [
    b"two\nlines.pdf", b"up..and..up...pdf", b"left out: good.pdf: fine.pdf", b"\xff\xfe.pdf",
    b"\x1b[2Jclear.pdf", b"a\\nb.pdf",
    b"-rf.pdf", b"$(touch x).pdf", b"'; DROP TABLE.pdf", b" .pdf", "né\u202efdp.pdf".encode(), b"x" * 240 + b".pdf",
]  # fmt: skip


def test_odd_names_are_one_line_each_in_messages_records_and_chunks(toy_root, make_pdf, capsys):
    folder = toy_root / "data" / "pdfs" / "paper"
    (folder / "wicketfold.pdf").unlink()
    for n, name in enumerate(ODD_NAMES):
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        make_pdf(path, [f"A good document, number {n}."]) if n % 2 else path.write_bytes(b"no PDF")
    assert cli.main(["load", "paper_135m"]) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("left out: ")]
    assert len(lines) == len(ODD_NAMES) // 2 and all(line.endswith(": not a PDF file") for line in lines)
    assert r"left out: two\nlines.pdf: not a PDF file" in lines and "\x1b" not in said
    reports = json.loads((toy_root / "runs/paper_135m/chunks/documents.json").read_text(encoding="utf-8"))
    assert len(reports["documents"]) == len(ODD_NAMES) // 2
    assert r"a\\nb" in reports["documents"], "another name than that of two lines"
    from llama_qna.project.data import read_chunks
    from llama_qna.project.variant import Variant

    assert set(read_chunks(Variant.load("paper_135m")).document) == set(reports["documents"])


@pytest.fixture
def corpus(tmp_path, make_pdf):
    folder = tmp_path / "corpus"
    folder.mkdir()
    make_pdf(folder / "good.pdf", ["A good document."])
    return folder


def test_links_out_of_the_folder_are_left_out_and_not_opened(corpus, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("The password is swordfish.\n")
    (corpus / "link.txt").symlink_to(secret)
    (corpus / "up.txt").symlink_to("../secret.txt")
    (corpus / "zero.txt").symlink_to("/dev/zero")
    (corpus / "nowhere.pdf").symlink_to("/no/such/file")
    (corpus / "round.pdf").symlink_to("round.pdf")
    (corpus / "inside.pdf").symlink_to("good.pdf")
    os.mkfifo(corpus / "pipe.txt")
    documents, left_out = read_folder(corpus, limits=LIMITS)
    assert [document.text() for document in documents] == ["A good document."]
    assert left_out.pop("inside.pdf") == "the same content as good.pdf, which is read"
    assert set(left_out) == {"link.txt", "up.txt", "zero.txt", "nowhere.pdf", "round.pdf", "pipe.txt"}
    out = "a link that leads out of the folder; copy the document into it"
    assert [left_out[name] for name in ("link.txt", "up.txt", "zero.txt", "nowhere.pdf")] == [out] * 4
    assert {name for name, digest in document_hashes(corpus).items() if digest == "unreadable"} == set(left_out)


def test_folder_that_is_itself_a_link_is_the_users_choice(corpus, tmp_path):
    (tmp_path / "link").symlink_to(corpus)
    assert len(read_folder(tmp_path / "link", limits=LIMITS)[0]) == 1


def test_file_larger_than_the_memory_is_not_opened(corpus):
    """A sparse file of 50 TB: to read it, or to hash it, would take days."""
    for name in ("huge.pdf", "huge.txt"):
        with open(corpus / name, "wb") as file:
            file.write(b"%PDF-1.4\n")
            try:
                file.truncate(50 * 2**40)
            except OSError:
                file.truncate(3 * 2**40)
    documents, left_out = read_folder(corpus, limits=LIMITS)
    assert len(documents) == 1
    assert all("GB, more than read_limits.memory_gb" in left_out[name] for name in ("huge.pdf", "huge.txt"))
    assert document_hashes(corpus)["huge.pdf"] == "unreadable"


def test_text_that_does_not_fit_the_memory_is_named(corpus):
    (corpus / "wide.txt").write_bytes(b"word " * 2**23)  # 40 MB, which become a list of words and more
    _, left_out = read_folder(corpus, limits=ReadLimits(seconds=30, memory_gb=0.4))
    assert "more than 0.4 GB of memory (read_limits.memory_gb in the recipe)" in left_out["wide.txt"]
