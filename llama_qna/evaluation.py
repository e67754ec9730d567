"""What a variant has learnt, measured (stage `evaluate`): here the models answer; `comparison` makes the numbers.

`in_sample` scores every checkpoint on what it was trained on: memory. `heldout` asks gold questions that nothing was
trained on: a checkpoint is chosen on the fold `dev`, and the systems are compared once on `test`. `published` repeats
the study's arithmetic, for comparison with its numbers.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd

from llama_qna import UserError, comparison, distributed, gold, metrics, prompts, records
from llama_qna.chunks import read_chunks
from llama_qna.points import Point, points_of
from llama_qna.qna import read_qna
from llama_qna.retrieval import Retriever
from llama_qna.variants import REPOSITORY, Evaluation, Variant

GENERAL_TEXT = REPOSITORY / "data" / "general" / "everyday.txt"
CONTEXT_TOKENS = 900  # of a prompt with chunks: the 135M model was trained on 2,048 tokens, and long prompts are slow
PUBLISHED = {"questions": 256, "max_new_tokens": 200, "temperature": 0.6}  # the study's


def evaluate(variant: Variant) -> dict:
    """Stage 5: score the base, every checkpoint, and the systems that are compared.

    Writes `predictions.jsonl` (every prompt's hash, answer and scores) and `metrics.json`, which is computed from it.

    Returns:
        The content of `metrics.json`; see `comparison.summarize`.

    Raises:
        UserError: a stage before this one has not run on this machine, a checkpoint is of another base, a gold question
            is bad or near a training question, or a score is no number.
    """
    recipe = variant.recipe
    pairs, points = read_qna(variant), points_of(variant)
    inputs = {
        "chunks.csv": records.sha256(variant.chunks / "chunks.csv"),
        "text.txt": records.sha256(variant.chunks / "text.txt"),
        "heldout.txt": records.sha256(variant.chunks / "heldout.txt"),
        "qna.csv": records.sha256(variant.qna / "qna.csv"),
        "general text": records.sha256(GENERAL_TEXT),
    }
    inputs |= {point.name: records.sha256(point.adapter / "adapter_model.safetensors") for point in points[1:]}
    questions = _gold(variant, pairs)
    if questions is not None:
        inputs["gold.csv"] = records.sha256(variant.gold)
    kept = recipe.model_dump(include={"base_model", "quantization", "evaluation", "stacking"})
    records.once(variant, "evaluate", kept, inputs, lambda folder: _evaluate(variant, points, pairs, questions, folder))
    return read_metrics(variant)


def _gold(variant: Variant, pairs: pd.DataFrame) -> pd.DataFrame | None:
    """The gold questions of the corpus, if there are any and the recipe wants the held-out protocol."""
    protocol = variant.recipe.evaluation.protocol
    if protocol == "published" or (protocol == "both" and not variant.gold.is_file()):
        return None
    questions = gold.read_gold(variant.gold, read_chunks(variant))
    trained = list(pairs[pairs.split == "train"].Question)
    for row in questions.itertuples():
        if near := gold.near(row.Question, trained):
            raise UserError(f"{variant.gold.name}, {row.question_id}: near the training question {near!r}")
    return questions


def _evaluate(variant: Variant, points: list[Point], pairs: pd.DataFrame, questions, folder: Path) -> dict:
    from tqdm import tqdm

    bench = _Bench(variant, pairs, questions)
    protocol, curve, parts = variant.recipe.evaluation.protocol, [], []
    chosen = points[-1]
    for point in tqdm(distributed.mine(points), desc="evaluating", unit="model"):
        model = bench.load(point)
        if point.stage != "finetuning_only":
            curve.append(
                {"name": point.name, "stage": point.stage, "step": point.step, "perplexity": bench.texts(model)}
            )
            bench.in_sample(model, point)
            bench.ask(model, point, point.name, "dev")
        last = point == [other for other in points if other.stage == point.stage][-1]
        if last and point.stage != "finetuning":
            bench.ask(model, point, point.stage, "test")
        if point.stage == "base":
            bench.ask(model, point, "base_retrieval", "test", "retrieved")
            bench.ask(model, point, "base_right_chunk", "test", "right chunk")
        if last and protocol != "heldout" and point.stage != "finetuning_only":
            bench.published(model, point)
        parts.append(bench.taken())
    curve = bench.collect(curve, parts, points)
    if questions is not None:
        name = comparison.best_on_dev(bench.predictions)
        chosen = next((point for point in points if point.name == name), chosen)
        before, parts = bench.taken(), []
        for system, context in distributed.mine([("finetuned", "none"), ("finetuned_retrieval", "retrieved")]):
            bench.ask(bench.load(chosen), chosen, system, "test", context)
            parts.append(bench.taken())
        bench.predictions = before + sum(distributed.together(distributed.gather(parts)), [])
    if not distributed.is_main():
        return {}
    settings = variant.recipe.evaluation
    about = {"variant": variant.name, "base_model": variant.recipe.base_model, "chosen": chosen.name}
    about["protocols"] = comparison.protocols(settings, GENERAL_TEXT.name, PUBLISHED)
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in bench.predictions)
    try:
        content = comparison.summarize(about, curve, bench.predictions, bench.published_perplexity)
        records.write_json(folder / "metrics.json", content)
    except ValueError:
        raise UserError(
            f"{variant.name}: a score is no number; look at the training log for a loss that exploded"
        ) from None
    return {"checkpoints": len(curve), "predictions": len(bench.predictions), "chosen": chosen.name}


class _Bench:
    """The questions and texts of a variant, the model that is loaded, and every prediction so far."""

    def __init__(self, variant: Variant, pairs: pd.DataFrame, questions: pd.DataFrame | None):
        from llama_qna import models

        self.variant, self.settings, self.questions = variant, variant.recipe.evaluation, questions
        self.trained_pairs = pairs[pairs.split == "train"]
        self.pairs = self.trained_pairs.head(self.settings.max_questions or len(pairs))
        self.tokenizer = models.load_tokenizer(variant.recipe.base_model)
        chunks = read_chunks(variant)
        self.trained_texts = list(chunks[chunks.split == "train"].text)
        body = chunks[chunks.kind == "body"]
        self.chunks = dict(zip(body.chunk_id, body.text, strict=True))
        self.predictions, self.published_perplexity = [], {}
        self._weights = self._model = None

    def load(self, point: Point):
        """The model of a point; weights are loaded once for all points that share them, and adapters are swapped."""
        from llama_qna import models

        recipe = self.variant.recipe
        if self._model is None or point.weights != self._weights:
            self._model = models.load_base(recipe.base_model, recipe.quantization, weights=point.weights)
            self._weights = point.weights
        if point.adapter and hasattr(self._model, "peft_config"):
            models.swap_adapter(self._model, point.adapter)
        elif point.adapter:
            self._model = models.attach_adapter(self._model, point.adapter)
        return self._model

    def taken(self) -> list[dict]:
        """The predictions so far, which are forgotten here."""
        taken, self.predictions = self.predictions, []
        return taken

    def collect(self, curve: list[dict], parts: list[list[dict]], points: list[Point]) -> list[dict]:
        """Take over what all processes found about their points, in the order of one process; the whole curve."""
        found = distributed.gather((curve, parts, self.published_perplexity))
        curves, parts, published = zip(*found, strict=True)
        self.predictions = sum(distributed.together(parts), [])
        stages = {stage: value for part in published for stage, value in part.items()}
        self.published_perplexity = {point.stage: stages[point.stage] for point in points if point.stage in stages}
        order = [point.name for point in points]
        return sorted(sum(curves, []), key=lambda entry: order.index(entry["name"]))

    def texts(self, model) -> dict:
        """Perplexity on the text trained on, on the held-out sections and on general text."""
        from llama_qna.perplexity import perplexity

        folder = self.variant.chunks
        files = {"domain": folder / "text.txt", "heldout": folder / "heldout.txt", "general": GENERAL_TEXT}
        texts = {kind: path.read_text(encoding="utf-8") for kind, path in files.items()}
        window, stride = self.settings.window, self.settings.stride
        return {kind: perplexity(model, self.tokenizer, text, window, stride) for kind, text in texts.items() if text}

    def in_sample(self, model, point: Point) -> None:
        rows = [
            {"chunk_id": pair.chunk_id, "question": pair.Question, "reference": pair.Answer}
            for pair in self.pairs.itertuples()
        ]
        prompt_ids = [prompts.question_ids(self.tokenizer, row["question"]) for row in rows]
        self._answer(model, point, {"protocol": "in_sample", "system": point.name}, rows, prompt_ids)

    def ask(self, model, point: Point, system: str, fold: str, context: str = "none") -> None:
        """Gold questions of a fold, without context, with the chunks that retrieval finds, or with the right chunk."""
        if self.questions is None:
            return
        asked = self.questions[self.questions.fold == fold]
        found = [[] for _ in range(len(asked))]
        if context == "retrieved":
            searched = Retriever(list(self.chunks), list(self.chunks.values())).search(
                list(asked.Question), max(5, self.settings.retrieved_chunks)
            )
            found = [[chunk_id for chunk_id, _ in chunks] for chunks in searched]
        elif context == "right chunk":
            found = list(asked.chunk_ids)
        shown = self.settings.retrieved_chunks if context == "retrieved" else 1
        rows, prompt_ids = [], []
        for row, chunk_ids in zip(asked.itertuples(), found, strict=True):
            texts = [self.chunks[chunk_id] for chunk_id in chunk_ids[:shown]]
            prompt_ids.append(prompts.context_question_ids(self.tokenizer, row.Question, texts, CONTEXT_TOKENS))
            rows.append(
                {"question_id": row.question_id, "section": f"{row.document}: {row.section}", "kind": row.kind,
                 "split": row.chunk_split, "question": row.Question, "reference": row.Answer,
                 "variants": gold.references(row)[1:], "chunk_ids": row.chunk_ids, "retrieved": chunk_ids}
            )  # fmt: skip
        about = {"protocol": fold, "system": system, "checkpoint": point.name, "context": context}
        self._answer(model, point, about, rows, prompt_ids)

    def published(self, model, point: Point) -> None:
        """The study's way: chunks drawn with replacement, sampled answers, references with their label.

        As in the study only the fine-tuned model answers.
        """
        from llama_qna.perplexity import published_perplexity

        self.published_perplexity[point.stage] = published_perplexity(
            model, self.tokenizer, self.trained_texts, seed=self.variant.recipe.seed
        )
        if point.stage != "finetuning":
            return
        pairs = self.trained_pairs.head(PUBLISHED["questions"])
        rows = [
            {"chunk_id": pair.chunk_id, "question": pair.Question, "reference": f"Answer: {pair.Answer}"}
            for pair in pairs.itertuples()
        ]
        prompt_ids = [prompts.question_ids(self.tokenizer, row["question"]) for row in rows]
        about = {"protocol": "published", "system": point.stage, "checkpoint": point.name}
        self._answer(model, point, about, rows, prompt_ids, PUBLISHED["temperature"], PUBLISHED["max_new_tokens"])

    def _answer(self, model, point, about: dict, rows: list[dict], prompt_ids, temperature=0.0, limit=None) -> None:
        from llama_qna.generation import generate_texts

        limit = limit or self.settings.max_new_tokens
        answers = generate_texts(
            model,
            self.tokenizer,
            prompt_ids,
            max_new_tokens=limit,
            batch_size=self.settings.batch_size,
            temperature=temperature,
            seeds=[f"{self.variant.recipe.seed} {row['question']}" for row in rows],
            done=lambda count: None,
        )
        for row, ids, answer in zip(rows, prompt_ids, answers, strict=True):
            ended = len(prompts.encode_document(self.tokenizer, answer)) < limit
            if about["protocol"] == "published":
                scores = metrics.rouge(answer, row["reference"], strip=False)
            else:
                texts = list(self.chunks.values())
                scores = metrics.score(answer, row["reference"], row.get("variants", []), texts, ended)
            prompt = hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:16]
            self.predictions.append(about | row | {"prompt_sha256": prompt, "answer": answer} | scores)


def answer(model, tokenizer, questions: list[str], settings: Evaluation) -> list[str]:
    """Greedy answers to questions, in the template that fine-tuning used."""
    from llama_qna.generation import generate_texts

    ids = [prompts.question_ids(tokenizer, question) for question in questions]
    limits = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size}
    return generate_texts(model, tokenizer, ids, **limits, description="answers")


def read_metrics(variant: Variant, folder: Path | None = None) -> dict:
    """The metrics of this machine's run, or of another folder.

    Raises:
        UserError: there are none.
    """
    path = (folder or variant.evaluation) / "metrics.json"
    if not path.is_file():
        raise UserError(f"no metrics yet for {variant.name}: run `llama-qna evaluate {variant.name}` first")
    return json.loads(path.read_text(encoding="utf-8"))


def examples(predictions: Path, systems: list[str], count: int, protocol: str = "in_sample") -> pd.DataFrame:
    """The first questions of a protocol with the answers of some systems side by side."""
    table = pd.read_json(predictions, lines=True)
    table = table[table.system.isin(systems) & (table.protocol == protocol)]
    table = table.drop_duplicates(["system", "question", "reference"])
    wide = table.pivot(index=["question", "reference"], columns="system", values="answer")
    asked = table[["question", "reference"]].drop_duplicates().head(count)
    return wide.loc[list(asked.itertuples(index=False, name=None)), systems].reset_index()
