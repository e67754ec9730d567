"""The page in a browser, on what Gradio gives: a chat with one system, and all systems side by side.

It is served on this machine only, and lets nothing on it reach another. What is said stands in `desk`. Gradio is
imported at once, so import this module inside functions.
"""

from __future__ import annotations

import re
import threading
from functools import partial

from starlette.middleware import Middleware

from llama_qna import UserError
from llama_qna.answering.answerer import Answerer, Source
from llama_qna.project.systems import LABELS, SYSTEMS, is_given_passages
from llama_qna.project.variant import Variant, root_in_use
from llama_qna.serving.desk import (
    HOST,
    MAX_CHARACTERS,
    SHOWN_SCORES,
    Desk,
    Reply,
    messages,
    passages_text,
    stay_offline,
)
from llama_qna.serving.engine_client import EngineAnswerer, answerer_for
from llama_qna.serving.library import Library
from llama_qna.text.tables import markdown

stay_offline()  # Gradio reads the environment when it is imported
import gradio as gr  # noqa: E402

PORT = 7860
# The browser itself refuses every other host, whatever a document or a model may write.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'"

AT_ONCE = 16  # questions; a model in this process still answers one after the other
CSS = """
.message-markdown-disabled span { overflow-wrap: anywhere; }
.scores { overflow-x: auto; }
.scores table { font-size: 12px; }
.scores :is(th, td) { padding: 4px !important; word-break: normal !important; overflow-wrap: normal !important; }
@media (max-width: 600px) { .gradio-container, .gradio-container .app { padding: 8px !important; } }
"""
WORD_JOINER = "\u2060"


def serve_page(asked: Variant | Library, port: int = PORT, engine: str | None = None) -> None:
    """Serve the page until it is interrupted; prints its address once it can be opened.

    Args:
        asked: a variant, beside which the others can be chosen, or somebody's own documents.
        engine: the address of a running engine, such as http://127.0.0.1:8000/v1. By default an engine at its usual
            address is used if it serves the variant, and the model in this process if not.

    Raises:
        UserError: the base model cannot be had, no engine serves the variant at `engine`, or the port cannot be used.
    """
    library = asked if isinstance(asked, Library) else None
    desk = Desk(root_in_use(), partial(answerer_at, engine), library)
    desk.answerer(asked.name)  # what is wrong with it is said before the page is there
    try:
        build(desk, asked.name).launch(server_port=port, prevent_thread_lock=True, **launch_options())
    except (OSError, OverflowError):
        raise UserError(f"port {port} cannot be used: choose another one with --port") from None
    print(f"{asked.name} answers at http://{HOST}:{port} (Ctrl+C stops it)", flush=True)
    threading.Event().wait()


def answerer_at(url: str | None, variant: Variant) -> Answerer:
    """The engine at an address; without one see `engine_client.answerer_for`.

    Raises:
        UserError: no engine serves the variant there, or the base model cannot be had.
    """
    return EngineAnswerer(variant, url) if url else answerer_for(variant)


def launch_options() -> dict:
    """What `launch` is given beside the port: this machine only, no font from elsewhere, and the policy."""
    return {
        "server_name": HOST,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "run_history": False,
        "footer_links": [],
        "quiet": True,
        "max_file_size": "1kb",  # the page takes no files
        # the fonts of the system; the theme's own come from Google
        "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "css": CSS,
        "app_kwargs": {"middleware": [Middleware(_Policy)]},
    }


