"""Tests of the page without a browser: llama_qna/serving/page.py and desk.py.

A stand-in answers, and in one test the real model.
"""

import socket
import threading

import gradio as gr
import httpx
import pytest

from llama_qna import UserError
from llama_qna.answering.answerer import Answerer
from llama_qna.documents.chunks import load
from llama_qna.project.systems import SYSTEMS
from llama_qna.project.variant import Variant
from llama_qna.serving import page
from llama_qna.serving.desk import MAX_CHARACTERS, Desk, messages
from llama_qna.serving.engine_client import EngineAnswerer, answerer_for
from llama_qna.serving.page import answerer_at, serve_page
from llama_qna.text.scores import score
from tests.fixtures_models import write_variant
from tests.fixtures_page import HOSTILE, QUESTION, REFERENCE, StandIn, desk, manual_root, serve  # noqa: F401
from tests.fixtures_server import serving


def last(replies):
    return list(replies)[-1]


# --- what a variant offers -------------------------------------------------------------------------------------------


def test_trained_variant_offers_every_system_and_its_gold_questions(desk):  # noqa: F811
    system, gold, notice = page.choose(desk, "manual", "base+passages")
    assert [key for _, key in system.choices] == list(SYSTEMS) and system.value == "base+passages"
    assert gold.choices == [(f"{QUESTION} (lid-1, test)", QUESTION)] and gold.visible
    assert not notice.visible


def test_variant_on_which_nothing_has_run_offers_the_base_and_says_what_to_run(manual_root):  # noqa: F811
    desk = Desk(manual_root, StandIn)  # noqa: F811
    system, gold, notice = page.choose(desk, "fresh", "finetuned+passages")
    assert [key for _, key in system.choices] == ["base"] and system.value == "base"
    assert not gold.visible
    for stage in ("load", "pretrain", "run"):
        assert f"run `llama-qna {stage} fresh` first" in notice.value
    assert last(desk.reply("Why?", "fresh", "base")).text.startswith("base says of 'Why?'")
    by_system = {name: reply for name, reply in desk.side_by_side("Why?", "fresh") if reply.done}
    assert "llama-qna run fresh" in by_system["finetuned"].problem and not by_system["base"].problem


def test_broken_recipe_or_gold_file_is_a_notice(desk, manual_root):  # noqa: F811
    gold = manual_root / "data/paper/gold.csv"
    gold.write_text(gold.read_text().replace(",test,", ",exam,"))
    assert "fold is 'exam'" in page.choose(desk, "manual", "finetuned")[2].value
    assert last(desk.reply(QUESTION, "manual", "finetuned")).text, "the answer stands, without scores"
    (manual_root / "manual/variant.yaml").write_text("nonsense: 1")
    assert "unknown key `nonsense`" in page.choose(desk, "manual", "finetuned")[2].value
    assert {reply.problem[:20] for _, reply in desk.side_by_side("Why?", "manual")} == {"manual/variant.yaml:"}


# --- answers ---------------------------------------------------------------------------------------------------------


def test_answer_grows_and_ends_with_its_passages_and_scores(desk):  # noqa: F811
    replies = list(desk.reply(f" {QUESTION} ", "manual", "finetuned+passages"))
    texts = [reply.text for reply in replies]
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))
    assert len(set(texts)) > 5 and [reply.done for reply in replies].index(True) == len(replies) - 1
    assert replies[-1].gold.Answer == REFERENCE
    assert replies[-1].scores == score(texts[-1], REFERENCE, ["3 kg"], QUESTION)
    answer, passages, scores = messages(replies[-1], "manual", "finetuned+passages")
    assert answer["content"] == texts[-1] and not answer["metadata"]
    assert passages["metadata"]["title"] == "finetuned+passages of manual by a stand-in, given 2 passages"
    assert passages["content"].startswith(f"[1] manual, page 3, 2 The lid\n{HOSTILE}\n\n[2] manual, page 4\nA hinge.")
    assert f"Reference answer: {REFERENCE}" in scores["content"] and "ROUGE-L 0." in scores["content"]


