"""The scores of `experiments.py`: those of a model, paired differences, and the tables of docs/experiments.md."""

import re
from pathlib import Path
from statistics import fmean

import pandas as pd

from llama_qna.evaluation import intervals
from llama_qna.evaluation.bench import texts_of
from llama_qna.models import prompts
from llama_qna.models.prompts import CONTEXT_TOKENS
from llama_qna.project import gold, marked
from llama_qna.project.data import read_table
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting.results import with_interval
from llama_qna.text import scores
from llama_qna.text.search import Search
from llama_qna.text.tables import markdown

RESULTS = Path(__file__).parent / "results" / "experiments.json"
PAGE = REPOSITORY / "docs" / "experiments.md"
VARIANT, FOLD = "paper_135m", "dev"
PRETRAINED, TUNED = "pretrained", "fine-tuned"
FIRST = "questions first"  # the part of fine-tuning that comes before pretraining, among the seconds
ONE, TWO = "fine-tuned, 1 chunk given", "fine-tuned, 2 chunks given"
BAR = ("pairs 12", TUNED)  # what every other point is compared with
PLAIN, CONTEXTS = "recall 12, pairs 12", "recall 12, pairs 5 with contexts"
AMONG = [
    ((CONTEXTS, ONE), (PLAIN, ONE)),
    ((CONTEXTS, TWO), (PLAIN, TWO)),
    ((CONTEXTS, ONE), (CONTEXTS, TUNED)),
    ((PLAIN, ONE), (PLAIN, TUNED)),
]
# Settings that older records do not have, all off there; an experiment with one is also compared with one without.
CHANGES = ("paraphrases", "variants", "rank", "questions_first")
SCORES = ("rougeL", "f1")
NEW_TOKENS, IN_SAMPLE = 64, 60  # of an answer, training pairs that are asked


class Scores:
    """What a model in training says to the gold questions of the dev fold, and how it reads."""

    def __init__(self, variant: Variant, model, tokenizer, chunks: pd.DataFrame, pairs: pd.DataFrame):
        self.variant, self.model, self.tokenizer = variant, model, tokenizer
        self.dev = gold.read_gold(variant.gold, chunks)
        self.dev = self.dev[self.dev.fold == FOLD]
        self.body, self.sample = chunks[chunks.kind == "body"], pairs.sample(IN_SAMPLE, random_state=0)

    def answers(self, prompt_ids: list[list[int]], batch_size: int = 200) -> list[str]:
        from llama_qna.models.generate import generate_texts

        options = {"max_new_tokens": NEW_TOKENS, "batch_size": batch_size, "done": lambda count: None}
        return generate_texts(self.model, self.tokenizer, prompt_ids, **options)

    def asked(self, chunks_given: int = 0) -> dict:
        """Scores and answers, without or with the best chunks that BM25 finds; F1 against the reference alone."""
        texts, given = dict(zip(self.body.chunk_id, self.body.text, strict=True)), [[]] * len(self.dev)
        if chunks_given:
            found = Search(list(texts), list(texts.values())).search(list(self.dev.Question), chunks_given)
            given = [[texts[chunk_id] for chunk_id, _ in chunks] for chunks in found]
        both = zip(self.dev.Question, given, strict=True)
        ids = [prompts.fit_chunks(self.tokenizer, *row, CONTEXT_TOKENS)[0] for row in both]
        rows = zip(self.dev.itertuples(), self.answers(ids, 32 if chunks_given else 200), strict=True)
        scored = [
            {"question_id": row.question_id, "answer": answer, "rougeL": scores.rouge(answer, row.Answer)["rougeL"],
             "f1": scores.token_f1(answer, [row.Answer])} for row, answer in rows
        ]  # fmt: skip
        return pd.DataFrame(scored)[["rougeL", "f1"]].mean().to_dict() | {"answers": scored}

    def likelihood(self) -> dict:
        """Perplexity of the text and of general text, and nats per token of the reference answers, ends counted."""
        from llama_qna.evaluation.perplexity import perplexity
        from llama_qna.models.likelihood import answer_log_likelihoods

        texts = texts_of(self.variant)
        measured = {
            kind: perplexity(self.model, self.tokenizer, texts[kind], 1024, 1024) for kind in ("domain", "general")
        }
        ids = [prompts.question_ids(self.tokenizer, question) for question in self.dev.Question]
        ends = [prompts.encode_document(self.tokenizer, a) + [self.tokenizer.eos_token_id] for a in self.dev.Answer]
        means = zip(answer_log_likelihoods(self.model, ids, ends), ends, strict=True)
        nats = -sum(mean * len(end) for mean, end in means) / sum(map(len, ends))
        return {kind: found["perplexity"] for kind, found in measured.items()} | {"dev_nll": nats}

    def in_sample(self) -> dict:
        given = self.answers([prompts.question_ids(self.tokenizer, question) for question in self.sample.Question])
        found = pd.DataFrame(list(map(scores.rouge, given, self.sample.Answer)), index=self.sample.index)
        kinds = found.rougeL.groupby(self.sample.recipe == "reference").mean()
        return {"in_sample": found.mean().to_dict(), "of_pairs": kinds[False], "of_references": kinds[True]}


