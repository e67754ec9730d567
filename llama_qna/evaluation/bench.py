"""The models of a variant at work: they answer its questions and read its texts. What is compared, others decide."""

from __future__ import annotations

import hashlib
import random
from functools import cache, partial

import pandas as pd

from llama_qna.answering.answerer import Answerer
from llama_qna.answering.retrieval import fitted_prompt
from llama_qna.evaluation.free_rows import document_sentences, free_predictions
from llama_qna.evaluation.reading import read_rows, rows_asked
from llama_qna.evaluation.scoring import Said, asked_of, gold_of, scored
from llama_qna.models import prompts
from llama_qna.models.lineage import Point
from llama_qna.project.data import GENERAL_TEXT, read_chunks
from llama_qna.project.gold import FOLDS
from llama_qna.project.systems import PASSAGES
from llama_qna.project.variant import Variant
from llama_qna.text.scores import rouge, score

WIKITEXT2 = ("Salesforce/wikitext", "wikitext-2-raw-v1")  # on the Hugging Face hub
RECALLED = 5  # chunks at least that retrieval is asked for, so that recall@5 can be told
PUBLISHED = {"questions": 256, "max_new_tokens": 200, "temperature": 0.6}  # the study's
Asked = list[tuple[dict, list[int]]]  # what is known of each answer before it is given, and its prompt's `input_ids`


def texts_of(variant: Variant) -> dict[str, str]:
    """What models read, by kind: the text trained on, held-out sections if any, general text, WikiText-2 if wanted."""
    files = {"domain": variant.chunks / "text.txt", "heldout": variant.chunks / "heldout.txt", "general": GENERAL_TEXT}
    texts = {kind: path.read_text(encoding="utf-8") for kind, path in files.items()}
    if variant.recipe.evaluation.wikitext2:
        texts["wikitext2"] = wikitext2()
    return {kind: text for kind, text in texts.items() if text}


def wikitext2() -> str:
    """The raw test split of WikiText-2 (Merity et al. 2016, arXiv:1609.07843), its lines joined by blank lines.

    They are joined as in the guide to perplexity of Hugging Face's transformers. Where the hub cannot be reached and
    nothing of it was kept on this machine, a line says so and the text is empty.
    """
    from datasets import disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.utils import logging

    disable_progress_bars()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # it would tell of every attempt
    try:
        rows = load_dataset(*WIKITEXT2, split="test")
    except (OSError, DatasetsError) as error:  # datasets turns what the network does into one of these
        print(f"WikiText-2 is left out: {WIKITEXT2[0]} cannot be loaded from the hub ({type(error).__name__})")
        return ""
    finally:
        logging.set_verbosity(verbosity)
    return "\n\n".join(rows["text"])