def test_passages_of_a_system_without_retrieval_are_said_not_to_be_given(desk):  # noqa: F811
    _, passages = messages(last(desk.reply("Why?", "manual", "base")), "manual", "base")
    assert passages["metadata"]["title"] == "base of manual by a stand-in, given no passage; 2 were found"


def test_the_reader_shows_the_sentence_that_it_answers_from(desk):  # noqa: F811
    reply = last(desk.reply(QUESTION, "manual", "reader"))
    assert (reply.evidence.document, reply.evidence.page) == ("manual", 3)
    assert reply.evidence.picture() is None, "its PDF is not on this machine"
    titles = [message["metadata"].get("title", "") for message in messages(reply, "manual", "reader")]
    assert titles[1] == "Evidence: manual, page 3"


def test_each_question_is_asked_of_each_system_once(desk):  # noqa: F811
    done = {system: reply for system, reply in desk.side_by_side(QUESTION, "manual") if reply.done}
    assert set(done) == set(SYSTEMS)
    assert sorted(system for _, system in desk.answerer("manual").asked) == sorted(SYSTEMS)
    table = page.scores_table(done).splitlines()
    assert len(table) == 2 + len(SYSTEMS)
    assert table[-1].startswith(f"| finetuned+passages | {done['finetuned+passages'].scores['right']:.3f} |")


def test_side_by_side_the_passages_stand_under_the_systems_that_were_given_them(desk):  # noqa: F811
    (compare,) = (event.fn for event in page.build(desk, "manual").fns.values() if event.name == "compare")
    shown = {box.label: text for update in compare(QUESTION, "manual") for box, text in update.items()}
    passages = shown["Passages that the systems with passages are given"]
    first, second = passages.split("\n\nreader with passages:\n")
    assert first.startswith("base with passages, fine-tuned with passages:\n[1] manual, page 3") and "A hinge." in first
    assert second.startswith("[1] manual, page 3") and "A hinge." not in second and "[2]" not in second


@pytest.mark.parametrize(
    "question, problem", [("  ", "is empty"), ("a" * (MAX_CHARACTERS + 1), f"longer than {MAX_CHARACTERS} characters")]
)
def test_mistakes_are_replies(question, problem, desk):  # noqa: F811
    (message,) = messages(last(desk.reply(question, "manual", "finetuned")), "manual", "finetuned")
    assert message["content"].startswith("No answer: ") and problem in message["content"]


def test_who_goes_away_stops_the_writing(desk):  # noqa: F811
    replies = desk.reply(QUESTION, "manual", "finetuned")
    next(replies)
    replies.close()
    assert desk.answerer("manual").left == 1


def test_two_models_are_kept_at_most(desk, manual_root):  # noqa: F811
    (manual_root / "third").symlink_to(manual_root / "fresh")
    first, second = desk.answerer("manual"), desk.answerer("fresh")
    assert desk.answerer("manual") is first
    desk.answerer("third")
    assert desk.answerer("manual") is first and desk.answerer("fresh") is not second


def test_a_changed_recipe_has_an_answerer_of_its_own(desk, manual_root):  # noqa: F811
    first, path = desk.answerer("manual"), manual_root / "manual/variant.yaml"
    assert desk.answerer("manual") is first
    path.write_text(path.read_text().replace("seed: 42", "seed: 43"))
    assert desk.answerer("manual").variant.recipe.seed == 43


