"""What makes the models better: a few ways of training `paper_135m`, scored on the gold questions of its dev fold.

    python benchmarks/experiments.py NAME [--threads 1]     trains and scores one of `EXPERIMENTS`, 10 to 25 minutes
    python benchmarks/experiments.py --table                prints the tables of docs/experiments.md

One experiment is one run with one seed. It is written with every answer into `benchmarks/results/experiments.json`,
beside the paired differences between all that stand there. The training loop is a plain one on one core, so that two
runs fit on two cores; steps, losses and scores are the package's.

The committed records are of 23 November 2026 and were not made by this file but by an earlier form of it, a throw-away
script, and put into this form afterwards, most scores as it printed them, rounded; this form has not been run. The two
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
from experiment_scores import ONE, PRETRAINED, RESULTS, TUNED, TWO, VARIANT, Scores, compared, tables

from llama_qna import prompts, records
from llama_qna.measuring import CONTEXT_TOKENS
from llama_qna.pair_filters import STOPWORDS
from llama_qna.pair_writers import sentences_of
from llama_qna.variants import REPOSITORY, Variant

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


EXPERIMENTS = {
    "pairs 12": Setting(12),
    "text 20, pairs 12": Setting(12, text=20),
    "text 8, pairs 12": Setting(12, text=8),
    "recall 12, pairs 6": Setting(6, recall=12),
    "recall 12, pairs 12": Setting(12, recall=12, retrieval=True),
    "recall 12, pairs 5 with contexts": Setting(5, recall=12, contexts=True, retrieval=True),
}


def recall_rows(tokenizer, chunks: list[str], seed: int) -> list[dict]:
    """Every whole sentence of some chunks as the answer to a question made of its own words; labels on the sentence.

    A document read as plain text is learnt forwards only, and is not said when a question asks for a part of it
    (Allen-Zhu and Li 2023, arXiv:2309.14316; Berglund et al. 2023, arXiv:2309.12288). Nothing of the pairs is used.
    """
    chance = random.Random(seed)
    found = dict.fromkeys(sentence for chunk in chunks for sentence in sentences_of(chunk))
    whole = [s for s in found if s[:1].isupper() and s[-1:] in ".!?" and WORDS[0] <= len(s.split()) <= WORDS[1]]
    return [prompts.training_row(tokenizer, recall_question(sentence, chance), sentence, 256) for sentence in whole]


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
        asked = prompts.context_question_ids(tokenizer, pair.Question, given, CONTEXT_TOKENS)
        answer = prompts.encode_document(tokenizer, pair.Answer) + [tokenizer.eos_token_id]
        rows.append({"input_ids": asked + answer, "labels": [-100] * len(asked) + answer})
    return rows


def train(model, tokenizer, epochs: list[list[dict]], batch_size: int) -> float:
    """Train on the rows of each epoch, with replay, warm-up and a linear fall of the learning rate; seconds."""
    import torch

    from llama_qna import losses

    def padded(batch, key, fill):
        longest = max(len(row[key]) for row in batch)
        return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in batch], device=model.device)

    chance, replay, batches = random.Random(SEED), losses.Replay(tokenizer, REPLAY_TOKENS, SEED), []
    for rows in epochs:  # rows of like length share a batch
        rows, ordered = chance.sample(rows, len(rows)), []
        for start in range(0, len(rows), 50 * batch_size):
            ordered += sorted(rows[start : start + 50 * batch_size], key=lambda row: len(row["input_ids"]))
        parts = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
        batches += chance.sample(parts, len(parts))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, started = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0), time.perf_counter()
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 10) * (1 - step / len(batches))
        ids, labels = padded(batch, "input_ids", 0), padded(batch, "labels", -100)
        mask = padded([{"mask": [1] * len(row["input_ids"])} for row in batch], "mask", 0)
        loss = losses.labelled_loss(model.get_base_model(), ids, mask, labels) / (labels[:, 1:] != -100).sum()
        (loss + replay.loss(model)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0:
            print(f"step {step} of {len(batches)}, loss {loss.item():.3f}", flush=True)
    model.eval()
    return round(time.perf_counter() - started)


def run(setting: Setting) -> dict:
    """Train and score one experiment: its record."""
    import torch
    from peft import get_peft_model

    from llama_qna import chunks, kernels, models

    variant = Variant.load(VARIANT)
    table, recipe = chunks.load(variant), variant.recipe
    trained = table[table.split == "train"]
    body = trained[trained.kind == "body"]
    pairs = pd.read_csv(REPOSITORY / "data" / recipe.corpus / "qna.csv").query("split == 'train'")
    torch.manual_seed(SEED)
    tokenizer = models.load_tokenizer(recipe.base_model)
    model = models.load_base(recipe.base_model, recipe.quantization)
    model = get_peft_model(model, models.lora_config(recipe.lora))
    for weight in model.parameters():
        weight.data = weight.data.bfloat16() if weight.requires_grad else weight.data
    kernels.use_short_attention(model.get_base_model())
    kernels.fuse_lora(model)
    scores, points, seconds = Scores(variant, model, tokenizer, table, pairs), {}, {}
    texts = [prompts.text_row(tokenizer, text, 512) for text in trained.text]
    recall = [recall_rows(tokenizer, list(body.text), SEED + epoch) for epoch in range(setting.recall)]
    if epochs := [texts] * setting.text + recall:
        seconds["pretraining"] = train(model, tokenizer, epochs, RECALL_BATCH if recall else BATCH)
        points[PRETRAINED] = scores.likelihood() | scores.asked()
    rows = [prompts.training_row(tokenizer, q, a, 256) for q, a in zip(pairs.Question, pairs.Answer, strict=True)]
    epochs = [
        rows + (context_rows(tokenizer, pairs, body, SEED + n) if setting.contexts and n % 2 == 0 else [])
        for n in range(setting.pairs)
    ]
    seconds["fine-tuning"] = train(model, tokenizer, epochs, BATCH)
    points[TUNED] = scores.likelihood() | scores.asked() | scores.in_sample()
    if setting.retrieval:
        points |= {ONE: scores.asked(1), TWO: scores.asked(2)}
    made = {"by": "benchmarks/experiments.py", "date": datetime.now(UTC).date().isoformat(), "git": records.git_state()}
    made |= {"machine": records.machine() | {"threads": torch.get_num_threads()}, "versions": records.versions()}
    return {"settings": setting._asdict() | {"seed": SEED}, "seconds": seconds, "points": points, "made": made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the tables of what was measured, and train nothing")
    options = parser.parse_args()
    if options.name and not options.table:
        import torch

        torch.set_num_threads(options.threads)
        measured = run(EXPERIMENTS[options.name])
        content = json.loads(RESULTS.read_text(encoding="utf-8"))
        content["experiments"][options.name] = measured
        records.write_json(RESULTS, content | {"differences": compared(content["experiments"])})
    print(tables(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
