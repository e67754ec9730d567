"""SIGKILL at random moments in every stage: nothing that looks finished is not, and the same command goes on.

At least 56 kills in all: 8 a stage, two in a row before each run that is let come to its end. What it makes is compared
byte for byte with a run that nothing disturbed.
"""

import random
import shutil
import signal
import time

import pytest

from tests.faults.harness import (  # noqa: F401
    STAGES,
    commands_fixture,
    nothing_half_done,
    results,
    seconds_of,
    tiny_folder_fixture,
    tiny_variant,
)
from tests.fixtures_server import serving
from tests.test_pair_writers import model, variant_at

pytestmark = pytest.mark.slow
KILLS, IN_A_ROW = 8, 2
NAMES = {"finetune --without-pretraining": "finetune_only"}


@pytest.fixture(scope="module")
def finished(commands, tiny_folder, tmp_path_factory):
    """Every stage done once; and how long each takes from its start."""
    variant = tiny_variant(tmp_path_factory.mktemp("kills"), tiny_folder)
    seconds = {}
    for stage in STAGES:
        verb, *options = stage.split()
        seconds[stage] = seconds_of(
            lambda verb=verb, options=options: commands.run(variant.root, verb, "small", *options)
        )
        assert variant.stage_folders[NAMES.get(stage, verb)].exists(), commands.said()
    return variant, seconds


def kill_and_go_on(commands, variant, command, seconds, begin, wanted, chance):
    """Kill the command `KILLS` times, at moments of its whole length, and let it come to its end in between."""
    kills = tries = 0
    while kills < KILLS:
        begin()
        for _ in range(IN_A_ROW):
            status = commands.killed(variant.root, *command, after=chance.uniform(0, seconds))
            assert status in (0, -signal.SIGKILL), commands.said()
            kills, tries = kills + (status < 0), tries + 1
            nothing_half_done(variant)
        started = time.perf_counter()
        status, said = commands.run(variant.root, *command)
        seconds = min(seconds, time.perf_counter() - started)  # the first time it was slower: libraries were cold
        assert status == 0 and "Traceback" not in said, said
        assert results(variant) == wanted
        assert not [path for path in variant.run.iterdir() if path.name.endswith((".partial", ".old", ".lock"))]
        assert tries < 10 * KILLS, "it ends before it can be killed"


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments(stage, commands, finished):
    variant, seconds = finished
    verb, *options = stage.split()
    folder = variant.stage_folders[NAMES.get(stage, verb)]
    wanted = results(variant)

    def begin():
        shutil.rmtree(folder)

    kill_and_go_on(
        commands, variant, (verb, "small", *options), seconds[stage], begin, wanted, random.Random(STAGES.index(stage))
    )


def test_killed_while_a_server_writes_pairs(commands, tmp_path):
    """The ledger keeps what the server has answered; a damaged or missing one costs its answers alone."""
    with serving(model) as server:
        variant = variant_at(tmp_path, server.url, method="multi_pair")
        command = ("generate", variant.name)
        ledger = variant.run / "qna.ledger"
        seconds = seconds_of(lambda: commands.run(variant.root, *command))
        wanted = results(variant)

        def begin():
            shutil.rmtree(variant.qna)
            ledger.unlink()

        kill_and_go_on(commands, variant, command, seconds, begin, wanted, random.Random(7))
