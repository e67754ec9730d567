"""Take a trained model away: as a merged model, an adapter, a GGUF file, or with a Modelfile for Ollama.

Whatever is written is loaded again and asked gold questions, and the model card says how many of its greedy answers are
those of the model that was measured. Where that is the adapter on the base in NF4, `merged` adds the adapter to the
weights that NF4 rounds the base to, not to the base's own 16-bit weights, with which the adapter was never trained.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

from llama_qna import UserError
from llama_qna.models import adapters, planning, prompts
from llama_qna.models.adapters import delta, name_base_in_adapter, stack
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.models.generate import generate_texts
from llama_qna.models.lineage import checkpoints, chosen_checkpoint, shipped_checkpoint, start_of_finetuning
from llama_qna.models.nf4 import dequantize
from llama_qna.project.data import read_chunks, read_qna
from llama_qna.project.files import read_json, sha256, whole_folder, write_json
from llama_qna.project.gold import read_gold
from llama_qna.project.recipe import Quantization
from llama_qna.project.variant import Variant
from llama_qna.reporting.card import check_line, exported_card, hub_name
from llama_qna.serving import engine, gguf
from llama_qna.text import scores

FORMATS = ("merged", "adapter", "gguf", "ollama")
QUESTIONS = 10
RECORD = "export.json"  # marks a folder as an export of ours


def export(variant: Variant, to: str, output: str | Path | None = None, force: bool = False) -> Path:
    """Write the shipped checkpoint in one of `FORMATS`, with its model card and what loading it again showed.

    An export of the same checkpoint that is still whole is left as it is.

    Args:
        output: the folder to make, by default `runs/<variant>/exports/<format>`.
        force: replace an export that is there; any other folder is never touched.

    Returns:
        The folder.

    Raises:
        UserError: nothing is trained yet, the folder exists, or a tool for GGUF is missing.
    """
    adapter = shipped_checkpoint(variant)
    folder = Path(output) if output else variant.run / "exports" / to
    source = {"variant": variant.name, "format": to, "adapter": sha256(adapter / "adapter_model.safetensors")}
    if folder.exists():
        if _is_whole(folder, source):
            print(f"{to}: written before, nothing has changed")
            return folder
        if not (folder / RECORD).is_file():
            raise UserError(f"{folder} exists and is no export: name another folder with --output")
        if not force:
            raise UserError(f"{folder} exists with another export: replace it with --force, or name another --output")
    if to in ("gguf", "ollama"):
        gguf.require_tools()
    with whole_folder(folder) as new:
        _write(variant, adapter, to, source, new)
    return folder


def read_checks(folder: Path) -> list[str]:
    """A line for each comparison of an export's answers with those of the measured model."""
    return [check_line(check) for check in read_json(folder / RECORD)["checks"]]


