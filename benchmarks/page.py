"""How soon the page can be used, and pictures of it: `llama-qna page` as a user starts it, in headless Chromium.

Measures the seconds from the command to the moment at which a question can be typed, and from Enter to the first and
the last word of the first answer (the weights are loaded at the first question) and of a second one. Prints them,
writes `benchmarks/results/page.json` and from it the table in `docs/page/README.md`, and keeps pictures beside that.
Needs a variant that is trained on this machine, Playwright, and Chromium.

    python -m benchmarks.page [VARIANT] [--rounds 3]
"""

import argparse
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime

from playwright.sync_api import expect, sync_playwright

from llama_qna.project import marked, provenance
from llama_qna.project.files import write_json
from llama_qna.project.systems import SYSTEMS
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.serving.desk import Desk

RESULTS = REPOSITORY / "benchmarks" / "results" / "page.json"
PICTURES = REPOSITORY / "docs" / "page"
WINDOW, PHONE = {"width": 1000, "height": 900}, {"width": 390, "height": 844}
SHOWN = "Why are the exit classifiers called wickets?"  # in the pictures
LIMIT = 120_000  # milliseconds that anything may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variant", nargs="?", default="paper_135m")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    variant = Variant.load(options.variant)
    questions = [row.Question for row in Desk(variant.root).gold(variant.name) if row.fold == "test"][:2]
    expect.set_options(timeout=LIMIT)
    rounds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for number in range(1, options.rounds + 1):
            started = time.perf_counter()
            with _page(variant.name) as url:
                measured = _measure(browser, url, questions, started)
                rounds.append(measured)
                print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in measured.items()))
                if number == options.rounds:
                    _take_pictures(browser, url, questions)
        browser.close()
    medians = {name: statistics.median(round[name] for round in rounds) for name in rounds[0]}
    facts = {"variant": variant.name, "median_seconds": medians, "rounds": rounds}
    facts |= {"date": datetime.now(UTC).date().isoformat(), "git": provenance.git_state()}
    facts |= {"machine": provenance.machine(), "versions": provenance.versions()}
    write_json(RESULTS, facts)
    marked.write(PICTURES / "README.md", measured=table(facts))


def table(facts: dict) -> str:
    """The table of the documentation."""
    lines = ["| | seconds, median of the rounds |", "|---|---|"]
    lines += [f"| {name} | {seconds:.1f} |" for name, seconds in facts["median_seconds"].items()]
    about = (
        f"`{facts['variant']}`, {len(facts['rounds'])} rounds, {facts['machine']['cores']} CPU cores, {facts['date']}; "
    )
    return "\n".join([*lines, "", f"{about}[`page.json`](../../benchmarks/results/page.json) has every round."])


@contextmanager
def _page(name: str):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "llama_qna", "page", name, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    try:
        if "answers at" not in process.stdout.readline():
            raise SystemExit("the page did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _measure(browser, url: str, questions: list[str], started: float) -> dict[str, float]:
    page = _open(browser, url, WINDOW)
    seconds = {"from the command to a page that can be used": time.perf_counter() - started}
    for place, question in zip(("first", "second"), questions, strict=True):
        count = page.get_by_test_id("bot").count()
        asked = _ask(page, question)
        expect(page.get_by_test_id("bot").nth(count)).to_contain_text(" ")
        seconds[f"to the first words of the {place} answer"] = time.perf_counter() - asked
        _until_scored(page, ("first", "second").index(place) + 1)
        seconds[f"to the end of the {place} answer"] = time.perf_counter() - asked
    page.context.close()
    return seconds


def _take_pictures(browser, url: str, questions: list[str]) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page = _open(browser, url, WINDOW)
    _ask(page, SHOWN)
    expect(page.locator("img").last).to_be_visible()  # the page of the document
    page.wait_for_timeout(1000)  # until it has scrolled to the end
    page.screenshot(path=PICTURES / "chat.png", full_page=True)
    _compare(page, questions[1])
    page.screenshot(path=PICTURES / "side_by_side.png", full_page=True)
    page.context.close()
    page = _open(browser, url, PHONE)
    _ask(page, SHOWN)
    expect(page.locator("img").last).to_be_visible()
    page.wait_for_timeout(1000)
    page.screenshot(path=PICTURES / "phone.png", full_page=True)
    page.context.close()


def _open(browser, url: str, viewport: dict):
    page = browser.new_context(viewport=viewport).new_page()
    page.set_default_timeout(LIMIT)
    page.goto(url)
    expect(page.get_by_role("combobox", name="Gold questions")).to_be_visible()
    expect(page.get_by_role("textbox", name="Question").first).to_be_editable()
    return page


def _ask(page, question: str) -> float:
    page.get_by_role("textbox", name="Question").first.fill(question)
    page.keyboard.press("Enter")
    return time.perf_counter()


def _until_scored(page, count: int) -> None:
    """Wait until so many gold questions have their scores, the last thing of a reply."""
    expect(page.get_by_text(re.compile("^Gold question .*scores"))).to_have_count(count)


def _compare(page, question: str) -> None:
    page.get_by_role("tab", name="Side by side").click()
    page.get_by_label("Question for all systems").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(".scores tbody tr")).to_have_count(len(SYSTEMS))


if __name__ == "__main__":
    main()
