"""What the reader's choices rest on: tables of docs/experiments.md.

Two sets of questions are asked: the dev questions of both corpora, and every third one about the passages of
`data/reading/dev`, on which nothing is trained.

python -m benchmarks.reader                    the tables from benchmarks/results/reader.json, into the page
python -m benchmarks.reader --measure          that file first (about a quarter of an hour on two cores)
python -m benchmarks.reader --adapter FOLDER   of the adapter that it is compared with, into reader_before.json
"""

import argparse
from pathlib import Path
from statistics import fmean

import pandas as pd

from llama_qna.answering.reader import ReadingAnswerer
from llama_qna.answering.sentences import Sentences
from llama_qna.evaluation.reading import CORPORA, published
from llama_qna.models import prompts
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.models.folded import load_folded
from llama_qna.models.generate import generate_texts
from llama_qna.models.likelihood import answer_log_likelihoods, candidate_log_likelihoods, doubts_of
from llama_qna.project import marked, provenance
from llama_qna.project.files import read_json, read_lines, write_json
from llama_qna.project.gold import references
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.text.right import is_right, stands_in
from llama_qna.text.tables import markdown
from llama_qna.training.reading import READING_SET

RESULTS = Path(__file__).parent / "results" / "reader.json"
BEFORE = RESULTS.with_name("reader_before.json")
PAGE = REPOSITORY / "docs" / "experiments.md"
FOUND = 5  # sentences that are ranked
WRONG = (0.05, 0.08, 0.1, 0.2)  # shares of answerable questions that are refused
SETS = {"gold": "gold questions, dev", "kept": "questions about kept passages"}


def gold_questions(corpus: str) -> tuple[pd.DataFrame, list[dict]]:
    """The chunks of a corpus, and its dev questions."""
    chunks, gold, unanswerable = published(corpus)
    asked = [
        {"question": row.Question, "evidence": row.evidence, "forms": references(row)}
        for row in gold[gold.fold == "dev"].itertuples()
    ]
    return chunks, asked + [{"question": q} for q in unanswerable[unanswerable.fold == "dev"].Question]


def kept_questions() -> tuple[pd.DataFrame, list[dict]]:
    """The passages that nothing is trained on, each as a chunk, and every third question about them."""
    rows, asked = [], []
    for line in [line for path in sorted((READING_SET / "dev").glob("*.jsonl")) for line in read_lines(path)]:
        text = " ".join(line["passage"].split())
        rows.append({"chunk_id": line["id"], "document": "kept", "page": 1, "section": line["id"], "text": text})
        asked += [
            {"question": e["question"], "evidence": e["evidence"], "forms": [e["short"]] if "short" in e else []}
            for e in line["answerable"]
        ]
        asked += [{"question": e["question"]} for e in line["unanswerable"]]
    return pd.DataFrame(rows).assign(kind="body", split="test", tokens=200), asked[::3]


def rows_of(chunks: pd.DataFrame, asked: list[dict], model, tokenizer) -> list[dict]:
    """What a reader finds for each question, answerable or not."""
    answerer = ReadingAnswerer(Sentences(chunks), tokenizer, lambda: model)
    sentences = answerer.sentences

    def ids(text: str) -> list[int]:
        return prompts.encode_document(tokenizer, text)

    # --- how likely the question is after each sentence, and whether that tells the answer
    found = [sentences.find(row["question"], FOUND) for row in asked]
    pairs = [(at, n) for at, numbers in enumerate(found) for n in numbers]
    shown = [prompts.writing_messages(sentences.passage(n).text, sentences.all[n].text) for _, n in pairs]
    questions = [ids(f" {asked[at]['question']}") + [tokenizer.eos_token_id] for at, _ in pairs]
    likely = answer_log_likelihoods(model, [prompts.chat_ids(tokenizer, turn) for turn in shown], questions)
    doubts = {}
    for name, around in (("sentence", 0), ("neighbours", 1)):
        asking = [answerer.prompt_ids(asked[at]["question"], sentences.passage(n, around).text) for at, n in pairs]
        doubts[name] = doubts_of(model, tokenizer, asking)
    rows = [row | {"bm25": float(sentences.scores(row["question"]).max()), "found": []} for row in asked]
    for (at, n), nats, *pair in zip(pairs, likely, *doubts.values(), strict=True):
        row, text = rows[at], sentences.all[n].text
        about = {"text": text, "likely": nats} | dict(zip(doubts, pair, strict=True))
        row["found"].append(about | {"both": nats - prompts.DOUBT_WEIGHT * about["sentence"]})

    # --- the answer after the quote of the best
    rows = [row for row in rows if row["found"]]
    best = [_best(row["found"], "both")["text"] for row in rows]
    begun = [
        answerer.prompt_ids(row["question"], text) + ids(f" {text}\n") for row, text in zip(rows, best, strict=True)
    ]
    answers = generate_texts(model, tokenizer, begun, max_new_tokens=48, batch_size=32)
    return [row | {"answer": answer} for row, answer in zip(rows, answers, strict=True)]


