"""Another model as judge: its replies read, its verdicts kept, on a server of this machine that stands in for one."""

import dataclasses

import pytest

from llama_qna.evaluation import judge
from llama_qna.project.files import read_json, read_lines, write_json, write_lines
from llama_qna.project.recipe import Endpoint
from llama_qna.project.stage import once, valid_record
from tests import fixtures_models as shared
from tests.fixtures_server import answer, refusal, serving

REPLIES = [
    ("right", "right"),
    ("**Verdict: Partially correct.** It names one of the two.", "partly"),
    ("The answer is wrong: the right one is 9.", "wrong"),
    ("Not correct.", "wrong"),
    ("Not quite right.", "partly"),
    ("It isn't correct.", "wrong"),
    ("The answer isn’t right.", "wrong"),
    ("That is not the right one", "wrong"),
    ('{"verdict": "partly"}', "partly"),
    ("<think>Is it right, or wrong? Wrong.</think>\nRight", "right"),
    ("<think>Two is wrong. So is it wrong", "unclear"),
    ("The reference says nine, so this is incorrect", "wrong"),
    ("It may be right or wrong.", "unclear"),
    ("I cannot tell.", "unclear"),
    ("", "unclear"),
]


@pytest.mark.parametrize(("reply", "verdict"), REPLIES)
def test_replies_are_read_as_models_write_them(reply, verdict):
    assert judge.verdict_of(reply) == verdict


def row(system, said, protocol="test"):
    about = {"protocol": protocol, "system": system, "question": "How many {parts}?", "reference": "Nine parts."}
    return about | {"variants": ["nine"], "gold_evidence": "It has nine parts.", "answer": said}


ROWS = [
    row("base", "Nine."), row("base", "Two."), row("reader", "Nine."), row("reader", ""),
    row("base", "What parts\u2028a text\x85is no end of a row.", "dev"),
]  # fmt: skip


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Judge a finished evaluation by the model at an address; its metrics and predictions."""
    variant = shared.write_variant(tmp_path, gold=False)

    def work(folder):
        write_lines(folder / "predictions.jsonl", ROWS)
        write_json(folder / "metrics.json", {"systems": [{"name": "base"}, {"name": "reader"}]})

    once(variant, "evaluate", {}, {}, work)

    def run(url, model="toy"):
        endpoint = Endpoint(url=url, model=model, max_retries=0)
        settings = variant.recipe.evaluation.model_copy(update={"judge": endpoint})
        recipe = variant.recipe.model_copy(update={"evaluation": settings})
        judge.judge(dataclasses.replace(variant, recipe=recipe))
        assert valid_record(variant.evaluation, "evaluate")
        return read_json(variant.evaluation / "metrics.json"), read_lines(variant.evaluation / "predictions.jsonl")

    return run


def reply(body, attempt):
    asked = body["messages"][0]["content"]
    assert "How many {parts}?" in asked and "It has nine parts." in asked and "Nine parts. | nine" in asked
    if "judge: Two." in asked:
        return refusal(400, "too long")
    return answer("right" if "judge: Nine." in asked else "Wrong.")


def test_verdicts_of_every_test_answer_and_their_shares(judged):
    with serving(reply) as server:
        metrics, rows = judged(server.url)
        assert len(server.bodies) == 3, "one answer of two systems is sent once"
        assert judged(server.url) == (metrics, rows) and len(server.bodies) == 3, "what is judged stays judged"
        assert judged(server.url, "another")[0]["judge"]["model"] == "another"
    assert metrics["judge"]["model"] == "toy" and metrics["judge"]["prompt"] == judge.PROMPT
    assert (metrics["judge"]["answers"], metrics["judge"]["unclear"]) == (4, 1)
    found = {system["name"]: system["judged"] for system in metrics["systems"]}
    nothing = dict.fromkeys(judge.VERDICTS, 0)
    assert found == {
        "base": nothing | {"right": 0.5, "unclear": 0.5}, "reader": nothing | {"right": 0.5, "wrong": 0.5}
    }  # fmt: skip
    assert [row["judged"]["verdict"] for row in rows[:4]] == ["right", "unclear", "right", "wrong"]
    assert rows[0]["judged"]["prompt_sha256"] == metrics["judge"]["prompt_sha256"] and "judged" not in rows[4]


def test_a_reply_that_was_cut_off_is_unclear(judged):
    with serving(lambda body, attempt: answer("The answer looks right, but", "length")) as server:
        _, rows = judged(server.url)
    assert {row["judged"]["verdict"] for row in rows[:4]} == {"unclear"}


def test_a_server_that_refuses_every_request_has_judged_nothing(judged, capsys):
    with serving(lambda body, attempt: refusal(400, "no such model")) as server:
        metrics, rows = judged(server.url)
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("no verdicts of toy: ") and "refuses every request (no such model)" in said[-1]
    assert "judge" not in metrics and rows == ROWS


def test_a_server_that_is_gone_leaves_the_evaluation_as_it_was(judged, capsys):
    with serving(reply) as server:
        url = server.url
    capsys.readouterr()
    metrics, rows = judged(url)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "evaluation.judge.url" in said[0]
    assert "judge" not in metrics and rows == ROWS
