"""The metrics for Hugging Face `evaluate` compute what ours compute, and load without the hub."""

import evaluate
import pytest

from llama_qna.evaluation.perplexity import published_perplexity
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.scores import rouge
from tests.fixtures_models import tiny_llama, tokenizer

MODULES = REPOSITORY / "llama_qna" / "evaluation" / "hf"
SAID = ["Answer: A small door in a gate.", "It saves 8.9% of its energy.", "nothing"]
REFERENCES = ["Answer: the small door in a large gate", "Answer: only 8.9% of the daily energy", "Answer: a lid"]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads one of our modules; the copies that `evaluate` makes of it go where the tests end."""
    folder = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(folder / "modules"))
        yield lambda name: evaluate.load(str(MODULES / name), cache_dir=str(folder))


def test_rouge_is_the_mean_of_ours_by_the_studys_protocol(load):
    found = load("rouge").compute(predictions=SAID, references=REFERENCES)
    ours = [rouge(said, reference, strip=False) for said, reference in zip(SAID, REFERENCES, strict=True)]
    assert found == pytest.approx({name: sum(score[name] for score in ours) / 3 for name in ours[0]})


def test_perplexity_is_ours_by_the_studys_protocol(load):
    text = "The gate opens when the exit is sure of its class. "
    options = dict(window=32, stride=16)
    ours = published_perplexity(tiny_llama(), tokenizer(), [text * 5], **options)
    found = load("perplexity").compute(predictions=[text * 5], model=tiny_llama(), tokenizer=tokenizer(), **options)
    assert found["perplexity"] == pytest.approx(ours, rel=1e-4)
