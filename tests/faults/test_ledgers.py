"""The ledger of a real `generate` over a server, damaged between two runs: what it still holds is not asked again.

It holds single answers and whole chunks: one line that is damaged costs an answer, or nothing where the other has it.
"""

from pathlib import Path

import pytest

from llama_qna.pairs import qna
from tests.faults.harness import results
from tests.faults.test_checkpoints import flip
from tests.fixtures_server import serving
from tests.test_pair_writers import FACTS, SECTIONS, asked_about, model, variant_at


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def zeros(path):
    """What some file systems leave of a block that was not written before a power cut."""
    content = path.read_bytes()
    path.write_bytes(content[:-300] + b"\0" * 300)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "damage, lost",
    [
        (flip, [0, 1]),
        slow(truncate, [0]),
        slow(zeros, [0, 1]),
        slow(Path.unlink, [5]),
        slow(lambda path: path.write_text(""), [5]),
    ],
    ids=["flipped", "truncated", "zeros", "missing", "empty"],
)
def test_damaged_ledger_costs_what_was_damaged(damage, lost, tmp_path):
    with serving(model) as server:
        variant = variant_at(tmp_path, server.url, method="multi_pair")
        qna.generate(variant)
        wanted, first = results(variant), len(server.bodies)
        damage(variant.run / "qna.ledger")
        (variant.qna / "run.json").unlink()  # so that the stage is not taken as done
        qna.generate(variant)
        assert results(variant) == wanted
        assert len(asked_about(server.bodies[first:])) * len(SECTIONS) / len(FACTS) in lost
