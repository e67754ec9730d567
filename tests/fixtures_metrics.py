"""Made-up but realistic content of `metrics.json` and of the two training logs, for tests of figures and results."""

from statistics import fmean, stdev

from llama_qna.text.scores import ROUGE_NAMES

PRETRAINING_LOG = [{"step": 2 * n, "epoch": n / 2, "loss": 3.0 / n, "learning_rate": 1e-3} for n in range(1, 7)]
FINETUNING_LOG = [{"step": 4 * n, "epoch": n / 3, "loss": 2.0 / n**2, "learning_rate": 1e-3} for n in range(1, 6)]
ABOUT = "SmolLM2-135M-Instruct on the Wicketfold paper"

# stage, step, perplexity on domain, heldout, general; ROUGE-1, 2, L on the training questions; ROUGE-L, F1 on dev
CHECKPOINTS = [
    ("base", 0, 17.75, 20.0, 40.0, 0.21, 0.11, 0.19, 0.18, 0.15),
    ("pretraining", 6, 6.5, 15.0, 40.5, 0.22, 0.12, 0.20, 0.19, 0.16),
    ("pretraining", 12, 2.5, 14.0, 41.0, 0.2345, 0.13, 0.21, 0.20, 0.17),
    ("finetuning", 10, 2.75, 14.5, 42.0, 0.50, 0.40, 0.48, 0.31, 0.28),
    ("finetuning", 20, 3.0, 15.0, 43.0, 0.7077, 0.60, 0.68, 0.30, 0.27),
]
# name, label, checkpoint, context, ROUGE-L on the held-out questions; the other scores are `COMPARED` lower
SYSTEMS = [
    ("question", "the question itself", "none", "no model", 0.27),
    ("best_sentence", "the best sentence (BM25)", "none", "no model", 0.34),
    ("base", "base", "base", "none", 0.20),
    ("pretrained", "pretrained", "pretraining checkpoint-12", "none", 0.22),
    ("finetuned_only", "fine-tuned without pretraining", "finetuning_only checkpoint-20", "none", 0.29),
    ("finetuned", "fine-tuned", "finetuning checkpoint-10", "none", 0.33),
    ("base+passages", "base with passages", "base", "retrieved", 0.32),
    ("finetuned+passages", "fine-tuned with passages", "finetuning checkpoint-10", "retrieved", 0.45),
    ("base+right_chunk", "base given the right chunk", "base", "right chunk", 0.50),
    ("gold_evidence", "the gold evidence sentence", "none", "no model", 0.60),
]
COMPARED = {"right": 0.1, "new_words_f1": 0.05, "rougeL": 0.0, "f1": 0.02}  # each score, and how much lower it is


def score(mean, width=0.05):
    return {"mean": mean, "low": mean - width, "high": mean + width}


def difference(mean):
    return score(mean) | {"p": 0.004, "p_holm": 0.012 if abs(mean) > 0.05 else 0.4}


def checkpoint(stage, step, domain, heldout, general, rouge1, rouge2, rougeL, dev_rougeL, dev_f1):
    texts = {"domain": domain, "heldout": heldout, "general": general}
    found = {
        "name": stage if stage == "base" else f"{stage} checkpoint-{step}",
        "stage": stage,
        "step": step,
        "perplexity": {
            text: {"perplexity": value, "nll": 1.0, "tokens": 10, "bits_per_byte": 0.5} for text, value in texts.items()
        },
        "rouge": {"rouge1": rouge1, "rouge2": rouge2, "rougeL": rougeL},
        "sample": {"perplexity": texts, "rouge": {"rouge1": rouge1, "rouge2": rouge2, "rougeL": rougeL}},
        "dev": {"rougeL": dev_rougeL, "f1": dev_f1, "right": 0.1, "new_words_f1": 0.2},
        "dev_interval": {
            score: {"low": mean - 0.03, "high": mean + 0.04} for score, mean in (("rougeL", dev_rougeL), ("f1", dev_f1))
        },
    }
    if stage != "base":
        found["dev_against_base"] = {"rougeL": difference(dev_rougeL - 0.18), "f1": difference(dev_f1 - 0.15)}
    return found


