"""From answers with scores to `metrics.json`, on rows made by hand; and the committed numbers from their answers."""

import math
from statistics import fmean

import pytest

from llama_qna import UserError
from llama_qna.evaluation.compare import AGAINST, COMPARED, SCORES, best_on_dev, summarize
from llama_qna.evaluation.intervals import interval
from llama_qna.project.files import read_json, read_lines
from llama_qna.project.systems import LABELS
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.scores import ROUGE_NAMES

ABOUT = {"variant": "small", "base_model": "none", "protocols": {}, "chosen": "finetuning checkpoint-2"}
STEPS = {"base": [0], "pretraining": [1, 2], "finetuning": [1, 2]}
POINTS = [(stage, step) for stage, steps in STEPS.items() for step in steps]
SECTIONS = ["Bees", "Bees", "Cats", "Cats", "Cats", "Dogs"]  # of the six questions of a fold
BASE = [0.10, 0.30, 0.20, 0.05, 0.40, 0.15]  # its scores on them
CERTAIN = 2 / 10_001  # the least p of 10,000 draws: every one on the same side of zero


def name_of(stage, step):
    return f"{stage} checkpoint-{step}" if step else stage


def rows_of(protocol, system, scores, **more):
    """Six answers of a system, all their scores the same; the last two are about held-out sections."""
    return [
        {"protocol": protocol, "system": system, "checkpoint": "base", "context": "none", "section": SECTIONS[n],
         "split": "heldout" if n > 3 else "train", "kind": "name" if n % 2 else "cause",
         "chunk_ids": ["c"], "shown": [], "sample": not n, **dict.fromkeys(SCORES, score), **more}
        for n, score in enumerate(scores)
    ]  # fmt: skip


def plus(gain):
    return [score + gain for score in BASE]


def point(stage, step, nats=2.0):
    found = {"perplexity": math.exp(nats), "nll": 5 * nats, "tokens": 5}
    texts = {text: found | {"sample": found} for text in ("domain", "general")}
    return {"name": name_of(stage, step), "stage": stage, "step": step, "perplexity": texts}


def summary(rows, published=()):
    in_sample = [row for point in POINTS for row in rows_of("in_sample", name_of(*point), BASE)]
    return summarize(ABOUT, [point(*where) for where in POINTS], in_sample + rows, dict(published))


GAINS = {name: 0.05 * n for n, name in enumerate(LABELS)}  # over the base, on every question alike


def systems_by_name(*left_out):
    """The systems' answers, each system better than the one before it by the same on every question."""
    systems = [name for name in LABELS if name not in left_out]
    return {
        system["name"]: system
        for system in summary(
            [
                row | {"chunk_ids": [], "retrieved": []}
                for name in systems
                for row in rows_of("test", name, plus(GAINS[name]))
            ]
        )["systems"]
    }


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoints_keep_their_perplexity_and_get_their_means():
    found = summary(rows_of("dev", "base", BASE) + rows_of("dev", "pretraining checkpoint-1", plus(0.1)))
    assert [entry["name"] for entry in found["checkpoints"]] == [name_of(*where) for where in POINTS]
    assert found["checkpoints"][3]["perplexity"] == point("finetuning", 1)["perplexity"]
    for entry in found["checkpoints"]:
        assert entry["rouge"] == pytest.approx(dict.fromkeys(ROUGE_NAMES, 0.2))
        assert entry["sample"]["rouge"] == dict.fromkeys(ROUGE_NAMES, BASE[0])
    base, pretrained, *others = found["checkpoints"]
    assert base["dev"] == pytest.approx(dict.fromkeys(COMPARED, 0.2)) and "dev_against_base" not in base
    assert pretrained["dev"] == pytest.approx(dict.fromkeys(COMPARED, 0.3))
    for score in COMPARED:
        ends = pretrained["dev_interval"][score]
        assert ends["low"] <= pretrained["dev"][score] <= ends["high"] and ends["low"] < ends["high"]
    assert not any("dev" in entry or "dev_against_base" in entry for entry in others)
    assert found["questions"] == {"in_sample": 6, "dev": 6, "test": 0}
    assert {key: found[key] for key in ABOUT} == ABOUT


