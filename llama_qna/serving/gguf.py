"""GGUF files, the format of llama.cpp and Ollama: written by llama.cpp's own converter, and asked by llama.cpp itself.

Both come as Python packages, in a folder of their own that `make gguf` fills: the converter brings its own version of
the package `gguf`, which must not replace ours. They run in child processes, so that a crash of native code is an error
message.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from llama_qna import UserError
from llama_qna.models import prompts
from llama_qna.project.variant import REPOSITORY

TOOLS = REPOSITORY / ".gguf"
# what llama.cpp is run with: one request at a time, as greedy as it can be
_ASK = """
import json, sys
import xllamacpp
asked = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = asked["model"], asked["context"], 1
server = xllamacpp.Server(params)
for question in asked["questions"]:
    messages = [{"role": "user", "content": question}]
    reply = server.handle_chat_completions({"messages": messages, "max_tokens": asked["limit"], "temperature": 0})
    print("answer:" + json.dumps(reply["choices"][0]["message"]["content"] if "choices" in reply else None), flush=True)
"""


def convert(model: Path, path: Path) -> None:
    """Write a model folder as a GGUF file with weights in 8 bits (Q8_0: blocks of 32 with one scale).

    Raises:
        UserError: the converter is not installed, or does not know this model.
    """
    require_tools()
    done = _python("-m", "convert_hf_to_gguf", model.resolve(), "--outtype", "q8_0", "--outfile", path.resolve())
    if done.returncode or not path.is_file():
        raise UserError(f"llama.cpp's converter could not write {path.name}: {_last_line(done.stderr)}")


def answers(path: Path, questions: list[str], max_new_tokens: int) -> list[str]:
    """Greedy answers of llama.cpp, each question in a conversation of its own, by the template in the file.

    Raises:
        UserError: llama.cpp is not installed, or cannot read the file.
    """
    require_tools()
    asked = {"model": str(path.resolve()), "questions": [question.strip() for question in questions]}
    done = _python("-c", _ASK, text=json.dumps(asked | {"limit": max_new_tokens, "context": 2048}))
    found = [json.loads(line.removeprefix("answer:")) for line in done.stdout.splitlines() if line[:7] == "answer:"]
    if len(found) != len(questions) or None in found:
        raise UserError(f"llama.cpp could not answer with {path.name}: {_last_line(done.stderr)}")
    return [answer.strip() for answer in found]


def require_tools() -> None:
    """Look whether `make gguf` has been run.

    Raises:
        UserError: it has not.
    """
    if not all((TOOLS / name).exists() for name in ("convert_hf_to_gguf.py", "xllamacpp")):
        raise UserError("GGUF needs llama.cpp's converter: run `make gguf` first (35 MB)")


def modelfile(tokenizer, gguf: str, max_new_tokens: int) -> str:
    """Ollama's Modelfile for a GGUF file, with the template of `prompts` in Ollama's language.

    The pieces of the template are cut out of a rendered conversation; after the first turn there is no system message.
    See https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx.
    """
    system, question, answer, again = marks = [f"\ue000{n}\ue001" for n in range(4)]
    roles = ["system", "user", "assistant", "user"]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    before, to_question, to_answer, to_next, _ = re.split("|".join(marks), text)
    if tokenizer.bos_token and tokenizer.bos_token_id in tokenizer("a")["input_ids"]:
        before = before.removeprefix(tokenizer.bos_token)  # llama.cpp puts it there itself
    end, _, next_turn = to_next.partition(tokenizer.eos_token)
    template = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{to_question}{{{{ else }}}}{next_turn}{{{{ end }}}}"
    template += f"{{{{ .Prompt }}}}{to_answer}{{{{ .Response }}}}{end}{tokenizer.eos_token}"
    settings = {"temperature": 0, "repeat_penalty": 1, "num_predict": max_new_tokens}
    settings |= {"stop": f'"{tokenizer.eos_token}"'}
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{template}"""', f'SYSTEM """{prompts.SYSTEM}"""']
    return "\n".join([*lines, *(f"PARAMETER {name} {value}" for name, value in settings.items())]) + "\n"


def _python(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(TOOLS), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, input=text, env=environment, cwd=TOOLS, capture_output=True, text=True)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