def system(name, label, of, context, rougeL):
    means = {"rouge1": rougeL + 0.02, "rouge2": rougeL / 2, "rougeL": rougeL, "exact_match": 0.08, "f1": rougeL - 0.02}
    means |= {"right": rougeL - 0.1, "right_own": rougeL / 5, "new_words_f1": rougeL - 0.05}
    means |= {"copied": 0.1, "says_so": 0.0, "empty": 0.0, "run_on": 0.04}
    if context == "no model" and name != "question":
        means |= {"evidence_right": 0.4, "page_right": 0.6, "answer_or_evidence": 0.5}
    others = {other: value for other, _, _, _, value in SYSTEMS if other != name}
    against = {
        other: {key: difference(rougeL - others[other]) for key in COMPARED}
        for other in ("question", "best_sentence", "base", "base+passages", "finetuned_only")
        if other != name
    }
    found = {"name": name, "label": label, "checkpoint": of, "context": context, "against": against}
    found["scores"] = {key: score(mean) for key, mean in means.items()}
    for sections, questions in (("trained_sections", 40), ("heldout_sections", 10)):
        found[sections] = {key: rougeL - lower for key, lower in COMPARED.items()} | {"questions": questions}
    found["kinds"] = {"name": {"questions": 20, "right": score(rougeL), "new_words_f1": score(rougeL)}}
    found["says_so"] = None
    if context in ("retrieved", "no model"):
        found["says_so"] = {"right": score(0.3), "wrong": score(0.1), "unanswerable": 25, "answerable": 40}
    return found


def _raised(rouge):
    """Scores by the study's arithmetic, a little higher."""
    return {key: value + 0.01 for key, value in zip(ROUGE_NAMES, rouge, strict=True)}


def metrics(variant="paper_135m"):
    """A run with gold questions, in every protocol."""
    scored = {"base": (0, 18.0), "pretraining": (2, 3.0), "finetuning": (4, 3.5)}
    return {
        "variant": variant,
        "base_model": "embedded/smollm2-135m-instruct",
        "protocols": {name: "a sentence." for name in ("in_sample", "heldout", "published", "perplexity")},
        "questions": {"in_sample": 87, "dev": 30, "test": 50},
        "unanswerable": 25,
        "dev": {"question": {"right": 0.0, "new_words_f1": 0.0, "rougeL": 0.26, "f1": 0.3}},
        "checkpoints": [checkpoint(*values) for values in CHECKPOINTS],
        "chosen": "finetuning checkpoint-10",
        "systems": [system(*values) for values in SYSTEMS],
        "retrieval": {"recall@1": 0.6, "recall@3": 0.8, "recall@5": 0.9, "questions": 50},
        "published": [
            {
                "name": name,
                "perplexity": perplexity,
            }
            | ({"rouge": _raised(CHECKPOINTS[row][5:8])} if row == 4 else {})
            for name, (row, perplexity) in scored.items()
        ],
    }


def sources(metrics):
    """What the figures of a run with these metrics are made of."""
    logs = {"pretraining": PRETRAINING_LOG, "finetuning": FINETUNING_LOG}
    return {"metrics": metrics, "logs": logs, "progress": {}, "results": {}}


def without_gold(variant="paper_135m"):
    """A run of a user's corpus: no gold questions, no sections held out, only our own protocol in-sample."""
    content = metrics(variant) | {"chosen": "finetuning checkpoint-20", "retrieval": None}
    content["questions"] = {"in_sample": 87, "dev": 0, "test": 0}
    for found in content["checkpoints"]:
        (
            found.pop("dev"),
            found.pop("dev_interval"),
            found.pop("dev_against_base", None),
            found["perplexity"].pop("heldout"),
            found["sample"]["perplexity"].pop("heldout"),
        )
    del content["systems"], content["published"]
    return content


def seeds(variant="paper_135m"):
    """Content of `seeds.json`: three seeds, the second one worst in what is held out."""
    values = {
        "test rougeL": [0.3, 0.2, 0.25],
        "test f1": [0.32, 0.22, 0.27],
        "in_sample rougeL": [0.6, 0.7, 0.8],
    }
    values |= {"perplexity general": [42.0, 43.0, 44.0]}
    scores = {
        name: {
            "seeds": dict(zip(("42", "43", "44"), found, strict=True)),
            "mean": fmean(found),
            "standard_deviation": stdev(found),
        }
        for name, found in values.items()
    }
    return {"variant": variant, "questions": {"test": 50, "in_sample": 87}, "perplexity": {}, "scores": scores}


PAGES = {  # with generated parts
    "README.md": ("examples", "results", "minutes"),
    "docs/results.md": ("found", "worth", "results", "samples"),
    "notebooks/README.md": ("minutes",),
}


def pages(root):
    """Write the pages that publishing fills, with nothing between their marks."""
    for page, names in PAGES.items():
        (root / page).parent.mkdir(exist_ok=True)
        (root / page).write_text("".join(f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in names))