def _is_whole(folder: Path, source: dict) -> bool:
    """Whether a folder holds this export, every file as it was written."""
    try:
        record = read_json(folder / RECORD)
        same = all(record[key] == value for key, value in source.items())
        return same and all(sha256(folder / name) == digest for name, digest in record["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write(variant: Variant, adapter: Path, to: str, source: dict, folder: Path) -> None:
    # --- the model that was measured: what it says, and what is made of it
    recipe = variant.recipe
    tokenizer, questions = load_tokenizer(recipe.base_model), _questions(variant)
    measured = load_base(recipe.base_model, recipe.quantization, weights=start_of_finetuning(variant)[0])
    measured = adapters.attach_adapter(measured, adapter)
    expected = _answers(variant, measured, questions)
    _write_model(variant, adapter, to, measured, tokenizer, folder)
    del measured  # a card may hold one model alone

    # --- what was written, loaded again: one model after the other
    again = _loaded(variant, to, folder, questions)
    against = f"the model that was measured, the adapter on the base in {recipe.quantization.in_words}"
    compared = [_compare(loaded, against, questions, expected, found) for loaded, found in again]
    evaluated = chosen_checkpoint(variant) == adapter
    (folder / "README.md").write_text(exported_card(variant, to, evaluated, compared), encoding="utf-8")
    files = {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    about = {"checkpoint": adapter.name, "evaluated": evaluated, "checks": compared, "files": files}
    write_json(folder / RECORD, source | about)


def _write_model(variant: Variant, adapter: Path, to: str, measured, tokenizer, folder: Path) -> None:
    """Write what the format asks for; a GGUF file is made of the merged model, a Modelfile names a GGUF file."""
    if to == "adapter":
        save_adapter(variant, adapter, folder)
        save_tokenizer(tokenizer, folder)
        return
    merged = folder if to == "merged" else folder / "plain"
    merged_model(variant, measured).save_pretrained(merged)
    save_tokenizer(tokenizer, merged)
    if to == "merged":
        return
    gguf.convert(merged, _gguf_file(variant, folder))
    shutil.rmtree(merged)
    if to == "ollama":
        tokenizer.chat_template = template_with_start(tokenizer)
        text = gguf.modelfile(tokenizer, _gguf_file(variant, folder).name, variant.recipe.evaluation.max_new_tokens)
        (folder / "Modelfile").write_text(text, encoding="utf-8")


def _gguf_file(variant: Variant, folder: Path) -> Path:
    return folder / f"{variant.name}-q8_0.gguf"


def _loaded(variant: Variant, to: str, folder: Path, questions: list[str]) -> Iterator[tuple[str, list[str]]]:
    """How an export was loaded again, and its answers; what memory has no room for is left out, with a line."""
    if to in ("gguf", "ollama"):
        limit = variant.recipe.evaluation.max_new_tokens
        yield "in llama.cpp, weights in 8 bits", gguf.answers(_gguf_file(variant, folder), questions, limit)
        return
    ways = {"loaded in 16 bits": None}
    if to == "adapter":
        measured = variant.recipe.quantization
        ways = {f"on the base in {measured.in_words}": measured}
        ways.setdefault("on the base in 16 bits", None)
    for said, quantization in ways.items():
        if planning.fits(variant.recipe.base_model, quantization):
            yield said, _answers(variant, _load(variant, to, folder, quantization), questions)
        else:
            print(f"{to}: not asked {said}, for which there is not enough memory here")


def _load(variant: Variant, to: str, folder: Path, quantization: Quantization | None):
    if to == "merged":
        return load_base(str(folder), None)
    return adapters.attach_adapter(load_base(variant.recipe.base_model, quantization), folder)


def merged_model(variant: Variant, measured):
    """The measured model in 16-bit weights: those that NF4 stands for, or the base's own, plus the adapter; W + BA.

    The sum is rounded to 16 bits once, as `adapters` does for `dequantize_once`; there the two are bit-equal.

    Args:
        measured: the base as it was measured, with the adapter attached.
    """
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora import LoraLayer

    recipe = variant.recipe
    # in main memory, as `adapters.merge_adapter`
    unquantized = recipe.quantization.unquantized
    plain = load_base(recipe.base_model, unquantized, weights=start_of_finetuning(variant)[0], on="cpu")
    for name, layer in measured.get_base_model().named_modules():
        is_lora = isinstance(layer, LoraLayer)
        base = layer.get_base_layer() if is_lora else layer
        is_nf4 = isinstance(base, Linear4bit)
        if name.endswith(".base_layer") or not (is_lora or is_nf4):
            continue
        weight = dequantize(base)
        if is_lora:
            weight = weight.float() + delta(layer)
        plain.get_submodule(name).weight.data = weight.to(device="cpu", dtype=plain.dtype)
    return plain


def save_adapter(variant: Variant, adapter: Path, folder: Path) -> None:
    """Save an adapter for the base of the recipe, under the base's name on the hub.

    With `stacking: merge` fine-tuning began from a base with the pretraining adapter merged into it; the adapter saved
    is then both in one (`adapters.stack`).
    """
    stacked = folder / "stacked"
    if start_of_finetuning(variant)[0] is not None:
        adapter = stack(checkpoints(variant.pretraining)[-1], adapter, stacked)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(adapter / name, folder / name)
    shutil.rmtree(stacked, ignore_errors=True)
    name_base_in_adapter(folder, hub_name(variant.recipe.base_model))


def save_tokenizer(tokenizer, folder: Path) -> None:
    """Save a tokenizer with the template of this package, leaving the one in memory as it is."""
    ours = copy.deepcopy(tokenizer)
    ours.chat_template = template_with_start(tokenizer)
    ours.save_pretrained(folder)


def template_with_start(tokenizer) -> str:
    """The template of `engine.chat_template`, with the start token where the tokenizer adds none to a template's text.

    For one question it renders what `prompts.question_ids` encodes, so any server that applies it asks as we do.
    """
    template = engine.chat_template(tokenizer)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], chat_template=template, add_generation_prompt=True, return_dict=True
    )
    added = asked["input_ids"] != prompts.question_ids(tokenizer, "Why?")  # the start token, by the tokenizer alone
    return "{{- bos_token -}}" + template if added else template


def _questions(variant: Variant) -> list[str]:
    """Gold questions of the fold that scores are reported on; those trained on where the corpus has no gold."""
    if variant.gold.is_file():
        questions = read_gold(variant.gold, read_chunks(variant))
        tested = questions[questions.fold == "test"]
        if len(tested):
            return list(tested.Question.head(QUESTIONS))
    return list(read_qna(variant).Question.head(QUESTIONS))


def _answers(variant: Variant, model, questions: list[str]) -> list[str]:
    """Greedy answers, in the template that fine-tuning used."""
    tokenizer, settings = load_tokenizer(variant.recipe.base_model), variant.recipe.evaluation
    input_ids = [prompts.question_ids(tokenizer, question) for question in questions]
    limits = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size}
    return generate_texts(model, tokenizer, input_ids, **limits)


def _compare(loaded: str, against: str, questions: list[str], expected: list[str], found: list[str]) -> dict:
    """How near the answers of what was written are to those of the measured model."""
    pairs = list(zip(found, expected, strict=True))
    near = [1.0 if own == reference else scores.rouge(own, reference)["rougeL"] for own, reference in pairs]
    asked = zip(questions, expected, found, strict=True)
    return {
        "loaded": loaded,
        "against": against,
        "questions": len(questions),
        "same": sum(own == reference for own, reference in pairs),
        "rougeL": sum(near) / len(near),
        "answers": [{"question": q, "measured": measured, "exported": own} for q, measured, own in asked],
    }
