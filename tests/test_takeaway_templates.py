"""Tests of the chat templates that exports.py and gguf.py save: others' programs render our prompts with them."""

import copy
import re

import pytest

from llama_qna.models import prompts
from llama_qna.serving import exports, gguf
from tests.fixtures_models import tokenizer
from tests.fixtures_takeaway import QUESTION


def llama_tokenizer():
    """One that adds a start token, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    llama = copy.deepcopy(tokenizer())
    llama.bos_token = "<|endoftext|>"
    llama.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A",
        pair="<|endoftext|> $A $B",
        special_tokens=[("<|endoftext|>", llama.bos_token_id)],
    )
    llama.chat_template = "{{ bos_token }}" + tokenizer().chat_template
    return llama


def tokenizers():
    plain, plain_llama = copy.deepcopy(tokenizer()), llama_tokenizer()
    plain.chat_template = plain_llama.chat_template = None
    return {"embedded": tokenizer(), "llama": llama_tokenizer(), "plain": plain, "plain llama": plain_llama}


@pytest.mark.parametrize("kind", ["embedded", "llama", "plain", "plain llama"])
def test_saved_template_renders_our_prompts(kind, tmp_path):
    from transformers import AutoTokenizer

    ours = tokenizers()[kind]
    before = ours.chat_template
    exports.save_tokenizer(ours, tmp_path)
    assert ours.chat_template == before
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for question in (QUESTION, "  What is 84.1% of it?\n", "Who wrote 'The Salt-Water Machine'?"):
        asked = [{"role": "user", "content": question}]
        rendered = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert rendered == prompts.question_ids(ours, question)
    own = [{"role": "system", "content": "Answer in verse."}, {"role": "user", "content": QUESTION}]
    assert prompts.SYSTEM not in theirs.apply_chat_template(own, tokenize=False)


@pytest.mark.parametrize("kind", ["embedded", "llama"])
def test_modelfile_renders_our_prompts(kind):
    """Ollama's language, as far as the template uses it, is done by hand; the system message is in the first turn."""
    ours = copy.deepcopy(tokenizers()[kind])
    ours.chat_template = exports.template_with_start(ours)
    text = gguf.modelfile(ours, "small.gguf", 4)
    assert text.startswith("FROM ./small.gguf\n")
    template, system = re.findall(r'"""(.*?)"""', text, re.DOTALL)
    assert system == prompts.SYSTEM

    def turn(system, question, answer):
        parts = re.fullmatch(r"{{ if .System }}(.*){{ else }}(.*){{ end }}(.*)", template, re.DOTALL)
        chosen = parts[1].replace("{{ .System }}", system) if system else parts[2]
        whole = (chosen + parts[3]).replace("{{ .Prompt }}", question)
        return whole.replace("{{ .Response }}", answer) if answer else whole.partition("{{ .Response }}")[0]

    start = ours.bos_token if kind == "llama" else ""  # llama.cpp adds it
    assert start + turn(system, QUESTION, "") == ours.decode(prompts.question_ids(ours, QUESTION))
    roles = ["user", "assistant", "user"]
    talk = [{"role": r, "content": c} for r, c in zip(roles, [QUESTION, "A share.", "Why?"], strict=True)]
    whole = ours.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert start + turn(system, QUESTION, "A share.") + turn("", "Why?", "") == whole
