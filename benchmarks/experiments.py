"""What makes the models better: a few ways of training `paper_135m`, scored on the gold questions of its dev fold.

    python -m benchmarks.experiments --text 8 --pairs 12 --rank 16     trains and scores one way, 10 to 25 minutes
    python -m benchmarks.experiments --text 8 --pairs 12 --steps 2     the same path in a minute or two; writes nothing
    python -m benchmarks.experiments --table                           prints the tables of docs/experiments.md

One experiment is one run with one seed, named by its settings. It is written with every answer into
`benchmarks/results/experiments.json`, beside the paired differences between all that stand there, and the tables of
docs/experiments.md are written anew. The training loop is a plain one on one core (`--threads`), so that two runs fit
on two cores; steps, losses and scores are the package's. The chunks are those of `runs/paper_135m/chunks`, which are
made if they are missing; the pairs are a committed file.

Two ways that were tried, paraphrases of the chunks and other wordings of the questions, were written for the pairs of
23 November 2026 and went with them; their scores stay.

The first records are of 23 November 2026 and were not made by this file but by an earlier form of it, a throw-away
script, and put into this form afterwards, most scores as it printed them, rounded; their `made` says so. The two forms
differ in the random draws and in the rows of recall: stop words, sentences and the wording of questions were a little
different. There the pretraining on recall was done once and loaded for the three experiments that begin with it; here
each does its own, from the same seed.
"""

import argparse
import json
import random
import re
import time
from datetime import UTC, datetime
from typing import NamedTuple

import pandas as pd

from benchmarks import experiment_scores
from benchmarks.experiment_scores import ONE, PRETRAINED, RESULTS, TUNED, TWO, VARIANT, Scores, compared, tables
from llama_qna.models import prompts
from llama_qna.models.prompts import CONTEXT_TOKENS
from llama_qna.project import provenance
from llama_qna.project.files import write_json
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.text.stopwords import STOPWORDS
from llama_qna.text.words import sentences_of

SEED = 42
LEARNING_RATE, BATCH, RECALL_BATCH, REPLAY_TOKENS = 0.001, 8, 16, 128
WORDS = (6, 70)  # of a sentence that recall asks about: shorter ones say little, longer ones are tables and lists
QUESTIONS = ("What does the text say about {}?", "What is known about {}?", "How is it with {}?", "What holds for {}?",
             "Which fact is about {}?")  # fmt: skip


class Setting(NamedTuple):
    """How one experiment trains: pretraining, if any, then fine-tuning of the same adapter."""

    pairs: int  # epochs of fine-tuning
    text: int = 0  # epochs of pretraining on the text of the chunks
    recall: int = 0  # epochs of pretraining on every sentence, asked for by words of its own, drawn anew each epoch
    contexts: bool = False  # every second epoch of fine-tuning has the pairs from chunks a second time, with the chunk
    retrieval: bool = False  # also asked with chunks that BM25 finds
    rank: int = 0  # of the adapter, and its alpha; 0 is the recipe's
    questions_first: bool = False  # the first half of the epochs of pairs comes before pretraining (arXiv:2402.12847)

    def name(self) -> str:
        epochs = [f"{kind} {getattr(self, kind)}" for kind in ("text", "recall", "pairs") if getattr(self, kind)]
        more = [word for word in ("questions_first",) if getattr(self, word)]
        more += [f"rank {self.rank}"] if self.rank else []
        return ", ".join([", ".join(epochs) + " with contexts" * self.contexts, *more]).replace("_", " ")


def pair_epochs(tokenizer, pairs: pd.DataFrame, body: pd.DataFrame, setting: Setting) -> list[list[dict]]:
    """The rows of every epoch of fine-tuning: every pair once, and with its chunk if wanted."""
    rows = [prompts.training_row(tokenizer, pair.Question, pair.Answer) for pair in pairs.itertuples()]
    epochs = []
    for epoch in range(setting.pairs):
        with_chunks = setting.contexts and epoch % 2 == 0
        epochs.append(rows + (context_rows(tokenizer, pairs, body, SEED + epoch) if with_chunks else []))
    return epochs


