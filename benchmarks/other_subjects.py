"""From which share of a question's words on a sentence is about it: on the dev questions, for docs/experiments.md.

python -m benchmarks.other_subjects            the table from benchmarks/results/other_subjects.json, into the page
python -m benchmarks.other_subjects --measure  that file first (some minutes on two cores)
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from llama_qna.answering.reader import DOUBT, ReadingAnswerer
from llama_qna.evaluation.reading import CORPORA
from llama_qna.models.likelihood import doubts_of
from llama_qna.project import marked, provenance
from llama_qna.project.data import CHUNK_COLUMNS, read_table
from llama_qna.project.files import read_json, write_json
from llama_qna.project.gold import read_gold, read_unanswerable
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.text.tables import markdown

RESULTS = Path(__file__).parent / "results" / "other_subjects.json"
PAGE = REPOSITORY / "docs" / "experiments.md"
SHARES = (0.0, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
KINDS = {
    "answerable": "answerable",
    "unanswerable": "unanswerable, of the same subject",
    "other": "about the other corpus",
}


def refusals(answerer: ReadingAnswerer, questions: list[str]) -> list[list[bool]]:
    """For each question whether it is refused, from each of `SHARES` on."""
    found = []
    for question, ranked in zip(questions, answerer._ranked(questions), strict=True):
        if not ranked:
            found.append([True] * len(SHARES))
            continue
        prompt_ids = answerer.prompt_ids(question, answerer.sentences.passage(ranked[0]).text)
        (doubt,) = doubts_of(answerer.model(), answerer.tokenizer, [prompt_ids])
        share = answerer.sentences.share(question, ranked[0])
        found.append([doubt >= DOUBT or share < needed for needed in SHARES])
    return found


def measure() -> None:
    reader, chunks, questions = Reader.load("reader_135m"), {}, {}
    for corpus in CORPORA:
        data = REPOSITORY / "data" / corpus
        chunks[corpus] = read_table(data / "chunks.csv", corpus, CHUNK_COLUMNS, numbers=("page", "tokens"))
        tables = (read_gold(data / "gold.csv", chunks[corpus]), read_unanswerable(data / "unanswerable.csv"))
        questions[corpus] = [list(table[table.fold == "dev"].Question) for table in tables]
    found = {kind: [] for kind in KINDS}
    for corpus in CORPORA:
        answerer, (known, unknown) = ReadingAnswerer.of(chunks[corpus], reader), questions[corpus]
        others = [question for name, (gold, _) in questions.items() if name != corpus for question in gold]
        for kind, asked in zip(KINDS, (known, unknown, others), strict=True):
            found[kind] += refusals(answerer, asked)
    about = {"date": datetime.now(UTC).date().isoformat(), "git": provenance.git_state()}
    about |= {"machine": provenance.machine(), "versions": provenance.versions()}
    refused = {kind: [fmean(row[n] for row in rows) for n in range(len(SHARES))] for kind, rows in found.items()}
    counts = {kind: len(rows) for kind, rows in found.items()}
    write_json(RESULTS, about | {"shares": SHARES, "questions": counts, "refused": refused})


def table(content: dict) -> str:
    """The share of the questions of each kind that is refused, in Markdown."""
    head = ["dev questions", *(f"share below {share:g}" if share else "doubt alone" for share in content["shares"])]
    rows = [
        [f"{name} ({content['questions'][kind]})", *(f"{share:.0%}" for share in content["refused"][kind])]
        for kind, name in KINDS.items()
    ]
    return markdown(head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measure()
    marked.write(PAGE, other_subjects=table(read_json(RESULTS)))