def test_holm_over_all_checkpoints_but_the_base():
    rows = [row for n, where in enumerate(POINTS) for row in rows_of("dev", name_of(*where), plus(0.1 * n))]
    _, *entries = summary(rows)["checkpoints"]
    for n, entry in enumerate(entries, start=1):
        for score in COMPARED:
            found = entry["dev_against_base"][score]
            assert (
                found["mean"] == pytest.approx(found["low"]) == pytest.approx(found["high"]) == pytest.approx(0.1 * n)
            )
            assert found["p"] == pytest.approx(CERTAIN)
            assert found["p_holm"] == pytest.approx(
                len(entries) * CERTAIN
            )  # equal p values all take the largest factor


def test_scores_are_corrected_apart():
    """A checkpoint that is surely better in ROUGE-L alone, among others that are just the base."""
    rows = [row for where in POINTS for row in rows_of("dev", name_of(*where), BASE)]
    rows = [row | {"rougeL": row["rougeL"] + 0.1 * (row["system"] == "finetuning checkpoint-1")} for row in rows]
    found = {entry["name"]: entry.get("dev_against_base") for entry in summary(rows)["checkpoints"]}
    better = found["finetuning checkpoint-1"]
    assert better["rougeL"]["p_holm"] == pytest.approx(4 * CERTAIN)
    assert (better["f1"]["mean"], better["f1"]["p_holm"]) == (0, 1)
    assert found["finetuning checkpoint-2"]["rougeL"]["p_holm"] == 1


def test_best_on_dev_is_the_earliest_of_equals():
    scores = {"base": 0.9, "pretraining checkpoint-9": 0.9, "finetuning_only checkpoint-3": 0.9}
    scores |= {"finetuning checkpoint-1": 0.3, "finetuning checkpoint-2": 0.5, "finetuning checkpoint-10": 0.5}
    rows = [row for name, score in scores.items() for row in rows_of("dev", name, [score, 0.1])]
    rows += rows_of("test", "finetuning checkpoint-1", [1.0]) + rows_of("in_sample", "finetuning checkpoint-1", [1.0])
    assert best_on_dev(rows) == "finetuning checkpoint-2"


def test_best_on_dev_goes_by_new_words_and_not_by_what_an_echo_earns():
    rows = rows_of("dev", "finetuning checkpoint-1", [0.5]) + rows_of("dev", "finetuning checkpoint-2", [0.9])
    assert best_on_dev([rows[0], rows[1] | {"new_words_f1": 0.4}]) == "finetuning checkpoint-1"


def test_each_stage_has_its_own_best_on_dev():
    rows = rows_of("dev", "finetuning checkpoint-1", [0.5]) + rows_of("dev", "finetuning_only checkpoint-2", [0.9])
    assert best_on_dev(rows, "finetuning_only") == "finetuning_only checkpoint-2"
    assert best_on_dev(rows, "finetuning") == "finetuning checkpoint-1"


def test_best_on_dev_without_dev_questions():
    assert best_on_dev(rows_of("test", "finetuning checkpoint-1", BASE)) is None


# --- systems ---------------------------------------------------------------------------------------------------------


def test_intervals_contain_the_mean():
    systems = systems_by_name()
    assert list(systems) == list(LABELS)
    for name, system in systems.items():
        assert (system["label"], list(system["scores"])) == (LABELS[name], SCORES)
        for found in system["scores"].values():
            assert found["low"] < found["mean"] < found["high"]
            assert found["mean"] == pytest.approx(0.2 + GAINS[name])
    assert systems["base"]["scores"]["f1"] == interval(plus(GAINS["base"]), SECTIONS)
    assert systems["base"]["kinds"]["name"]["right"] == interval(plus(GAINS["base"])[1::2], SECTIONS[1::2])