def recall_rows(tokenizer, chunks: list[str], seed: int) -> list[dict]:
    """Every whole sentence of some chunks as the answer to a question made of its own words; labels on the sentence.

    A document read as plain text is learnt forwards only, and is not said when a question asks for a part of it
    (Allen-Zhu and Li 2023, arXiv:2309.14316; Berglund et al. 2023, arXiv:2309.12288). Nothing of the pairs is used.
    """
    chance = random.Random(seed)
    found = dict.fromkeys(sentence for chunk in chunks for sentence in sentences_of(chunk))
    whole = [s for s in found if s[:1].isupper() and s[-1:] in ".!?" and WORDS[0] <= len(s.split()) <= WORDS[1]]
    return [prompts.training_row(tokenizer, recall_question(sentence, chance), sentence) for sentence in whole]


def recall_question(sentence: str, chance: random.Random) -> str:
    """Two to five words of a sentence, or a few that stand together; without most numbers, which are asked for."""
    words = [word for word in re.findall(r"\w[\w-]*", sentence) if word.lower() not in STOPWORDS]
    words = [word for word in words if not word[0].isdigit() or chance.random() < 0.15]
    if len(words) < 2 or chance.random() < 0.4:
        all_words = sentence.rstrip(".!?").split()
        count = min(chance.randint(3, 8), len(all_words))
        start = chance.randint(0, len(all_words) - count)
        said = " ".join(all_words[start : start + count])
    else:
        *first, last = chance.sample(words, min(chance.randint(2, 5), len(words)))
        said = f"{', '.join(first)} and {last}"
    return chance.choice(QUESTIONS).format(said.strip(",;: "))


def context_rows(tokenizer, pairs: pd.DataFrame, body: pd.DataFrame, seed: int) -> list[dict]:
    """The pairs from chunks with their chunk in the prompt, half of them with another chunk before or after it."""
    chance, texts, rows = random.Random(seed), dict(zip(body.chunk_id, body.text, strict=True)), []
    for pair in pairs[pairs.recipe != "reference"].itertuples():
        given = [texts[pair.chunk_id]] + [texts[chance.choice(list(texts))]] * (chance.random() < 0.5)
        chance.shuffle(given)
        asked = prompts.fit_chunks(tokenizer, pair.Question, given, CONTEXT_TOKENS)[0]
        answer = prompts.encode_document(tokenizer, pair.Answer) + [tokenizer.eos_token_id]
        rows.append({"input_ids": asked + answer, "labels": [-100] * len(asked) + answer})
    return rows


