"""Runs `llama-qna` commands in forks of one process that has imported everything: a second each, and easily killed.

Started by `harness.Commands`. Each line of stdin is a job in JSON: arguments, environment, files for the two streams,
and a fault by the name of a function in `tests.faults.injected`, if one is wanted. The answers are a line with the
process id at once and a line with the exit status at the end.
"""

import json
import os
import sys

import torch

torch.set_num_threads(1)
import bitsandbytes  # noqa: E402, F401
import datasets  # noqa: E402, F401
import transformers  # noqa: E402, F401
from trl import SFTConfig, SFTTrainer  # noqa: E402, F401

from llama_qna import cli  # noqa: E402
from llama_qna.training import stages  # noqa: E402, F401
from tests.faults import injected  # noqa: E402


def work(job: dict) -> int:
    os.setpgid(0, 0)
    for number, name in ((1, job["out"]), (2, job["err"])):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(job["environment"])
    if job["fault"]:
        getattr(injected, job["fault"])(**job["options"])
    try:
        return cli.main(job["arguments"])
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


for line in sys.stdin:
    process = os.fork()
    if not process:
        os._exit(work(json.loads(line)))
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