class _Policy:
    """Adds the content security policy to every response (https://www.w3.org/TR/CSP3/)."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = message | {"headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, send_with_policy)


def show_as_text(chatbot: gr.Chatbot) -> gr.Chatbot:
    """Let a chatbot show texts as they are: without Markdown, Gradio still renders their HTML and loads their images.

    A character without width after `<` and `&` keeps a browser from reading a tag or an entity there. Escaping them
    would show the same, but the copy buttons would copy the escapes. The methods of this one chatbot are replaced,
    because of every subclass Gradio writes a .pyi file beside the module.
    """
    send, receive = chatbot.postprocess, chatbot.preprocess

    def postprocess(value):
        data = send(value)
        for content in (content for message in data.root for content in message.content):
            content.text = re.sub(r"<(?=[A-Za-z/!?])|&(?=[#\w])", rf"\g<0>{WORD_JOINER}", content.text)
        return data

    def preprocess(payload):
        conversation = receive(payload)
        for content in (content for message in conversation for content in message["content"]):
            content["text"] = re.sub(f"(?<=[<&]){WORD_JOINER}", "", content["text"])
        return conversation

    chatbot.postprocess, chatbot.preprocess = postprocess, preprocess
    return chatbot


def build(desk: Desk, name: str) -> gr.Blocks:
    """The page, with the variant `name` chosen."""
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    with gr.Blocks(title=f"Ask {name}", analytics_enabled=False) as page:
        gr.Markdown("# Ask\nEvery question is answered on its own: earlier ones are not remembered.")
        variant = gr.Dropdown(desk.variants(), value=name, label="Variant")
        notice = gr.Textbox(label="Not there yet", interactive=False, visible=False)
        gold = gr.Dropdown(
            [], label="Gold questions", info="Answers to these are scored against a reference answer.", visible=False
        )
        with gr.Tab("Chat"):
            system, asked = _chat(desk, variant)
        with gr.Tab("Side by side"):
            asked_all = _side_by_side(desk, variant)
        gr.on([page.load, variant.input], partial(choose, desk), [variant, system], [system, gold, notice], **quiet)
        gold.input(lambda text: (text, text), gold, [asked, asked_all], queue=False, **quiet)
    return page


def choose(desk: Desk, name: str, system: str | None) -> tuple[gr.Radio, gr.Dropdown, gr.Textbox]:
    """What the page offers for a variant: the systems that can answer, the gold questions, and what to run."""
    try:
        missing, gold, best = desk.missing(name), desk.gold(name), desk.best(name)
        notice = "\n".join(dict.fromkeys(missing.values()))
    except UserError as error:  # the recipe or the gold file is broken
        missing, gold, best, notice = {}, [], SYSTEMS[0], str(error)
    systems = [key for key in SYSTEMS if key not in missing]
    if system not in systems:
        system = next(key for key in (best, "finetuned", "base") if key in systems)
    questions = [(f"{row.Question} ({row.question_id}, {row.fold})", row.Question) for row in gold]
    return (
        gr.Radio(choices=[(LABELS[key], key) for key in systems], value=system),
        gr.Dropdown(choices=questions, value=None, visible=bool(gold)),
        gr.Textbox(notice, visible=bool(notice), lines=notice.count("\n") + 1),
    )


def _chat(desk: Desk, variant: gr.Dropdown) -> tuple[gr.Radio, gr.Textbox]:
    """One system at a time, with its passages: (the choice of the system, the question)."""

    def answer(question, _history, name, system):
        for reply in desk.reply(question, name, system):
            page = reply.evidence.picture() if reply.evidence else None
            yield messages(reply, name, system), gr.Image(page, visible=page is not None)

    system = gr.Radio([(LABELS[key], key) for key in SYSTEMS], value=SYSTEMS[0], label="System")
    chatbot = show_as_text(
        gr.Chatbot(
            label="Conversation",
            height="50vh",
            render_markdown=False,
            buttons=["copy", "copy_all"],
            placeholder="Ask about the documents, or choose a gold question above.",
        )
    )
    question = gr.Textbox(
        label="Question", placeholder="Your question", max_length=MAX_CHARACTERS, submit_btn="Ask", stop_btn="Stop"
    )
    marked = gr.Image(label="The page, with the evidence marked", visible=False, interactive=False, render=False)
    gr.ChatInterface(
        answer,
        chatbot=chatbot,
        textbox=question,
        additional_inputs=[variant, system],
        additional_outputs=[marked],
        autofocus=False,
        fill_height=False,
        concurrency_limit=AT_ONCE,
        analytics_enabled=False,
        api_visibility="private",
    )
    question.show_label = True  # ChatInterface hides it
    marked.render()
    return system, question


def _side_by_side(desk: Desk, variant: gr.Dropdown) -> gr.Textbox:
    """One question, all systems, with the passages and the scores: the question."""
    question = gr.Textbox(label="Question for all systems", max_length=MAX_CHARACTERS)
    with gr.Row():
        ask, stop = gr.Button("Ask all systems", variant="primary"), gr.Button("Stop all systems")
    # whole, because what cannot be edited cannot be scrolled with the keyboard
    whole = {"interactive": False, "max_lines": 1000}
    answers = {key: gr.Textbox(label=LABELS[key], lines=2, **whole) for key in SYSTEMS}
    passages = gr.Textbox(label="Passages that the systems with passages are given", **whole)
    reference = gr.Textbox(label="Reference answer", interactive=False, visible=False)
    scores = gr.Markdown(visible=False, elem_classes="scores")

    def compare(asked, name):
        hidden = {reference: gr.Textbox(visible=False), scores: gr.Markdown(visible=False)}
        yield {component: "" for component in [*answers.values(), passages]} | hidden
        given, scored = {}, {}
        for system, reply in desk.side_by_side(asked, name):
            update = {answers[system]: f"No answer: {reply.problem}" if reply.problem else reply.text}
            if reply.sources and is_given_passages(system):
                given[system] = reply.sources
                update[passages] = passages_by_system(given)
            if reply.gold:
                scored[system] = reply
                update[reference] = gr.Textbox(reply.gold.Answer, visible=True)
                update[scores] = gr.Markdown(scores_table(scored), visible=True)
            yield update

    running = gr.on(
        [ask.click, question.submit],
        compare,
        [question, variant],
        [*answers.values(), passages, reference, scores],
        concurrency_limit=AT_ONCE,
        show_progress="minimal",
        show_progress_on=question,
        api_visibility="private",
    )
    stop.click(None, cancels=[running])
    return question


def passages_by_system(given: dict[str, tuple[Source, ...]]) -> str:
    """The passages that each system was given; those that several were given stand once, under all their names."""
    names: dict[tuple[Source, ...], list[str]] = {}
    for system, sources in given.items():
        names.setdefault(sources, []).append(LABELS[system])
    return "\n\n".join(f"{', '.join(labels)}:\n{passages_text(sources)}" for sources, labels in names.items())


def scores_table(replies: dict[str, Reply]) -> str:
    """The scores of each system as a Markdown table: numbers and words of ours, and nothing else."""
    asked = [system for system in SYSTEMS if system in replies]
    rows = [[system, *(f"{replies[system].scores[name]:.3f}" for name in SHOWN_SCORES)] for system in asked]
    return markdown(["system", *SHOWN_SCORES.values()], rows)
