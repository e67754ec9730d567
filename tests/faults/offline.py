"""Every default command, one after the other, and whom it tried to reach: `python -m tests.faults.offline ROOT`.

Run in a network namespace without any interface but loopback; prints a line for each address asked for.
"""

import os
import sys
from pathlib import Path

COMMANDS = [
    ["variants"],
    ["load", "small"],
    ["generate", "small", "--export", "messages"],
    ["pretrain", "small"],
    ["finetune", "small"],
    ["finetune", "small", "--without-pretraining"],
    ["evaluate", "small"],
    ["figures", "small"],
    ["ask", "small", "What is it?"],
    ["publish", "small"],
    ["run", "small"],
]
LOOPBACK = ("127.", "::1", "localhost")


def watch(event: str, arguments: tuple) -> None:
    """Print each host that is looked up or connected to, from whatever library."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if not str(host).startswith(LOOPBACK):
        print(f"reached for {host}", flush=True)


def main(root: Path) -> None:
    os.environ["LLAMA_QNA_ROOT"] = str(root)
    os.environ.pop("HF_HUB_OFFLINE", None)
    sys.addaudithook(watch)
    from llama_qna import cli

    for command in COMMANDS:
        print(f"status {cli.main(command)} of {' '.join(command)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
