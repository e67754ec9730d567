"""What the reader's choices rest on, on the dev questions of both corpora: tables of docs/experiments.md.

python -m benchmarks.reader            the tables from benchmarks/results/reader.json, into the page
python -m benchmarks.reader --measure  that file first (some minutes on two cores)
"""

import argparse
from pathlib import Path
from statistics import fmean

from llama_qna.answering.reader import ReadingAnswerer
from llama_qna.evaluation.reading import CORPORA, published
from llama_qna.models import prompts
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.models.generate import generate_texts
from llama_qna.models.likelihood import candidate_log_likelihoods
from llama_qna.project import marked, provenance
from llama_qna.project.files import read_json, write_json
from llama_qna.project.gold import references
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.text.right import is_right, stands_in
from llama_qna.text.tables import markdown

RESULTS = Path(__file__).parent / "results" / "reader.json"
WINDOWS = RESULTS.with_name("reader_windows.json")  # the same of another training, which was not kept
PAGE = REPOSITORY / "docs" / "experiments.md"
MOST = 8  # sentences that are ranked
QUOTED = 20  # tokens of a quote that tell how likely the reader is to give it
WRONG = (0.05, 0.08, 0.1, 0.2)  # shares of answerable questions that are refused


def rows_of(corpus: str, reader: Reader) -> list[dict]:
    """What the reader finds for each dev question, answerable or not."""
    chunks, *tables = published(corpus)
    asked = [row for table in tables for row in table[table.fold == "dev"].itertuples()]
    answerer = ReadingAnswerer.of(chunks, reader)
    model, tokenizer, sentences = answerer.model(), answerer.tokenizer, answerer.sentences

    def ids(text: str) -> list[int]:
        return prompts.encode_document(tokenizer, text)

    # --- how likely the question is after each sentence, and how likely each is to be quoted
    found = [sentences.find(row.Question, MOST) for row in asked]
    pairs = [(place, n) for place, numbers in enumerate(found) for n in numbers]
    texts = [sentences.all[n].text for _, n in pairs]
    writing = [prompts.writing_messages(sentences.passage(n).text, sentences.all[n].text) for _, n in pairs]
    questions = [ids(f" {asked[place].Question}") + [tokenizer.eos_token_id] for place, _ in pairs]
    likely = candidate_log_likelihoods(model, [prompts.chat_ids(tokenizer, turn) for turn in writing], questions)
    reading = [
        prompts.reading_messages(asked[place].Question, [sentences.passage(n).text for n in found[place]])
        for place, _ in pairs
    ]
    quotes = [ids(f" {text}")[:QUOTED] for text in texts]
    quoted = candidate_log_likelihoods(model, [prompts.chat_ids(tokenizer, turn) for turn in reading], quotes)
    scores = {pair: found for pair, found in zip(pairs, zip(likely, quoted, strict=True), strict=True)}

    # --- the answer after the quote of the likeliest, with and without its neighbours
    best = [max(numbers, key=lambda n: scores[place, n][0]) for place, numbers in enumerate(found)]
    dash, columns = [prompts.nothing_id(tokenizer)], {}
    for name, around in (("sentence", 0), ("neighbours", 1)):
        passages = [sentences.passage(n, around).text for n in best]
        asking = [answerer.prompt_ids(row.Question, passage) for row, passage in zip(asked, passages, strict=True)]
        columns[f"doubt, {name}"] = candidate_log_likelihoods(model, asking, [dash] * len(asking))
        begun = [prompt + ids(f" {sentences.all[n].text}\n") for prompt, n in zip(asking, best, strict=True)]
        columns[f"answer, {name}"] = generate_texts(model, tokenizer, begun, max_new_tokens=48, batch_size=32)
    bm25 = [float(sentences.scores(row.Question).max()) for row in asked]
    return [
        _row(row, [(sentences.all[n].text, *scores[place, n]) for n in found[place]])
        | {"bm25": bm25[place]}
        | {name: values[place] for name, values in columns.items()}
        for place, row in enumerate(asked)
    ]


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


def _row(row, found: list[tuple[str, float, float]]) -> dict:
    about = {"question_id": row.question_id, "likely": [likely for _, likely, _ in found]}
    about["quoted"] = [quoted for *_, quoted in found]
    if not hasattr(row, "Answer"):
        return about
    forms = references(row)
    return about | {
        "question": row.Question,
        "forms": forms,
        "evidence": [bool(stands_in(text, row.evidence)) for text, *_ in found],
        "sentence_right": [is_right(text, forms, row.Question) for text, *_ in found],
    }


