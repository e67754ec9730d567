"""Scores the committed answers of a published run anew, without a model, and writes what hangs on them.

    python -m benchmarks.rescore paper_135m physics_books_135m

Answers, prompts, perplexities, likelihoods and the chosen checkpoint stay; the scores of the answers, the rows that
no model stands behind, the metrics, figures, model cards and the README's tables are made from them again.
"""

import sys
from pathlib import Path

import pandas as pd

from llama_qna import publish, repeat
from llama_qna.answering.retrieval import Passages
from llama_qna.evaluation import compare
from llama_qna.evaluation.bench import RECALLED, asked_of, gold_of
from llama_qna.evaluation.free_rows import document_sentences, free_predictions
from llama_qna.evaluation.scoring import Said, scored
from llama_qna.project import gold
from llama_qna.project.files import read_json, read_lines, sha256, write_json, write_lines
from llama_qna.project.recipe import read_recipe
from llama_qna.project.systems import FREE
from llama_qna.project.variant import REPOSITORY
from llama_qna.reporting import figures, plot
from llama_qna.reporting.card import write_published_card
from llama_qna.text.scores import score

KEPT = "seed protocol system checkpoint context retrieved shown log_likelihood prompt_sha256 sample".split()
SEEDS = ("seeds.json", "seeds.predictions.jsonl")


class Corpus:
    """The committed chunks and questions of a variant."""

    def __init__(self, folder: Path):
        self.recipe = read_recipe(folder / "variant.yaml")
        data = REPOSITORY / "data" / self.recipe.corpus
        chunks = pd.read_csv(data / "chunks.csv", keep_default_na=False)
        questions, unanswerable = gold.read_gold(data / "gold.csv", chunks), data / "unanswerable.csv"
        self.sentences, self.passages = document_sentences(chunks), Passages(chunks)
        self.rows = {fold: [gold_of(r, chunks) for r in of_fold(questions, fold)] for fold in gold.FOLDS}
        others = gold.read_unanswerable(unanswerable)
        self.rows |= {f"{fold} unanswerable": [asked_of(r) for r in of_fold(others, fold)] for fold in gold.FOLDS}
        self.asked = {row["question_id"]: row for rows in self.rows.values() for row in rows}

    def rescored(self, row: dict) -> dict:
        """A prediction with today's scores; whether the model ended its answer is known only as `run_on`.

        What a system shows as evidence was scored when it was asked, and stays.
        """
        if row["protocol"] == "published" or "evidence" in row:
            return row
        if row["protocol"] == "in_sample":
            kept = {key: row[key] for key in [*KEPT, "chunk_id", "question", "reference", "answer"] if key in row}
            found = kept | score(row["answer"], row["reference"], [], row["question"])
        else:
            kept = {key: row[key] for key in KEPT if key in row}
            asked, texts = kept | self.asked[row["question_id"]], [sentence.text for sentence in self.sentences]
            found = scored(asked, Said(row["answer"]), texts, shows=False)
        return found | ({"run_on": row["run_on"]} if "run_on" in row else {})

    def free(self) -> tuple[list[dict], float]:
        """The rows that no model stands behind, and the threshold of one of them."""
        for rows in self.rows.values():
            found = self.passages.find([row["question"] for row in rows], RECALLED)
            for row, sources in zip(rows, found, strict=True):
                ids = [source.chunk_id for source in sources]
                row |= {"retrieved": ids, "shown": ids[: self.recipe.evaluation.retrieved_chunks]}
        return free_predictions(self.rows, self.sentences)


def of_fold(table: pd.DataFrame, fold: str) -> list:
    return list(table[table.fold == fold].itertuples())


def rescore(name: str) -> None:
    """Write predictions, metrics, seeds, figures and card of a published variant anew."""
    folder = REPOSITORY / name
    corpus, old = Corpus(folder), read_json(folder / "metrics.json")

    # --- answers
    answers = [row for row in read_lines(folder / "predictions.jsonl") if row["system"] not in FREE]
    answers = [corpus.rescored(row) for row in answers]
    free, threshold = corpus.free()
    write_lines(folder / "predictions.jsonl", free + answers)

    # --- metrics
    about = {key: old[key] for key in ("variant", "base_model", "chosen", "questions", "protocols")} | {
        "bm25_threshold": threshold
    }
    curve = [
        {key: point[key] for key in ("name", "stage", "step", "whole", "perplexity")} for point in old["checkpoints"]
    ]
    published = {point["name"]: point["perplexity"] for point in old["published"]}
    metrics = compare.summarize(about, curve, free + answers, published)
    write_json(folder / "metrics.json", metrics)

    # --- other seeds
    if (folder / "seeds.json").is_file():
        rows = [corpus.rescored(row) for row in read_lines(folder / "seeds.predictions.jsonl")]
        perplexity = {int(seed): texts for seed, texts in read_json(folder / "seeds.json")["perplexity"].items()}
        write_lines(folder / "seeds.predictions.jsonl", rows)
        write_json(folder / "seeds.json", repeat.summarize(name, perplexity, rows))

    # --- the records keep the files of the run, and name those of today beside them
    for record, files in {"run.json": ("metrics.json", "predictions.jsonl"), "seeds.run.json": SEEDS}.items():
        if (folder / record).is_file():
            rescored = {file: sha256(folder / file) for file in files}
            write_json(folder / record, read_json(folder / record) | {"rescored": rescored})

    # --- what is drawn and written from them
    sources = figures.committed_sources(REPOSITORY, name)
    for figure, content in figures.numbers(sources, corpus.recipe.description).items():
        plot.save(REPOSITORY / "figs" / name, figure, content)
    write_published_card(REPOSITORY, name)


if __name__ == "__main__":
    for variant in sys.argv[1:]:
        rescore(variant)
    publish.write_pages(REPOSITORY)
