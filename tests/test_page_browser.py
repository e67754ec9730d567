"""The page in headless Chromium: with a stand-in that answers word by word, and once with the real command and model.

Every test fails if the browser's console has an error, or if the page asks for anything beyond this machine.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llama_qna.project.systems import LABELS, SYSTEMS
from llama_qna.project.variant import REPOSITORY
from llama_qna.serving.desk import Desk
from tests.fixtures_models import small_run_fixture  # noqa: F401
from tests.fixtures_page import HOSTILE, QUESTION, REFERENCE, StandIn, desk, manual_root, serve  # noqa: F401

playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
)
expect = playwright_api.expect
pytestmark = pytest.mark.slow
PHONE = {"width": 390, "height": 844}
SECONDS = 20  # that anything may take on a busy machine


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, or the one that Playwright downloads."""
    expect.set_options(timeout=SECONDS * 1000)
    with playwright_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = shutil.which("chromium") or (str(own) if own.exists() else None)
        if not found:
            pytest.skip("no Chromium: `apt-get install chromium` or `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """`open_page(url, viewport)`: a window of a person of their own; at the end nothing may have gone wrong in it."""
    contexts, problems = [], []

    def watch(page):
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: _is_foreign(request.url) and problems.append(request.url))

    def open_at(url, viewport=None):
        contexts.append(browser.new_context(viewport=viewport or {"width": 1100, "height": 900}))
        contexts[-1].set_default_timeout(SECONDS * 1000)
        contexts[-1].grant_permissions(["clipboard-read", "clipboard-write"])
        page = contexts[-1].new_page()
        watch(page)
        page.goto(url)
        expect(page.get_by_role("radio", name="base", exact=True)).to_be_visible()
        offered = page.get_by_role("combobox", name="Gold questions").or_(page.get_by_label("Not there yet"))
        expect(offered.first).to_be_visible()  # what the variant offers has arrived
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert problems == []


def _is_foreign(url):
    return urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).hostname != "127.0.0.1"


@pytest.fixture
def url(desk):  # noqa: F811
    with serve(desk, "manual") as address:
        yield address


def question_box(page):
    return page.get_by_role("textbox", name=re.compile("^Question( Ask| Stop)?$"))  # its label holds the button too


def bot(page):
    return page.get_by_test_id("bot")


def choose_system(page, name):
    page.get_by_role("radio", name=name, exact=True).check()


def ask(page, question):
    question_box(page).fill(question)
    question_box(page).press("Enter")


def ending_in(text):
    return re.compile(re.escape(text) + r"\s*$")


# --- chat ------------------------------------------------------------------------------------------------------------


def test_answer_streams_in(desk, url, open_page):  # noqa: F811
    desk.answerer("manual").seconds = 0.3
    page = open_page(url)
    ask(page, "Why is it so?")
    expect(bot(page).first).to_contain_text("finetuned says of")
    early = bot(page).first.inner_text()
    expect(bot(page).first).to_contain_text(f"finetuned says of 'Why is it so?': {REFERENCE}")
    assert len(early) < len(bot(page).first.inner_text())
    expect(bot(page).nth(1)).to_contain_text("given no passage; 2 were found")


def test_systems_are_switched_and_passages_and_scores_shown(url, open_page):
    page = open_page(url)
    page.get_by_role("combobox", name="Gold questions").click()
    page.get_by_role("option", name=QUESTION).click()
    expect(question_box(page)).to_have_value(QUESTION)
    question_box(page).press("Enter")
    expect(bot(page)).to_have_count(3)
    expect(bot(page).nth(2)).to_contain_text(f"Reference answer: {REFERENCE}")
    expect(bot(page).nth(2)).to_contain_text("ROUGE-L 0.")
    choose_system(page, "base with passages")
    ask(page, "And now?")
    expect(bot(page)).to_have_count(5)
    expect(bot(page).nth(3)).to_contain_text("base says of 'And now?'")
    expect(bot(page).nth(4)).to_contain_text("base+passages of manual by a stand-in, given 2 passages")
    expect(bot(page).nth(4)).to_contain_text("[1] manual, page 3, 2 The lid")


def test_hostile_text_is_shown_and_does_nothing(url, open_page):
    page = open_page(url)
    choose_system(page, "fine-tuned with passages")
    ask(page, f"What of {HOSTILE}")
    expect(bot(page)).to_have_count(2)
    log = page.get_by_role("log")
    for message in (page.get_by_test_id("user").first, bot(page).first, bot(page).nth(1)):
        assert HOSTILE in message.inner_text().replace("\u2060", "")
    page.get_by_role("tab", name="Side by side").click()
    page.get_by_label("Question for all systems").fill(HOSTILE)
    page.get_by_role("button", name="Ask all systems").click()
    answer = page.get_by_role("textbox", name=LABELS["finetuned+passages"], exact=True)
    expect(answer).to_have_value(ending_in(HOSTILE))
    assert page.evaluate("window.hit") is None
    assert log.locator("script, img, a, iframe, [onerror]").count() == 0


def test_stop_ends_the_writing(desk, url, open_page):  # noqa: F811
    desk.answerer("manual").seconds = 0.5
    page = open_page(url)
    ask(page, QUESTION)
    expect(bot(page).first).to_contain_text("finetuned says")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    for _ in range(SECONDS * 10):
        if desk.answerer("manual").left:
            break
        page.wait_for_timeout(100)
    assert desk.answerer("manual").left == 1


def test_conversation_is_copied(url, open_page):
    page = open_page(url)
    ask(page, "Why, R&D?")
    expect(bot(page)).to_have_count(2)
    page.get_by_role("button", name="Copy message").nth(1).click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert f"finetuned says of 'Why, R&\u2060D?': {REFERENCE}" in copied or REFERENCE in copied


def test_two_people_at_once_get_their_own_answers(desk, url, open_page):  # noqa: F811
    desk.answerer("manual").seconds = 0.1
    mine, yours = open_page(url), open_page(url)
    choose_system(mine, "base")
    ask(mine, "Where is the hinge?")
    ask(yours, "Who made it?")
    expect(bot(mine)).to_have_count(2)
    expect(bot(yours)).to_have_count(2)
    assert bot(mine).first.inner_text().strip() == f"base says of 'Where is the hinge?': {REFERENCE}"
    assert bot(yours).first.inner_text().strip() == f"finetuned says of 'Who made it?': {REFERENCE}"


@pytest.fixture
def untrained(manual_root):  # noqa: F811
    """The address of a page on which no variant is trained."""
    with serve(Desk(manual_root, StandIn), "manual") as address:
        yield address


def test_variant_without_a_model_answers_with_the_base(untrained, open_page):
    page = open_page(untrained)
    page.get_by_role("combobox", name="Variant").click()
    page.get_by_role("option", name="fresh").click()
    expect(page.get_by_label("Not there yet")).to_have_value(ending_in("run `llama-qna load fresh` first"))
    expect(page.get_by_role("radio")).to_have_count(1)
    ask(page, "Why?")
    expect(bot(page).first).to_contain_text("base says of 'Why?'")


# --- side by side, phone, keyboard -----------------------------------------------------------------------------------


def test_side_by_side_on_a_phone(url, open_page):
    page = open_page(url, PHONE)
    ask(page, QUESTION)
    expect(bot(page)).to_have_count(3)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    page.get_by_role("tab", name="Side by side").click()
    page.get_by_label("Question for all systems").fill(QUESTION)
    page.get_by_role("button", name="Ask all systems").click()
    expect(page.locator(".scores tbody tr")).to_have_count(len(SYSTEMS))
    for model, label in (("base", "base"), ("pretrained", "pretrained"), ("finetuned", "fine-tuned")):
        expect(page.get_by_role("textbox", name=label, exact=True)).to_have_value(ending_in(REFERENCE))
        assert page.get_by_role("textbox", name=label, exact=True).input_value().startswith(f"{model} says")
    assert page.get_by_role("textbox", name="Reference answer").input_value() == REFERENCE
    assert "manual, page 3" in page.get_by_role("textbox", name="Passages that the systems").input_value()
    last_column = page.get_by_role("columnheader", name="F1", exact=True).bounding_box()
    assert last_column["x"] + last_column["width"] <= PHONE["width"]
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]


def test_everything_is_reached_with_the_keyboard_alone(url, open_page):
    page = open_page(url)

    def focused():
        return page.evaluate(
            "(e => e.labels?.[0]?.innerText.trim() || e.getAttribute('aria-label') || e.innerText?.trim())"
            "(document.activeElement)"
        ).split("\n")[0]

    def tab_to(name):
        for _ in range(40):
            page.keyboard.press("Tab")
            if focused() == name:
                return
        raise AssertionError(f"Tab does not reach {name}")

    tab_to("base with passages")
    page.keyboard.press("Space")
    expect(page.get_by_role("radio", name="base with passages")).to_be_checked()
    tab_to("Question")
    page.keyboard.type("Why?")
    page.keyboard.press("Enter")
    expect(bot(page)).to_have_count(2)
    expect(bot(page).first).to_contain_text("base says of 'Why?'")
    page.get_by_role("heading", name="Ask").click()
    tab_to("Side by side")
    page.keyboard.press("Enter")
    tab_to("Question for all systems")
    page.keyboard.type("Who?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="base", exact=True)).to_have_value(ending_in(REFERENCE))


# --- the real command with the real model ----------------------------------------------------------------------------

GUARD = """
import socket, sys
from llama_qna.cli import main
connect = socket.socket.connect
def guarded(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("FOREIGN", address, flush=True)
    return connect(self, address)
socket.socket.connect = guarded
lookup = socket.getaddrinfo
def looked_up(host, *args, **options):
    if host not in (None, "127.0.0.1", "::1", "localhost", "0.0.0.0", b"127.0.0.1"):
        print("FOREIGN", host, flush=True)
    return lookup(host, *args, **options)
socket.getaddrinfo = looked_up
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def real(small_run, tmp_path):  # noqa: F811
    """`llama-qna page small` in a process of its own that reports every address beyond this machine; (url, its output).

    Nothing else is set: what keeps it offline is the page's own doing.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GRADIO_"))}
    environment |= {"LLAMA_QNA_ROOT": str(small_run.variant.root), "PYTHONPATH": str(REPOSITORY)}
    environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    output = tmp_path / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", GUARD, "page", "small", "--port", str(port)],
            env=environment, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        for _ in range(SECONDS * 40):
            if "answers at" in output.read_text() or process.poll() is not None:
                break
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                pass
        assert f"small answers at http://127.0.0.1:{port}" in output.read_text(), output.read_text()
        yield f"http://127.0.0.1:{port}", output
    finally:
        process.terminate()
        process.wait(30)


def test_the_real_model_answers_as_in_the_terminal(real, small_run, open_page):  # noqa: F811
    from llama_qna.answering.answerer import Answerer

    url, output = real  # noqa: F811
    question = "What is a wicket?"
    page = open_page(url)
    choose_system(page, "base with passages")
    ask(page, question)
    expect(bot(page)).to_have_count(2)
    answerer = Answerer(small_run.variant)
    wanted = {system: answerer.answer([question], system)[0] for system in SYSTEMS}
    assert bot(page).first.inner_text().strip() == wanted["base+passages"].text
    assert "base+passages of small by transformers, given" in bot(page).nth(1).inner_text()
    assert f"{wanted['base+passages'].sources[0].document}, page 1" in bot(page).nth(1).inner_text()
    page.get_by_role("tab", name="Side by side").click()
    page.get_by_label("Question for all systems").fill(question)
    page.get_by_role("button", name="Ask all systems").click()
    for system in SYSTEMS:
        expect(page.get_by_role("textbox", name=LABELS[system], exact=True)).to_have_value(wanted[system].text)
    assert "FOREIGN" not in output.read_text(), output.read_text()