def compared(experiments: dict) -> list[dict]:
    """Paired differences in ROUGE-L and F1 on the same questions, with 95% intervals clustered by section.

    Each point against fine-tuning alone, then each experiment with one of `CHANGES` against that without any but the
    same epochs, point by point, then the pairs of `AMONG`, as far as they were measured.
    """
    measured = {(name, point): found for name, one in experiments.items() for point, found in one["points"].items()}
    sections = {row.question_id: row.section for row in _gold().itertuples()}
    plain = {_kind(one): name for name, one in experiments.items() if not _changed(one)}
    alike = [
        ((name, point), (plain.get(_kind(one)), point))
        for name, one in experiments.items() if _changed(one) for point in one["points"]
    ]  # fmt: skip
    alike = [pair for pair in alike if pair[1] != BAR]  # that one is there already
    pairs = [(one, BAR) for one in measured if one != BAR] + alike + AMONG
    differences = []
    for one, other in pairs:
        if one in measured and other in measured:
            rows, others = measured[one]["answers"], measured[other]["answers"]
            asked = [row["question_id"] for row in rows]
            if asked != [row["question_id"] for row in others]:
                raise ValueError(f"{one} and {other} were asked other questions")
            clusters = [sections[question_id] for question_id in asked]
            found = {
                score: intervals.difference([row[score] for row in rows], [row[score] for row in others], clusters)
                for score in SCORES
            }
            differences.append({"of": list(one), "against": list(other)} | found)
    return differences


def _changed(experiment: dict) -> bool:
    return any(experiment["settings"].get(change) for change in CHANGES)


def _kind(experiment: dict) -> tuple:
    """What an experiment and the one without changes share: its epochs, contexts and seed."""
    return tuple(experiment["settings"][key] for key in ("pairs", "text", "recall", "contexts", "seed"))


def write_page(content: dict) -> None:
    """Put the tables in place of those of docs/experiments.md."""
    marked.write(PAGE, experiments=tables(content))


def tables(content: dict) -> str:
    """The tables in Markdown: scores, then the differences but those to `BAR`, which are in the file."""
    questions = {row.question_id: row for row in _gold().itertuples()}
    rows = []
    for name, one in content["experiments"].items():
        for point, found in one["points"].items():
            sampled = found.get("in_sample")
            echo, right, asked = _said(found["answers"], questions)
            rows.append([
                name, point,
                *(_cell(found.get(key), digits) for key, digits in (("domain", 2), ("general", 1), ("dev_nll", 2))),
                *(_cell(found[score], 3) for score in SCORES), f"{echo:.2f}", f"{right} of {asked}",
                "/".join(f"{score:.3f}" for score in sampled.values()) if sampled else "-",
                f"{found['of_pairs']:.2f} / {found['of_references']:.2f}" if sampled else "-",
            ])  # fmt: skip
    head = ["experiment", "asked", "text", "general text", "nats a token", "ROUGE-L", "F1", "echo",
            "numbers right", "ROUGE-1/2/L in-sample", "of it ROUGE-L, pairs / references"]  # fmt: skip
    signed = [
        [*(f"{d[side][0]}: {d[side][1]}" for side in ("of", "against")), *(with_interval(d[s], "+") for s in SCORES)]
        for d in content["differences"]
        if tuple(d["against"]) != BAR
    ]
    return f"{markdown(head, rows)}\n\n{markdown(['of', 'against', 'ROUGE-L', 'F1'], signed)}"


def _said(answers: list[dict], questions: dict) -> tuple[float, int, int]:
    """How much of an answer's words stand in its question, on average; and of the references that have a number which
    the question has not, how many are answered with such a number, and how many there are."""
    echoes, right = [], []
    for row in answers:
        asked, wanted = questions[row["question_id"]].Question, questions[row["question_id"]].Answer
        said = _words(row["answer"])
        echoes.append(len(said & _words(asked)) / max(1, len(said)))
        if numbers := _numbers(wanted) - _numbers(asked):
            right.append(bool(numbers & _numbers(row["answer"])))
    return fmean(echoes), sum(right), len(right)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"(?<!\w)\d+(?:[.,]\d+)*", text))


def _gold():
    path = Variant.load(VARIANT).gold
    return read_table(path, path.name, ["question_id", "Question", "Answer", "section"])


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