class Bench:
    """The questions and texts of a variant, the answerer that is asked, and every prediction so far.

    Args:
        pairs: the pairs of the variant, as `project.data.read_qna` gives them.
        questions: its gold questions, as `project.gold.read_gold` gives them, or None.
        unanswerable: questions that its documents do not answer, as `project.gold.read_unanswerable` gives them.
    """

    def __init__(
        self,
        variant: Variant,
        pairs: pd.DataFrame,
        questions: pd.DataFrame | None,
        texts: dict[str, str],
        unanswerable: pd.DataFrame | None = None,
    ):
        self.recipe, self.settings = variant.recipe, variant.recipe.evaluation
        self.questions, self.unanswerable, self.texts = questions, unanswerable, texts
        self.answerer = Answerer(variant)
        self.tokenizer, self.passages = self.answerer.tokenizer, self.answerer.passages
        trained, length = pairs[pairs.split == "train"], self.recipe.finetuning.max_length
        self.trained_pairs = prompts.fitting_pairs(self.tokenizer, trained, length)  # the others were left out
        self.chunks = read_chunks(variant)
        self.sentences = document_sentences(self.chunks)
        self.predictions, self.published_perplexity = [], {}
        self._asked = cache(self._prompted)  # the same for every model

    def load(self, point: Point):
        """The model of a point, as the answerer loads it."""
        return self.answerer.models.load(point.weights, point.adapter)

    def perplexities(self, model, whole: bool = True) -> dict[str, dict]:
        """What `evaluation.perplexity.perplexity` finds on each text, by its kind; not whole: on its sample alone."""
        from llama_qna.evaluation.perplexity import perplexity

        options = {"window": self.settings.window, "stride": self.settings.stride, "whole": whole}
        options["sample"] = self.settings.sample_windows
        return {kind: perplexity(model, self.tokenizer, text, **options) for kind, text in self.texts.items()}

    def in_sample(self, system: str) -> Asked:
        """The training questions, as many as the recipe wants; `sample` says which of them every checkpoint is asked.

        The sample is drawn once, by the recipe's seed.
        """
        pairs = self.trained_pairs.head(self.settings.max_questions or len(self.trained_pairs))
        count = min(self.settings.sample, len(pairs))
        drawn = set(random.Random(self.recipe.seed).sample(range(len(pairs)), count))
        return [
            (
                {"protocol": "in_sample", "system": system, "sample": n in drawn, "chunk_id": pair.chunk_id,
                 "question": pair.Question, "reference": pair.Answer},
                prompts.question_ids(self.tokenizer, pair.Question),
            )
            for n, pair in enumerate(pairs.itertuples())
        ]  # fmt: skip

    def gold(self, point: Point, system: str, protocol: str, context: str = "none") -> Asked:
        """Gold questions without context, with the chunks that retrieval finds, or with the right chunk.

        Args:
            protocol: a fold; with " unanswerable" after it the questions that the documents do not answer.
        """
        about = {"protocol": protocol, "system": system, "checkpoint": point.name, "context": context}
        return [(about | row, ids) for row, ids in self._asked(protocol, context)]

    def read(self, system: str, point: Point | None = None) -> None:
        """Ask a system that reads the test questions, answerable or not, as a user asks it: through the answerer.

        Args:
            system: of `project.systems.LABELS`, under which its predictions stand.
            point: the trained model that reads; None for the reader.
        """
        self.answerer.finetuned = point
        answer = partial(self.answerer.answer, system=f"finetuned{PASSAGES}" if point else "reader")
        asked = rows_asked(self.questions, self.unanswerable, self.chunks, ["test"])
        about = {"system": system, "checkpoint": point.name if point else "reader", "context": "passages"}
        self.predictions += read_rows(answer, asked, self.sentences, about)

    def free(self) -> float | None:
        """Add the answers of no model to the predictions; the BM25 threshold of one of them, None without questions."""
        if self.questions is None:
            return None
        protocols = [f"{fold}{kind}" for kind in ("", " unanswerable") for fold in FOLDS]
        rows = {protocol: [row for row, _ in self._asked(protocol, "retrieved")] for protocol in protocols}
        predictions, threshold = free_predictions(rows, self.sentences)
        self.predictions += predictions
        return threshold

    def _prompted(self, protocol: str, context: str) -> Asked:
        fold, _, unanswerable = protocol.partition(" ")
        table = self.unanswerable if unanswerable else self.questions
        if table is None:
            return []
        asked = table[table.fold == fold]
        found = given = [[]] * len(asked)
        if context == "retrieved":
            found = self.passages.find(list(asked.Question), max(RECALLED, self.settings.retrieved_chunks))
            given = [sources[: self.settings.retrieved_chunks] for sources in found]
        elif context == "right chunk":
            given = [[self.passages.sources[ids[0]]] for ids in asked.chunk_ids]
        rows = []
        for row, retrieved, sources in zip(asked.itertuples(), found, given, strict=True):
            input_ids, shown = fitted_prompt(self.tokenizer, row.Question, sources)
            about = asked_of(row) if unanswerable else gold_of(row, self.chunks)
            about |= {"retrieved": [source.chunk_id for source in retrieved]}
            about |= {"shown": [source.chunk_id for source in shown]}
            rows.append((about, input_ids))
        return rows

    def likelihoods(self, model, asked: Asked) -> Asked:
        """What is asked, and beside it how likely the reference answer is: its mean log-probability per token, in nats.

        It tells knowledge that greedy decoding hides: a small model may hold the right answer likelier without ever
        writing it.
        """
        from llama_qna.models.likelihood import answer_log_likelihoods

        end = [self.tokenizer.eos_token_id]
        answers = [prompts.encode_document(self.tokenizer, row["reference"]) + end for row, _ in asked]
        found = answer_log_likelihoods(model, [ids for _, ids in asked], answers)
        return [(row | {"log_likelihood": nats}, ids) for (row, ids), nats in zip(asked, found, strict=True)]

    def published(self, model, point: Point) -> None:
        """The study's way: chunks drawn with replacement, sampled answers, references with their label.

        As in the study only the fine-tuned model answers.
        """
        from llama_qna.evaluation.perplexity import published_perplexity

        trained, seed = list(self.chunks[self.chunks.split == "train"].text), self.recipe.seed
        self.published_perplexity[point.stage] = published_perplexity(model, self.tokenizer, trained, seed=seed)
        if point.stage != "finetuning":
            return
        about = {"protocol": "published", "system": point.stage, "checkpoint": point.name}
        asked = [
            (
                about | {"chunk_id": pair.chunk_id, "question": pair.Question, "reference": f"Answer: {pair.Answer}"},
                prompts.question_ids(self.tokenizer, pair.Question),
            )
            for pair in self.trained_pairs.head(PUBLISHED["questions"]).itertuples()
        ]
        self.answer(model, asked, PUBLISHED["temperature"], PUBLISHED["max_new_tokens"])

    def answer(self, model, asked: Asked, temperature: float = 0.0, limit: int | None = None) -> None:
        """Let the model answer, all in one go, and add the scored answers to the predictions in the same order."""
        from llama_qna.models.generate import continue_prompts

        answers = continue_prompts(
            model,
            self.tokenizer,
            [ids for _, ids in asked],
            max_new_tokens=limit or self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
            temperature=temperature,
            seeds=[f"{self.recipe.seed} {row['question']}" for row, _ in asked],
        )
        sentences = [sentence.text for sentence in self.sentences]
        for (row, ids), (answer, ended, *_) in zip(asked, answers, strict=True):
            prompt = hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:16]
            row |= {"prompt_sha256": prompt, "answer": answer}
            if row["protocol"] == "published":
                row |= rouge(answer, row["reference"], strip=False)
            elif row["protocol"] == "in_sample":
                row |= score(answer, row["reference"], [], row["question"], ended)
            else:
                row = scored(row, Said(answer), sentences, shows=False, ended=ended)
            self.predictions.append(row)
