"""What the start of a small training and each of its checkpoints answer, and their losses, kept and shown again."""

import pandas as pd
import pytest

from llama_qna import UserError
from llama_qna.evaluation import progress as module
from llama_qna.evaluation.progress import FILE, dev_questions, progress
from llama_qna.project.data import read_qna
from llama_qna.training.stages import finetune, pretrain
from tests import fixtures_models as shared
from tests.fixtures_models import GOLD, PAIRS, shallow_folder_fixture, shallow_variant_fixture, write_gold  # noqa: F401

QUESTIONS = ["Who wrote the manual?", "How heavy is the lid?"]


def test_the_start_and_every_checkpoint_answer_and_are_measured_once(shallow_variant, monkeypatch):
    variant = shallow_variant
    pretrain(variant), finetune(variant)
    kept = {}
    for stage in ("pretrain", "finetune"):
        found = kept[stage] = progress(variant, stage, QUESTIONS)
        assert [point["step"] for point in found["points"]] == [0, 2, 3]
        assert all(len(point["answers"]) == len(QUESTIONS) for point in found["points"])
        first, *_, last = (point["trained_loss"] for point in found["points"])
        assert 0 < last < first
        assert all(point["heldout_loss"] is None for point in found["points"])  # the fixture holds nothing out

    monkeypatch.setattr(module, "_points", lambda *a: pytest.fail("measured again"))
    for stage, found in kept.items():
        assert progress(variant, stage, QUESTIONS) == found
        assert (variant.stage_folders[stage] / FILE).is_file()
        with pytest.raises(pytest.fail.Exception):
            progress(variant, stage, QUESTIONS[:1])


def test_the_loss_is_of_pairs_that_were_trained_on(shallow_variant):
    def loss():
        return module._loss(shared.tiny_llama(), shared.tokenizer(), shallow_variant, "finetune", "train")

    before, path = loss(), shallow_variant.qna / "qna.csv"
    pairs = pd.read_csv(path, keep_default_na=False, dtype=str)
    longer = pairs.head(1).assign(Question=f"What {'and so on ' * shallow_variant.recipe.finetuning.max_length}?")
    pd.concat([longer, pairs]).to_csv(path, index=False)
    assert loss() == before


def test_before_training_it_is_refused_and_questions_are_gold_ones_of_dev_or_those_of_the_pairs(shallow_variant):
    with pytest.raises(UserError):
        progress(shallow_variant, "pretrain", QUESTIONS)
    assert set(dev_questions(shallow_variant, 2)) < {question for question, _ in PAIRS}
    write_gold(shallow_variant.gold)
    dev = [question for _, question, *_, fold, _ in GOLD if fold == "dev"]
    assert dev_questions(shallow_variant, 3) == dev


@pytest.mark.parametrize("gold", ["none", "none of dev", "none marked"])
def test_without_a_gold_question_of_dev_they_are_those_of_the_pairs_trained_on(gold, shallow_variant):
    table = read_qna(shallow_variant)
    table.assign(split=["heldout", "train", "train", "heldout"]).to_csv(shallow_variant.qna / "qna.csv", index=False)
    if gold != "none":
        write_gold(shallow_variant.gold, [row for row in GOLD if "dev" not in row] if gold == "none of dev" else GOLD)
    if gold == "none marked":
        pd.read_csv(shallow_variant.gold).assign(checked="no").to_csv(shallow_variant.gold, index=False)
    assert dev_questions(shallow_variant, 3) == [question for question, _ in PAIRS[1:3]]