def summary(rows: list[dict]) -> dict:
    """The shares that the tables show."""
    answerable, others = ([row for row in rows if ("forms" in row) == kind] for kind in (True, False))
    ranked = {"BM25 (its first)": [fmean(row["evidence"][0] for row in answerable)] * MOST}
    for name, key in (("how likely the question is", "likely"), ("how likely it is quoted", "quoted")):
        ranked[name] = [fmean(_first(row, key, count) for row in answerable) for count in range(1, MOST + 1)]
    ranked["(among them)"] = [fmean(any(row["evidence"][:n]) for row in answerable) for n in range(1, MOST + 1)]
    right = {"the sentence itself": fmean(row["sentence_right"][_best(row)] for row in answerable)}
    right["BM25's first sentence"] = fmean(row["sentence_right"][0] for row in answerable)
    for name in ("sentence", "neighbours"):
        answers = [is_right(row[f"answer, {name}"], row["forms"], row["question"]) for row in answerable]
        right[f"the reader's answer, given the {name}"] = fmean(answers)
    doubts = {
        "BM25's best score": [row["bm25"] for row in answerable + others],
        "how likely the question is": [max(row["likely"]) for row in answerable + others],
        "the dash, given the sentence": [-row["doubt, sentence"] for row in answerable + others],
        "the dash, given its neighbours too": [-row["doubt, neighbours"] for row in answerable + others],
    }
    refused = {name: _refused(scores, len(answerable)) for name, scores in doubts.items()}
    return {"answerable": len(answerable), "unanswerable": len(others), "ranked": ranked, "right": right} | {
        "refused": refused
    }


def _best(row: dict) -> int:
    return max(range(len(row["likely"])), key=row["likely"].__getitem__)


def _first(row: dict, key: str, count: int) -> bool:
    """Whether the likeliest of the first `count` sentences is the gold evidence."""
    places = range(min(count, len(row[key])))
    return row["evidence"][max(places, key=row[key].__getitem__)]


def _refused(scores: list[float], answerable: int) -> list[float]:
    """The share of unanswerable questions below the score below which so many answerable ones lie."""
    known, unknown = sorted(scores[:answerable]), scores[answerable:]
    return [fmean(score < known[int(share * answerable)] for score in unknown) for share in WRONG]


def tables(content: dict) -> str:
    """Tables in Markdown: which sentence, which answer, when to refuse, what 4 bits cost, and another training."""
    found = content["summary"]
    head = ["the sentence with the highest ...", *(f"of {n}" for n in range(1, MOST + 1))]
    ranked = markdown(head, [[name, *map(_share, shares)] for name, shares in found["ranked"].items()])
    right = markdown(["answer", "right"], [[name, _share(share)] for name, share in found["right"].items()])
    head = ["refused below a threshold on ...", *(f"{_share(share)} of the answerable" for share in WRONG)]
    refused = markdown(head, [[name, *map(_share, shares)] for name, shares in found["refused"].items()])
    about = f"{found['answerable']} answerable and {found['unanswerable']} unanswerable dev questions of both corpora"
    about += f", {content['date']}, {content['machine']['cores']} cores. "
    trained = read_json(REPOSITORY / "reader_135m" / "run.json")
    about += f"The training took {trained['seconds'] / 60:.0f} minutes of {trained['machine']['cores']} core."
    nats = markdown(["layers in NF4", "nats a token"], [[k, f"{v:.3f}"] for k, v in content["quantized"].items()])
    titles = ["Share of questions whose gold evidence is the chosen sentence, of the first n that BM25 finds:"]
    titles += ["Share of right answers:", "Share of unanswerable questions that are refused too:"]
    titles += ["What NF4 costs the base before any training, on the reference answers given a right chunk:"]
    titles += ["The reader that ships, and one trained on other rows (text below):"]
    tables = (ranked, right, refused, nats, _trainings(found, read_json(WINDOWS)["dev"]))
    parts = [part for pair in zip(titles, tables, strict=True) for part in pair]
    return "\n\n".join([about, *parts])


def _trainings(kept: dict, windows: dict) -> str:
    """The reader that was kept beside one that was not."""
    ranked, right, refused = (kept[key] for key in ("ranked", "right", "refused"))
    neighbours = "the dash, given its neighbours too"
    rows = [
        [
            "the likeliest of five sentences is the evidence",
            ranked["how likely the question is"][4],
            windows["evidence"],
        ],
        ["right, the reader's answer", right["the reader's answer, given the sentence"], windows["right"]],
        ["right, the sentence itself", right["the sentence itself"], windows["sentence_right"]],
        [
            "unanswerable refused, with 8% of the answerable",
            refused[neighbours][1],
            windows["refused"][neighbours]["0.08"],
        ],
    ]
    return markdown(["on dev", "ships", "windows"], [[name, _share(a), _share(b)] for name, a, b in rows])


def _share(share: float) -> str:
    return f"{share:.0%}"


def measure() -> None:
    reader = Reader.load("reader_135m")
    rows = [row for corpus in CORPORA for row in rows_of(corpus, reader)]
    quantized = by_quantization(reader.recipe.base_model)
    write_json(RESULTS, provenance.measured() | {"summary": summary(rows), "quantized": quantized})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measure()
    marked.write(PAGE, reader=tables(read_json(RESULTS)))