def by_quantization(base_model: str) -> dict[str, float]:
    """Nats a token of the dev questions' answers, given a right chunk, to the base with some of its layers in NF4."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    model, tokenizer = load_base(base_model, None), load_tokenizer(base_model)
    asked, answers = [], []
    for corpus in CORPORA:
        chunks, gold, _ = published(corpus)
        texts = dict(zip(chunks.chunk_id, chunks.text, strict=True))
        for row in gold[gold.fold == "dev"].itertuples():
            asked.append(prompts.fit_chunks(tokenizer, row.Question, [texts[row.chunk_ids[0]]], 900)[0])
            answers.append(prompts.encode_document(tokenizer, row.Answer) + [tokenizer.eos_token_id])
    layers = {n: m for n, m in model.get_decoder().named_modules() if isinstance(m, torch.nn.Linear)}
    whole = {name: layer.weight.data for name, layer in layers.items()}

    def nats(quantized: str) -> float:
        for name, layer in layers.items():
            layer.weight.data = whole[name]
            if quantized in name:
                packed, state = quantize_4bit(whole[name].contiguous(), blocksize=64, quant_type="nf4")
                layer.weight.data = dequantize_4bit(packed, state).to(whole[name].dtype)
        found = candidate_log_likelihoods(model, asked, answers)
        return -sum(value * len(a) for value, a in zip(found, answers, strict=True)) / sum(map(len, answers))

    kinds = {"none": "no layer", "self_attn": "attention", "mlp": "MLPs", "": "all layers"}
    return {shown: nats(part) for part, shown in kinds.items()}


def _best(found: list[dict], key: str) -> dict:
    return max(found, key=lambda sentence: -sentence[key] if key in ("sentence", "neighbours") else sentence[key])


def summary(rows: list[dict]) -> dict:
    """The shares that the tables show."""
    answerable, others = ([row for row in rows if ("evidence" in row) == kind] for kind in (True, False))
    chosen = {"BM25 (its first)": lambda found: found[0]}
    names = {"likely": "how likely the question is", "sentence": "how little it doubts", "both": "both"}
    known = rows[0]["found"][0]
    chosen |= {name: lambda found, key=key: _best(found, key) for key, name in names.items() if key in known}
    places = range(1, FOUND + 1)
    ranked = {
        name: [fmean(stands_in(best(row["found"][:n])["text"], row["evidence"]) for row in answerable) for n in places]
        for name, best in chosen.items()
    }
    ranked["(among them)"] = [
        fmean(any(stands_in(s["text"], row["evidence"]) for s in row["found"][:n]) for row in answerable)
        for n in places
    ]
    asked = [row for row in answerable if row["forms"]]
    said = {f"the sentence by {name}": lambda row, b=best: b(row["found"])["text"] for name, best in chosen.items()}
    if "answer" in rows[0]:
        said["the reader's words after it"] = lambda row: row["answer"]
    right = {
        name: fmean(is_right(text(row), row["forms"], row["question"]) for row in asked) for name, text in said.items()
    }
    by = "both" if "both" in known else "likely"
    doubts = {
        "BM25's best score": lambda row: -row["bm25"],
        "how likely the question is": lambda row: -max(s["likely"] for s in row["found"]),
    }
    for key, name in (("sentence", "doubt, given the sentence"), ("neighbours", "doubt, given its neighbours too")):
        if key in known:
            doubts[name] = lambda row, key=key: _best(row["found"], by)[key]
    refused = {
        name: _refused(*([doubt(row) for row in part] for part in (answerable, others)))
        for name, doubt in doubts.items()
    }
    counts = {"answerable": len(answerable), "with_forms": len(asked), "unanswerable": len(others)}
    return counts | {"ranked": ranked, "right": right, "refused": refused}


def _refused(known: list[float], unknown: list[float]) -> list[float]:
    """The share of unanswerable questions with more doubt than all but so many answerable ones."""
    known = sorted(known)
    return [fmean(doubt > known[int((1 - share) * len(known))] for doubt in unknown) for share in WRONG]


def tables(content: dict, before: dict) -> str:
    """Tables in Markdown: which sentence, which answer, when to refuse, the reader before, and what 4 bits cost."""
    sets = content["sets"]
    parts = [_counts(content)]
    for key, name in SETS.items():
        head = [f"{name}: the sentence with the best ...", *(f"of {n}" for n in range(1, FOUND + 1))]
        parts += [markdown(head, [[row, *map(_share, shares)] for row, shares in sets[key]["ranked"].items()])]
    parts.insert(1, "Share of questions whose gold evidence is the chosen sentence, of the first n that BM25 finds:")
    parts += ["Share of right answers, where there is a form to compare with:"]
    names = sets["gold"]["right"]
    parts += [
        markdown(["answer", *SETS.values()], [[n, *(_share(sets[key]["right"][n]) for key in SETS)] for n in names])
    ]
    parts += ["Share of unanswerable questions that are refused too:"]
    head = [
        "refused below a threshold on ...",
        *(f"{_share(s)} of the answerable, {key}" for key in SETS for s in WRONG),
    ]
    names = sets["gold"]["refused"]
    rows = [[n, *(_share(share) for key in SETS for share in sets[key]["refused"][n])] for n in names]
    parts += [markdown(head, rows), "The reader that ships, and the one before it (text below):"]
    parts += [_trainings(sets, before["sets"])]
    parts += ["What NF4 costs the base before any training, on the reference answers given a right chunk:"]
    nats = [[layers, f"{value:.3f}"] for layers, value in content["quantized"].items()]
    return "\n\n".join([*parts, markdown(["layers in NF4", "nats a token"], nats)])


def _counts(content: dict) -> str:
    counts = [
        f"{found['answerable']} answerable and {found['unanswerable']} unanswerable {SETS[key]}"
        for key, found in content["sets"].items()
    ]
    trained = read_json(REPOSITORY / "reader_135m" / "run.json")
    about = f"{'; '.join(counts)}; {content['date']}, {content['machine']['cores']} cores. "
    cores = trained["machine"]["cores"]
    return about + f"The training took {trained['seconds'] / 60:.0f} minutes of {cores} core{'s' * (cores > 1)}."


def _trainings(ships: dict, before: dict) -> str:
    """The reader that ships beside the one before it."""
    rows = {
        "the chosen sentence is the evidence": ("ranked", {False: "how likely the question is", True: "both"}, -1),
        "right, the chosen sentence": (
            "right",
            {False: "the sentence by how likely the question is", True: "the sentence by both"},
            None,
        ),
        "unanswerable refused, with 8% of the answerable": (
            "refused",
            {False: "doubt, given its neighbours too", True: "doubt, given the sentence"},
            1,
        ),
    }

    def of(table: str, names: dict[bool, str], place: int | None, key: str, now: bool) -> str:
        share = (ships if now else before)[key][table][names[now]]
        return _share(share if place is None else share[place])

    head = ["share", *(f"{who}, {key}" for key in SETS for who in ("before", "ships"))]
    cells = [[name, *(of(*where, key, now) for key in SETS for now in (False, True))] for name, where in rows.items()]
    return markdown(head, cells)


def _share(share: float) -> str:
    return f"{share:.0%}"


def measure(adapter: Path, out: Path) -> None:
    reader = Reader.load("reader_135m")
    base = reader.recipe.base_model
    model, tokenizer = load_folded(base, adapter), load_tokenizer(base)
    asked = {"gold": [gold_questions(corpus) for corpus in CORPORA], "kept": [kept_questions()]}
    sets = {
        key: summary([row for chunks, questions in parts for row in rows_of(chunks, questions, model, tokenizer)])
        for key, parts in asked.items()
    }
    write_json(out, provenance.measured() | {"sets": sets, "quantized": by_quantization(base)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--adapter", metavar="FOLDER", type=Path)
    options = parser.parse_args()
    if options.adapter:
        measure(options.adapter, BEFORE)
    elif options.measure:
        measure(Reader.load("reader_135m").adapter, RESULTS)
    marked.write(PAGE, reader=tables(read_json(RESULTS), read_json(BEFORE)))
