"""What the tests of models, generation, training and evaluation share: the embedded model in three forms, a tiny Llama,
and one small run of every stage. Each is made once a session; none may be changed by a test."""

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import typst
import yaml

from llama_qna.evaluation import bench, protocols
from llama_qna.models.base import EMBEDDED, load_base, load_tokenizer
from llama_qna.project.gold import GOLD_COLUMNS
from llama_qna.project.recipe import Quantization
from llama_qna.project.variant import REPOSITORY, Variant

PAIRS = [
    ("What did the first test show?", "The first test showed a loss of nine percent."),
    ("Who wrote the manual?", "Ilse Brandt wrote the manual in four weeks."),
    ("Where is the workshop?", "The workshop is behind the old mill."),
    ("How heavy is the lid?", "The lid weighs three kilograms."),
]
# the fixture's corpus: sentences of the shipped paper, few enough that a model on two cores reads them in no time
PAGE = """
#set page(width: 400pt, height: 500pt)
#set heading(numbering: "1.1")
Wicketfold: Traffic-Weighted Pruning for Early-Exit Networks on Small Devices

#heading(numbering: none)[Abstract]
We describe Wicketfold, a method that prunes, quantizes and trains an early-exit network with one shared quantity, the
traffic of a stage. On Hedgerow-31, a camera-trap data set with 31 classes, Wicketfold reaches 84.1% accuracy with a
mean of 23.6 million multiply-accumulate operations per image; the dense 8-bit network reaches 84.6% with 56.0 million.
Over three data sets the mean saving is 57.4% of the operations for a mean loss of 0.53 points of accuracy. The weights
take 436 KB of flash memory.

= Introduction
Wicketfold treats pruning and early exit as one problem. Its central quantity is the traffic of a stage, defined as the
fraction of inputs that reach that stage. We call the exit classifiers wickets, after the small door in a large gate
that lets a single person through without opening the gate. In a field test with 14 camera boxes, the whole box saved
only 8.9% of its daily energy, because inference is a small part of what a camera box consumes.

= Related Work
BranchyNet \\[6\\] attaches side branches to a convolutional network and stops when the entropy of a branch is below a
threshold. SkipNet \\[8\\] does not stop but skips single residual blocks, with gates trained by a mix of supervised
and reinforcement learning. Shallow-Deep Networks \\[9\\] showed that a deep network often reaches the right answer at
an intermediate layer.
"""
# about that page
WRITTEN = ["question_id", "Question", "Answer", "variants", "kind", "section", "fold", "evidence"]
GOLD = [
    (
        "page-1", "Which object lent the wickets their name?", "They are named after the small door in a large gate.",
        "a small door | the small door in a large gate", "name", "1 Introduction", "dev",
        "We call the exit classifiers wickets, after the small door in a large gate",
    ),
    (
        "page-2", "How much daily energy did a whole camera box save in the field?", "The whole box saved only 8.9%.",
        "8.9%", "number", "1 Introduction", "dev", "the whole box saved only 8.9% of its daily energy",
    ),
    (
        "page-3", "How accurate is the dense 8-bit network?", "It reaches 84.6%.",
        "84.6%", "number", "Abstract", "test", "84.6% with 56.0 million. Over three data sets",  # in two chunks
    ),
    (
        "page-4", "What does SkipNet leave out?", "SkipNet skips single residual blocks.",
        "single residual blocks", "mechanism", "2 Related Work", "test",
        "SkipNet [8] does not stop but skips single residual blocks",
    ),
]  # fmt: skip
GENERAL = "We walked to the harbour after lunch. The boats were late, so we had tea and talked about the garden.\n"
SAMPLED_TOKENS = 12


@cache
def tokenizer():
    return load_tokenizer(EMBEDDED)


@cache
def float32_base():
    """The embedded model in float32, where no two words tie and the order of sums hardly matters."""
    return load_base(EMBEDDED, None).float()


@cache
def dequantized_base():
    """The embedded model in NF4 as the shipped recipe loads it."""
    return load_base(EMBEDDED, Quantization(dequantize_once=True))


def tiny_llama(vocabulary: int = 49152, seed: int = 0):
    """A random two-layer Llama in float32, its weights large enough that every word depends on those before it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config).eval()


@cache
def _shallow_folder(folder: Path) -> Path:
    model = load_base(EMBEDDED, None)
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", name="shallow_folder")
def shallow_folder_fixture(tmp_path_factory):
    """The embedded model's first two layers as a model folder, for what would take long on all thirty."""
    return _shallow_folder(tmp_path_factory.getbasetemp() / "shallow")