def test_scores_by_split():
    system = systems_by_name()["pretrained"]
    assert system["trained_sections"] == pytest.approx(
        dict.fromkeys(COMPARED, fmean(BASE[:4]) + GAINS["pretrained"]) | {"questions": 4}
    )
    assert system["heldout_sections"] == pytest.approx(
        dict.fromkeys(COMPARED, fmean(BASE[4:]) + GAINS["pretrained"]) | {"questions": 2}
    )
    rows = [row | {"split": "train"} for row in rows_of("test", "base", BASE)]
    assert summary(rows)["systems"][0]["heldout_sections"] is None


def test_differences_are_paired_by_question():
    """Each system gains as much on every question, so that a paired interval has no width; one of means would."""
    systems = systems_by_name()
    for name, system in systems.items():
        for other, scores in system["against"].items():
            for found in scores.values():
                gain = GAINS[name] - GAINS[other]
                assert [found["mean"], found["low"], found["high"]] == pytest.approx([gain] * 3)


def test_no_system_is_compared_with_itself():
    for name, system in systems_by_name().items():
        assert list(system["against"]) == [other for other in AGAINST if other != name]


@pytest.mark.parametrize(
    ("left_out", "fewer"), [((), 1), (("finetuned_only",), 2), (("finetuned_only", "base+right_chunk"), 3)]
)
def test_holm_over_all_systems_that_are_compared_with_the_same(left_out, fewer):
    systems, comparisons = systems_by_name(*left_out), len(LABELS) - fewer
    for other in (other for other in AGAINST if other not in left_out):
        found = [system["against"][other] for name, system in systems.items() if name != other]
        assert len(found) == comparisons
        for score in COMPARED:
            assert [scores[score]["p"] for scores in found] == pytest.approx([CERTAIN] * comparisons)
            assert [scores[score]["p_holm"] for scores in found] == pytest.approx([comparisons * CERTAIN] * comparisons)


def test_system_without_answers_is_absent():
    systems = systems_by_name("finetuned_only")
    assert list(systems) == [name for name in LABELS if name != "finetuned_only"]
    assert not any("finetuned_only" in system["against"] for system in systems.values())


def test_saying_so_counts_where_the_documents_do_not_say_and_where_the_evidence_was_given():
    rows = rows_of("test", "base+passages", BASE, retrieved=[])
    rows = [row | {"shown": ["c"] if n < 4 else [], "says_so": float(n in (0, 5))} for n, row in enumerate(rows)]
    unanswerable = rows_of("test unanswerable", "base+passages", [1, 1, 1, 1, 1, 0])
    (system,) = summary(rows + unanswerable)["systems"]
    said = system["says_so"]
    assert (said["right"]["mean"], said["wrong"]["mean"]) == pytest.approx((5 / 6, 1 / 4))
    assert (said["unanswerable"], said["answerable"]) == (6, 4)
    assert summary(rows)["systems"][0]["says_so"] is None
    (system,) = summary([row | {"shown": []} for row in rows] + unanswerable)["systems"]
    assert system["says_so"]["wrong"] is None


@pytest.mark.parametrize(
    ("checkpoints", "on_dev", "compared"),
    [(("finetuning checkpoint-1", "finetuning_only checkpoint-2"), [], False),  # the best of several and the last
     (("finetuning checkpoint-2", "finetuning_only checkpoint-2"), [], True),
     (("finetuning checkpoint-1", "finetuning_only checkpoint-2"), [0, 1], True),
     (("finetuning checkpoint-1", "finetuning_only checkpoint-2"), [0], False)],
)  # fmt: skip
def test_only_checkpoints_chosen_alike_are_compared(checkpoints, on_dev, compared):
    rows = rows_of("test", "finetuned", BASE, checkpoint=checkpoints[0])
    rows += rows_of("test", "finetuned_only", BASE, checkpoint=checkpoints[1])
    rows += [row for n in on_dev for row in rows_of("dev", checkpoints[n], BASE)]
    rows += rows_of("dev", "base", BASE) if on_dev else []
    systems = {system["name"]: system for system in summary(rows)["systems"]}
    assert ("finetuned_only" in systems["finetuned"]["against"]) is compared