def test_many_at_once_get_their_own_answers_from_the_real_model(tmp_path, monkeypatch):
    """Four people at one model: each gets what the model says when it is asked their question alone."""
    variant = write_variant(tmp_path, gold=False)
    load(variant)
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(tmp_path))
    desk = Desk(tmp_path)  # noqa: F811
    asked = [
        ("What is a wicket?", "base"),
        ("Who are you?", "base"),
        ("What is 2 + 3?", "base"),
        ("8.9%?", "base+passages"),
    ]
    wanted = [desk.answerer("small").answer([question], system)[0] for question, system in asked]
    got = {}

    def ask(question, system):
        got[question, system] = last(desk.reply(question, "small", system))

    people = [threading.Thread(target=ask, args=pair) for pair in asked]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert [got[pair].text for pair in asked] == [answer.text for answer in wanted]
    assert len({answer.text for answer in wanted}) > 2
    assert got["8.9%?", "base+passages"].sources == wanted[-1].sources != ()
    assert "longer than the 900 tokens of a prompt" in last(desk.reply("word " * 1500, "small", "base")).problem


# --- texts stay texts ------------------------------------------------------------------------------------------------


def test_chatbot_sends_no_tag_and_no_entity_and_gets_the_text_back():
    chatbot, text = page.show_as_text(gr.Chatbot(render_markdown=False)), f"{HOSTILE} R&D &lt; 1 < 2 <b>&#60;"
    sent = chatbot.postprocess([{"role": "assistant", "content": text, "metadata": {"title": "Passages"}}])
    (content,) = sent.root[0].content
    for tag in ("<script", "</script", "<img", "<b", "&lt", "&#"):
        assert tag in text and tag not in content.text
    assert "1 < 2" in content.text
    (back,) = chatbot.preprocess(sent)
    assert back["content"][0]["text"] == text


# --- the server ------------------------------------------------------------------------------------------------------


def test_page_is_served_with_its_policy_and_without_foreign_addresses(desk):  # noqa: F811
    with serve(desk, "manual") as url:
        start = httpx.get(url, trust_env=False)
        css = httpx.get(f"{url}/theme.css", trust_env=False)
    assert start.status_code == css.status_code == 200
    assert start.headers["content-security-policy"].startswith("default-src 'self' ")
    assert "http" not in start.headers["content-security-policy"]
    assert "https://" not in css.text
    assert "google" not in start.text
    assert '"analytics_enabled":false' in start.text.replace(" ", "")


def test_taken_port_and_missing_engine_are_one_line(desk, manual_root, monkeypatch):  # noqa: F811
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "1")  # so that they are put back
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="no engine answers"):
            answerer_at(f"http://127.0.0.1:{port + 1}/v1", desk.answerer("manual").variant)
        monkeypatch.setattr(page, "answerer_at", lambda url, variant: StandIn(variant))
        with pytest.raises(UserError, match=f"port {port} cannot be used"):
            serve_page(desk.answerer("manual").variant, port)
        with pytest.raises(UserError, match="port 65536 cannot be used"):
            serve_page(desk.answerer("manual").variant, 65536)


# --- a running engine, of which a server on loopback says what ours says ---------------------------------------------


def test_beside_an_engine_the_reader_answers_in_this_process(manual_root):  # noqa: F811
    variant = Variant.load("manual")
    model = {"id": "finetuned", "root": f"{variant.run}/finetuning", "object": "model", "created": 1, "owned_by": "x"}
    with serving(lambda body, attempt: (200, {"object": "list", "data": [model]})) as server:
        desk = Desk(manual_root, lambda variant: EngineAnswerer(variant, server.url, "key"))  # noqa: F811
        reply, answerer = last(desk.reply(QUESTION, "manual", "reader")), desk.answerer("manual")
        assert "".join(answerer.stream(QUESTION, "reader")) == reply.text
    here = Answerer(variant)
    assert (reply.text, reply.by, reply.problem) == (here.answer([QUESTION], "reader")[0].text, "transformers", "")
    assert answerer.label("reader") == here.label("reader") and answerer.label("base") == "base, vLLM"


def test_what_is_no_engine_is_one_line_and_this_process_answers(manual_root):  # noqa: F811
    variant = Variant.load("manual")
    with serving(lambda body, attempt: (200, b"<html>", {"Content-Type": "text/html"})) as server:
        with pytest.raises(UserError, match="what answers there is no engine"):
            EngineAnswerer(variant, server.url)
        assert isinstance(answerer_for(variant, server.url), Answerer)
