"""How many of a question's words make a sentence speak about it: on the dev questions, for docs/experiments.md.

python -m benchmarks.other_subjects            the table from benchmarks/results/other_subjects.json, into the page
python -m benchmarks.other_subjects --measure  that file first (some minutes on two cores)
"""

import argparse
from pathlib import Path
from statistics import fmean

from llama_qna.answering.reader import DOUBT, READ, ReadingAnswerer
from llama_qna.evaluation.reading import CORPORA, published
from llama_qna.project import marked, provenance
from llama_qna.project.files import read_json, write_json
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
BM25 = "about the other corpus, by BM25's best score alone, refusing as many of the answerable"


def dev_questions() -> dict[str, dict[str, list[str]]]:
    """The dev questions of each kind, by the corpus that is asked."""
    gold, unanswerable = {}, {}
    for corpus in CORPORA:
        _, *tables = published(corpus)
        gold[corpus], unanswerable[corpus] = (list(table[table.fold == "dev"].Question) for table in tables)
    others = {corpus: [q for name in CORPORA if name != corpus for q in gold[name]] for corpus in CORPORA}
    parts = (gold, unanswerable, others)
    return {corpus: dict(zip(KINDS, (part[corpus] for part in parts), strict=True)) for corpus in CORPORA}


def refusals(answerer: ReadingAnswerer, questions: list[str]) -> list[list[bool]]:
    """For each question whether it is refused, from each of `SHARES` on."""
    ranked = answerer.ranked(questions, [answerer.sentences.find(question, READ) for question in questions])
    found = []
    for question, sentences in zip(questions, ranked, strict=True):
        best, doubt = sentences[0] if sentences else (None, 0.0)
        share = answerer.sentences.share(question, best) if sentences else 0.0
        found.append([doubt >= DOUBT or share < needed for needed in SHARES])
    return found


def best_scores(kind: str) -> list[float]:
    """BM25's best score for each dev question of a kind: what costs nothing."""
    asked = dev_questions()
    found = []
    for corpus in CORPORA:
        sentences = ReadingAnswerer.of(published(corpus)[0], Reader.load("reader_135m")).sentences
        found += [float(sentences.scores(question).max()) for question in asked[corpus][kind]]
    return found


def by_bm25(refused: list[float]) -> list[float]:
    """The share of other questions below the best score below which these shares of the answerable ones lie."""
    known, others = sorted(best_scores("answerable")), best_scores("other")
    limits = [known[round(share * len(known))] for share in refused]
    return [fmean(score < limit for score in others) for limit in limits]


def measure() -> None:
    reader, asked = Reader.load("reader_135m"), dev_questions()
    found = {kind: [] for kind in KINDS}
    for corpus in CORPORA:
        answerer = ReadingAnswerer.of(published(corpus)[0], reader)
        for kind, questions in asked[corpus].items():
            found[kind] += refusals(answerer, questions)
    refused = {kind: [fmean(row[n] for row in rows) for n in range(len(SHARES))] for kind, rows in found.items()}
    content = {"shares": SHARES, "questions": {kind: len(rows) for kind, rows in found.items()}, "refused": refused}
    write_json(RESULTS, provenance.measured() | content | {"bm25": by_bm25(refused["answerable"])})


def table(content: dict) -> str:
    """The share of the questions of each kind that is refused, in Markdown."""
    head = ["dev questions", *(f"share below {share:g}" if share else "doubt alone" for share in content["shares"])]
    named = {f"{name} ({content['questions'][kind]})": content["refused"][kind] for kind, name in KINDS.items()}
    named[BM25] = content["bm25"]
    return markdown(head, [[name, *(f"{share:.0%}" for share in shares)] for name, shares in named.items()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measure()
    marked.write(PAGE, other_subjects=table(read_json(RESULTS)))
