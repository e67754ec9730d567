"""How long `load` takes for four books of 300 pages each, part by part: `python -m benchmarks.loading`.

The books are made here, of frequent English words in a random order, with running headers, numbered sections and broken
words, so that nothing has to be downloaded.
"""

import os
import random
import tempfile
import time
from itertools import accumulate
from pathlib import Path

from reportlab.pdfgen.canvas import Canvas

from llama_qna.documents import chunks, heldout, read
from llama_qna.models.base import EMBEDDED, load_tokenizer
from llama_qna.project.recipe import Chunking, Heldout
from llama_qna.text.words import dictionary

BOOKS, PAGES, LINES, WIDTH = 4, 300, 48, 80  # lines a page, characters a line


def book(path: Path, seed: int) -> None:
    draw = random.Random(seed)
    frequency = {word: count for word, count in dictionary("en").items() if word.isalpha() and word.isascii()}
    words, weights = list(frequency), list(accumulate(frequency.values()))
    stream = iter(lambda: draw.choices(words, cum_weights=weights)[0], None)
    canvas = Canvas(str(path))
    for page in range(PAGES):
        text = canvas.beginText(60, 800)
        text.setFont("Helvetica", 9)
        text.textLine(f"A Book of Words {seed}")
        if page % 5 == 0:
            text.textLine(f"{page // 5 + 1} {next(stream).title()} and {next(stream)}")
        rest = ""
        for _ in range(LINES):
            line = rest
            while len(line) < WIDTH:
                word = next(stream)
                line += (" " if line else "") + (word + "." if draw.random() < 0.07 else word)
            cut = WIDTH if line[WIDTH - 2 : WIDTH + 2].isalpha() else len(line)
            rest = line[cut:]
            text.textLine(line[:cut] + ("-" if rest else ""))
        text.textLine(str(page + 1))
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(BOOKS):
            book(folder / f"book{seed}.pdf", seed)
        seconds = {}

        def timed(part, work):
            start, clock = sum(os.times()[:4]), time.perf_counter()
            result = work()
            seconds[part] = (sum(os.times()[:4]) - start, time.perf_counter() - clock)
            return result

        documents, _ = timed("read and clean, in child processes", lambda: read.read_folder(folder))
        kept, titles = timed("hold out", lambda: heldout.hold_out(documents, Heldout(fraction=0.15, seed=42)))
        rows = timed("split", lambda: [row for d in kept for row in chunks.split(d, Chunking(), titles[d.name])])
        tokenizer = timed("load the tokenizer", lambda: load_tokenizer(EMBEDDED))
        texts = [row["text"] for row in rows]
        timed("count tokens", lambda: tokenizer(texts, add_special_tokens=False, split_special_tokens=True))
        print(f"{BOOKS * PAGES} pages, {len(rows)} chunks, {sum(map(len, texts)):,} characters")
        whole = tuple(map(sum, zip(*seconds.values(), strict=True)))
        print("processor    clock, seconds")
        for part, (processor, clock) in [*seconds.items(), ("in all", whole)]:
            print(f"{processor:9.2f} {clock:8.2f}  {part}")


if __name__ == "__main__":
    main()
