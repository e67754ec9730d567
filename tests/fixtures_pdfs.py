"""PDFs written by hand, object by object, with whatever is wrong in them; pages that need no PDF; typeset ones."""

import zlib

import pytest
import typst

from llama_qna.documents.clean import clean
from llama_qna.documents.extract import extract
from llama_qna.documents.runs import Page, Run

PAGE = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources << {} >> >>"
FONT = "/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"


def write_pdf(path, *objects):
    """A PDF with these objects, numbered from 1; the first is the catalog."""
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        content = content if isinstance(content, bytes) else content.encode()
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    tail = (
        f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(places) + 1} /Root 1 0 R >>\n"
    )
    path.write_bytes(body + tail.encode() + b"startxref\n%d\n%%%%EOF\n" % len(body))
    return path


def stream(content, entries=""):
    content = content if isinstance(content, bytes) else content.encode()
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries.encode(), len(content), content)


def many_blanks(megabytes):
    """Flate data: one compressed block again and again. A reader that came to its end would miss the checksum."""
    packer = zlib.compressobj(9)
    head, block = (packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return head + block * (megabytes - 1) + packer.flush()


def one_page(path, contents, *others, resources=FONT, kids="4 0 R", count=1):
    pages = f"<< /Type /Pages /Kids [{kids}] /Count {count} >>"
    return write_pdf(
        path, "<< /Type /Catalog /Pages 2 0 R >>", pages, "null", PAGE.format(resources), contents, *others
    )


def typed(*texts, size=10, step=14):
    """Pages as a reader gives them, of one size and face: each line of a text is a run, a blank line leaves room."""
    pages = []
    for text in texts:
        lines = [(n, line) for n, line in enumerate(text.split("\n")) if line.strip()]
        runs = [
            Run(line, 50, 50 + 0.5 * size * len(line), 800 - n * step, size, low=800 - n * step, order=order)
            for order, (n, line) in enumerate(lines)
        ]
        pages.append(Page(595, 842, runs))
    return pages


def cleaned(*pages, headings=None):
    """The document that cleaning makes of such pages."""
    return clean("made", typed(*pages), headings or {})


def text_of(*pages):
    """Its text in one line."""
    return cleaned(*pages).text().replace("\n\n", " ")


@pytest.fixture(name="typeset")
def typeset_fixture(tmp_path):
    """Typeset a document and read it back: `typeset(source, extractor)`."""

    def read(source, extractor="pypdfium2"):
        path = tmp_path / "typeset.pdf"
        path.write_bytes(typst.compile(source.encode()))
        return extract(path, extractor)

    return read