def test_no_gold_questions():
    found = summary([])
    assert (found["systems"], found["retrieval"]) == ([], None)
    assert found["questions"] == {"in_sample": 6, "dev": 0, "test": 0}


# --- retrieval, the study's protocol, and scores that are none -------------------------------------------------------


def test_retrieval_counts_a_right_chunk_among_the_first():
    found = [["a"], ["x", "a"], ["x", "y", "a"], ["x", "y", "z", "u", "a"], ["x"], []]
    rows = rows_of("test", "base+passages", BASE)
    rows = [row | {"retrieved": ids, "chunk_ids": ["a", "b"]} for row, ids in zip(rows, found, strict=True)]
    recall = {"recall@1": 1 / 6, "recall@3": 3 / 6, "recall@5": 4 / 6, "questions": 6}
    assert summary(rows)["retrieval"] == pytest.approx(recall)


def test_published_scores():
    rows = rows_of("published", "base", [0.1, 0.2]) + rows_of("published", "finetuning", [0.7, 0.8])
    found = summary(rows, {"base": 24.0, "finetuning": 2.5})["published"]
    assert [(entry["name"], entry["perplexity"]) for entry in found] == [("base", 24.0), ("finetuning", 2.5)]
    assert found[1]["rouge"] == pytest.approx(dict.fromkeys(ROUGE_NAMES, 0.75))


@pytest.mark.parametrize("nats", [math.nan, math.inf])
def test_perplexity_that_is_no_number(nats):
    rows = rows_of("in_sample", "base", BASE)
    complaint = rf"^small: perplexity on domain text of base is {nats}, no number; look at the training log"
    with pytest.raises(UserError, match=complaint):
        summarize(ABOUT, [point("base", 0, nats)], rows, {})


def test_published_perplexity_that_is_no_number():
    with pytest.raises(UserError, match="^small: perplexity by the study's arithmetic of finetuning is nan, no number"):
        summary([], {"base": 24.0, "finetuning": math.nan})


@pytest.mark.parametrize("protocol", ["dev", "test"])
def test_score_that_is_no_number(protocol):
    rows = rows_of(protocol, "base", BASE) + rows_of(protocol, "pretraining checkpoint-1", BASE)
    rows += rows_of(protocol, "pretraining", BASE)
    rows = [row | {"f1": math.nan} if row["system"] != "base" and row["section"] == "Dogs" else row for row in rows]
    with pytest.raises(UserError, match=f"^small: f1 on {protocol} questions of pretraining.* is nan, no number"):
        summary(rows)


# --- the committed numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper_135m", "physics_books_135m"])
def test_committed_metrics_are_what_the_committed_predictions_make(name):
    metrics = read_json(REPOSITORY / name / "metrics.json")
    predictions = read_lines(REPOSITORY / name / "predictions.jsonl")
    about = {key: metrics[key] for key in ("variant", "base_model", "chosen", "bm25_threshold", "protocols")}
    about["questions"] = {key: metrics["questions"][key] for key in ("source", "count") if key in metrics["questions"]}
    keys = ("name", "stage", "step", "perplexity", "whole")
    checkpoints = [{key: checkpoint[key] for key in keys} for checkpoint in metrics["checkpoints"]]
    published = {entry["name"]: entry["perplexity"] for entry in metrics["published"]}
    assert summarize(about, checkpoints, predictions, published) == metrics
    assert metrics["chosen"] in {row["system"] for row in predictions if row["protocol"] == "dev"}