def write_variant(
    root: Path, base_model: str = EMBEDDED, top: dict | None = None, gold: bool = True, **stage
) -> Variant:
    """A variant `small` below `root`: the shipped recipe made small, a PDF of one page, four pairs.

    `top` is added to the recipe, `stage` to both training stages; without `gold` the corpus is a user's own, with no
    gold questions.
    """
    recipe = yaml.safe_load((REPOSITORY / "paper_135m/variant.yaml").read_text())
    steps = {"max_steps": 3, "save_steps": 2, "logging_steps": 1, "batch_size": 24, "max_length": 64}
    steps |= {"learning_rate": 1e-3, "warmup_steps": 0, "replay_tokens": 0} | stage
    recipe |= {"base_model": base_model, "stacking": "merge"} | (top or {})
    recipe["chunking"] = {"chunk_size": 400, "chunk_overlap": 100}
    recipe["heldout"] = {"fraction": 0}
    recipe["lora"] |= {"r": 8, "alpha": 16, "dropout": 0.0}
    recipe["generation"] |= {"qna_file": "pairs.csv", "reference_questions": False}
    recipe["pretraining"] |= steps
    recipe["finetuning"] |= steps
    recipe["evaluation"] |= {"window": 128, "stride": 64, "max_new_tokens": 4, "max_questions": 2}
    recipe["evaluation"] |= {"sample": 1, "sample_windows": 2}
    (root / "small").mkdir(parents=True, exist_ok=True)
    (root / "small/variant.yaml").write_text(yaml.safe_dump(recipe))
    rows = "".join(f"{question},{answer}\n" for question, answer in PAIRS)
    (root / "pairs.csv").write_text("Question,Answer\n" + rows)
    if gold:
        write_gold(root / "data/paper/gold.csv")
    pdf = root / "data/pdfs/paper/page.pdf"
    if not pdf.exists():
        pdf.parent.mkdir(parents=True)
        pdf.write_bytes(typst.compile(PAGE.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_QNA_ROOT", str(root))
        return Variant.load("small")


def write_gold(path: Path, rows=GOLD, **changed) -> None:
    """A gold file on the fixture's page; `changed` replaces columns of its first row."""
    table = [dict(zip(WRITTEN, row, strict=True)) | {"document": "page", "chunk_split": "train"} for row in rows]
    table[0] |= changed
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table)[GOLD_COLUMNS].to_csv(path, index=False)


@dataclass
class Run:
    variant: Variant
    pretrained: dict  # the stage's record
    finetuned: dict
    metrics: dict


@cache
def _small_run(root: Path) -> Run:
    from llama_qna.documents.chunks import load
    from llama_qna.pairs.qna import generate
    from llama_qna.training.stages import finetune, pretrain

    variant = write_variant(root)
    load(variant)
    generate(variant)
    pretrained, finetuned = pretrain(variant), finetune(variant)
    finetune(variant, only=True)
    with pytest.MonkeyPatch.context() as patch:
        shorten_evaluation(patch, root)
        return Run(variant, pretrained, finetuned, protocols.evaluate(variant))


def shorten_evaluation(patch: pytest.MonkeyPatch, root: Path) -> None:
    """A short general text, and short answers in the study's protocol too."""
    (root / "general.txt").write_text(GENERAL)
    patch.setattr(bench, "GENERAL_TEXT", root / "general.txt")
    patch.setattr(bench, "PUBLISHED", bench.PUBLISHED | {"max_new_tokens": SAMPLED_TOKENS})


@pytest.fixture(scope="session", name="small_run")
def small_run_fixture(tmp_path_factory):
    """Every stage up to `evaluate`, once, on the embedded model."""
    return _small_run(tmp_path_factory.getbasetemp() / "small_run")


@cache
def _shallow_root(root: Path, folder: Path) -> Path:
    from llama_qna.documents.chunks import load
    from llama_qna.pairs.qna import generate

    variant = write_variant(root, str(folder), gold=False)
    load(variant)
    generate(variant)
    return root


@pytest.fixture(name="shallow_variant")
def shallow_variant_fixture(shallow_folder, tmp_path):
    """A variant on the shallow model whose chunks and pairs are made, without gold questions; a copy for each test."""
    root = _shallow_root(shallow_folder.with_name("shallow_root"), shallow_folder)
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    yield write_variant(tmp_path, str(shallow_folder), gold=False)
    shutil.rmtree(tmp_path)
