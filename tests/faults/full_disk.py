"""Every stage on a disk that is really full: `python -m tests.faults.full_disk FINISHED_ROOT ROOT`, ROOT on a tmpfs.

Prints how often a stage was refused and how often it found room; ends with an assertion if anything was lost.
"""

import io
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from llama_qna import cli
from llama_qna.project.variant import Variant
from tests.faults.harness import nothing_half_done, results

FREE = (0, 4, 16, 40, 100, 400)  # kB
ORDER = ("load", "generate", "pretrain", "finetune", "evaluate", "figures")


def fill(root: Path, kilobytes: int) -> Path:
    """A file that leaves so much room."""
    path = root.parent / "filler"
    with open(path, "wb", buffering=0) as file:
        file.write(b"\0" * max(0, shutil.disk_usage(root).free - kilobytes * 1000))
    return path


def main(finished: Path, root: Path) -> None:
    shutil.copytree(finished, root)
    os.environ["LLAMA_QNA_ROOT"] = str(root)
    variant = Variant.load("small")
    wanted, refused, done = results(variant), 0, 0
    for stage in ORDER:
        shutil.rmtree(variant.stage_folders[stage])
        for kilobytes in FREE:
            filler = fill(root, kilobytes)
            said = io.StringIO()
            with redirect_stderr(said), redirect_stdout(said):
                status = cli.main([stage, "small"])
            filler.unlink()
            lines = [line for line in said.getvalue().splitlines() if line.startswith("llama-qna: ")]
            assert status in (0, 2) and len(lines) == (status == 2), said.getvalue()
            assert status == 0 or "disk" in lines[0], lines
            nothing_half_done(variant)
            refused, done = refused + (status == 2), done + (status == 0)
            if status == 0:
                break
        assert cli.main([stage, "small"]) == 0
    found = results(variant)
    differs = [name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]
    assert not differs, differs
    print(f"refused: {refused}\nfinished: {done}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