def train(model, tokenizer, epochs: list[list[dict]], batch_size: int, steps: int | None = None) -> float:
    """Train on the rows of each epoch, with replay, warm-up and a linear fall of the learning rate; seconds.

    Args:
        steps: stop after so many.
    """
    import torch

    from llama_qna.training.loss import Replay, summed_losses

    def padded(batch, key, fill):
        longest = max(len(row[key]) for row in batch)
        return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in batch], device=model.device)

    chance, replay, batches = random.Random(SEED), Replay(tokenizer, REPLAY_TOKENS, SEED), []
    for rows in epochs:  # rows of like length share a batch
        rows, ordered = chance.sample(rows, len(rows)), []
        for start in range(0, len(rows), 50 * batch_size):
            ordered += sorted(rows[start : start + 50 * batch_size], key=lambda row: len(row["input_ids"]))
        parts = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
        batches += chance.sample(parts, len(parts))
    batches = batches[:steps]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, started = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0), time.perf_counter()
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 10) * (1 - step / len(batches))
        ids, labels = padded(batch, "input_ids", 0), padded(batch, "labels", -100)
        mask = padded([{"mask": [1] * len(row["input_ids"])} for row in batch], "mask", 0)
        pieces = replay.take()
        general = torch.tensor(pieces, device=model.device), replay.expected_states(model, pieces)
        loss, nats = summed_losses(model.get_base_model(), ids, mask, labels, general)
        loss = loss / (labels[:, 1:] != -100).sum()
        (loss + replay.share(nats)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0:
            print(f"step {step} of {len(batches)}, loss {loss.item():.3f}", flush=True)
    model.eval()
    return round(time.perf_counter() - started)


def run(setting: Setting, steps: int | None = None) -> dict:
    """Train and score one experiment: its record.

    Args:
        steps: stop each stage of training after so many.
    """
    import torch
    from peft import get_peft_model

    from llama_qna.documents.chunks import load
    from llama_qna.models import adapters
    from llama_qna.models.base import load_base, load_tokenizer
    from llama_qna.models.device import compute_dtype
    from llama_qna.project.data import read_chunks
    from llama_qna.training.cpu import layers

    variant = Variant.load(VARIANT)
    # chunks that are there are taken as they are, so that no other run of the variant stands in the way
    table = read_chunks(variant) if (variant.chunks / "chunks.csv").is_file() else load(variant)
    recipe = variant.recipe
    trained = table[table.split == "train"]
    body = trained[trained.kind == "body"]
    pairs = pd.read_csv(REPOSITORY / "data" / recipe.corpus / "qna.csv").query("split == 'train'")
    torch.manual_seed(SEED)
    tokenizer = load_tokenizer(recipe.base_model)
    model = load_base(recipe.base_model, recipe.quantization)
    rank = {"r": setting.rank, "alpha": setting.rank} if setting.rank else {}
    model = get_peft_model(model, adapters.lora_config(recipe.lora.model_copy(update=rank)))
    dtype = compute_dtype(recipe.quantization)
    for weight in model.parameters():
        weight.data = weight.data.to(dtype) if weight.requires_grad else weight.data
    layers.quicken(model)
    scores, points, seconds = Scores(variant, model, tokenizer, table, pairs), {}, {}
    asked = pair_epochs(tokenizer, pairs, body, setting)
    first = setting.pairs // 2 if setting.questions_first else 0
    if first:
        seconds[experiment_scores.FIRST] = train(model, tokenizer, asked[:first], BATCH, steps)
    recall = [recall_rows(tokenizer, list(body.text), SEED + epoch) for epoch in range(setting.recall)]
    read = [row for text in trained.text for row in prompts.text_rows(tokenizer, text, 512)]
    if epochs := [read] * setting.text + recall:
        seconds["pretraining"] = train(model, tokenizer, epochs, RECALL_BATCH if recall else BATCH, steps)
        points[PRETRAINED] = scores.likelihood() | scores.asked()
    seconds["fine-tuning"] = train(model, tokenizer, asked[first:], BATCH, steps)
    points[TUNED] = scores.likelihood() | scores.asked() | scores.in_sample()
    if setting.retrieval:
        points |= {ONE: scores.asked(1), TWO: scores.asked(2)}
    made = {
        "by": "benchmarks/experiments.py",
        "date": datetime.now(UTC).date().isoformat(),
        "git": provenance.git_state(),
    }
    made |= {"machine": provenance.machine() | {"threads": torch.get_num_threads()}, "versions": provenance.versions()}
    return {"settings": setting._asdict() | {"seed": SEED}, "seconds": seconds, "points": points, "made": made}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.experiments", description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=12, help="epochs of fine-tuning")
    parser.add_argument("--text", type=int, default=0, help="epochs of pretraining on the text of the chunks")
    parser.add_argument("--recall", type=int, default=0, help="epochs of pretraining on sentences asked for")
    parser.add_argument("--contexts", action="store_true", help="fine-tune with chunks in half of the epochs too")
    parser.add_argument("--retrieval", action="store_true", help="ask with chunks that BM25 finds, too")
    parser.add_argument("--rank", type=int, default=0, help="of the adapter, alpha equal to it; 0: the recipe's")
    parser.add_argument("--questions-first", action="store_true", help="half the epochs of pairs before pretraining")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, help="stop each stage after so many steps, and write nothing")
    parser.add_argument("--table", action="store_true", help="print the tables of what was measured, and train nothing")
    options = parser.parse_args()
    if options.table:
        print(tables(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    setting = Setting(**{field: getattr(options, field) for field in Setting._fields})
    if setting.questions_first and not (setting.text or setting.recall):
        parser.error("questions first need --text or --recall")
    import torch

    torch.set_num_threads(options.threads)
    measured = run(setting, options.steps)
    content = json.loads(RESULTS.read_text(encoding="utf-8"))  # now, since another run may have written meanwhile
    content["experiments"][setting.name()] = measured
    content["differences"] = compared(content["experiments"])
    if not options.steps:
        write_json(RESULTS, content)
        experiment_scores.write_page(content)
    print(tables(content))


if __name__ == "__main__":
    main()
