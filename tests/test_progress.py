"""What every checkpoint of the small run answers, and its losses, kept and shown again."""

import pytest

from llama_qna import UserError
from llama_qna.evaluation.progress import FILE, dev_questions, progress
from tests.fixtures_models import GOLD, small_run_fixture, write_variant  # noqa: F401

QUESTIONS = ["Who wrote the manual?", "How heavy is the lid?"]


@pytest.mark.parametrize("stage, steps", [("pretrain", [0, 2, 3]), ("finetune", [0, 2, 3])])
def test_the_start_and_every_checkpoint_answer_and_are_measured(small_run, stage, steps):
    found = progress(small_run.variant, stage, QUESTIONS)
    assert [point["step"] for point in found["points"]] == steps
    assert all(len(point["answers"]) == len(QUESTIONS) for point in found["points"])
    first, *_, last = (point["trained_loss"] for point in found["points"])
    assert 0 < last < first
    assert all(point["heldout_loss"] is None for point in found["points"])  # the small run holds nothing out


def test_it_is_measured_once_for_its_questions(small_run, monkeypatch):
    variant = small_run.variant
    found = progress(variant, "finetune", QUESTIONS)
    monkeypatch.setattr("llama_qna.models.base.load_base", lambda *a, **k: pytest.fail("loaded again"))
    assert progress(variant, "finetune", QUESTIONS) == found
    assert (variant.finetuning / FILE).is_file()
    with pytest.raises(pytest.fail.Exception):
        progress(variant, "finetune", QUESTIONS[:1])


def test_questions_are_gold_ones_of_dev(small_run):
    dev = [question for _, question, *_, fold, _ in GOLD if fold == "dev"]
    assert dev_questions(small_run.variant, 2) == dev


def test_a_stage_that_is_not_done_is_refused(tmp_path):
    with pytest.raises(UserError):
        progress(write_variant(tmp_path), "pretrain", QUESTIONS)
