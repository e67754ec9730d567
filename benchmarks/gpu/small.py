"""A small model, the embedded one's first layers or a random Llama, and a small variant to take every stage through."""

from __future__ import annotations

from pathlib import Path

import yaml

from llama_qna.models.base import EMBEDDED, EMBEDDED_FOLDER, load_base, load_tokenizer
from llama_qna.project.variant import REPOSITORY

LAYERS = 4
SENTENCES = {
    "The harbour crane": [
        "The harbour crane was built in 1884 by two brothers from the valley.",
        "It lifts nine tonnes and turns once in forty seconds.",
        "Ilse Brandt wrote its manual in four weeks of winter.",
        "The crane stands on twelve iron wheels, each as high as a man.",
    ],
    "The kiln": [
        "The lid of the great kiln weighs three tonnes and is lifted once a year.",
        "Two potters fill the kiln with four hundred bowls in one day.",
        "The fire burns for sixty hours and reaches 1,280 degrees.",
        "The bowls cool for a week before anyone opens the lid.",
    ],
    "The sluice": [
        "The northern sluice failed in 1921 because ice had bent its gate.",
        "A new gate of oak was hung in the spring of the next year.",
        "The sluice holds back nine million litres of water.",
        "Its keeper opens the gate by hand, with a wheel of brass.",
    ],
}
PAIRS = [
    ("When was the harbour crane built?", "It was built in 1884."),
    ("How heavy is the lid of the kiln?", "The lid weighs three tonnes."),
    ("Why did the northern sluice fail?", "Ice had bent its gate."),
    ("Who wrote the manual of the crane?", "Ilse Brandt wrote it."),
]


def model_folder(folder: Path) -> Path:
    """Write a small Llama with its tokenizer; the same for the same machine, so that two processes may compare."""
    import torch

    torch.manual_seed(0)
    if (EMBEDDED_FOLDER / "config.json").is_file():
        tokenizer, model = load_tokenizer(EMBEDDED), load_base(EMBEDDED, None, on="cpu").float()
        model.model.layers = model.model.layers[:LAYERS]
        model.config.num_hidden_layers = LAYERS
    else:
        tokenizer = byte_tokenizer()
        model = random_llama(len(tokenizer))
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_llama(words: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=words,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def byte_tokenizer():
    """A tokenizer whose words are the 256 bytes, made of nothing but itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate([*special.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(words, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def write_variant(root: Path, base: Path, **changes) -> None:
    """A variant `small` below `root`: the recipe of paper_7b made small, three sections, four pairs.

    Args:
        changes: of the recipe's top level.
    """
    recipe = yaml.safe_load((REPOSITORY / "paper_7b" / "variant.yaml").read_text(encoding="utf-8"))
    recipe |= {"corpus": "notes", "base_model": str(base), "extractor": "pypdfium2"} | changes
    recipe["generation"] |= {"qna_file": "pairs.csv", "reference_questions": False, "batch_size": 4}
    steps = {"max_steps": 6, "save_steps": 2, "logging_steps": 1, "batch_size": 4, "max_length": 64, "packing": False}
    recipe["pretraining"] |= steps | {"replay_tokens": 128}
    recipe["finetuning"] |= steps
    recipe["lora"] |= {"r": 8}
    recipe["evaluation"] |= {"window": 128, "stride": 64, "max_new_tokens": 8, "max_questions": 4, "batch_size": 4}
    notes = root / "data" / "pdfs" / "notes" / "notes.md"
    for folder in (notes.parent, root / "small"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "small" / "variant.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    parts = [f"## {title}\n\n{' '.join(sentences)}\n" for title, sentences in SENTENCES.items()]
    notes.write_text("# Notes\n\n" + "\n".join(parts), encoding="utf-8")
    rows = [f'"{question}","{answer}"' for question, answer in PAIRS]
    (root / "pairs.csv").write_text("\n".join(["Question,Answer", *rows]) + "\n", encoding="utf-8")
