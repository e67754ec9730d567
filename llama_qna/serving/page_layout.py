"""How the page is laid out with Gradio: a chat with one system, and all systems side by side.

Imports Gradio at once, so import it inside functions. What is said stands in `conversation`.
"""

from __future__ import annotations

import re
from functools import partial

import gradio as gr

from llama_qna import UserError
from llama_qna.answering.answerer import SYSTEMS, uses_retrieval
from llama_qna.serving.conversation import (
    MAX_CHARACTERS,
    SHOWN_SCORES,
    Desk,
    GoldQuestion,
    Reply,
    as_json,
    as_markdown,
    messages,
    passages_text,
)

AT_ONCE = 16  # questions; a model in this process still answers one after the other

LABELS = {
    "base": "base",
    "pretrained": "pretrained",
    "qna": "qna (fine-tuned)",
    "rag": "rag (base with retrieval)",
    "qna+rag": "qna+rag (fine-tuned with retrieval)",
}

CSS = """
.message-markdown-disabled span { overflow-wrap: anywhere; }
.scores { overflow-x: auto; }
.scores table { font-size: 12px; }
.scores :is(th, td) { padding: 4px !important; word-break: normal !important; overflow-wrap: normal !important; }
@media (max-width: 600px) { .gradio-container, .gradio-container .app { padding: 8px !important; } }
"""

# The file is made in the browser, so that nobody's conversation is written to the server's disk.
SAVE = """(text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "%s"}));
  link.download = "%s";
  link.click();
  URL.revokeObjectURL(link.href);
}"""

WORD_JOINER = "\u2060"


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


def theme() -> gr.themes.Base:
    """Gradio's theme with the fonts of the system; its own come from Google."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


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
        missing, gold = desk.missing(name), desk.gold(name)
        notice = "\n".join(dict.fromkeys(missing.values()))
    except UserError as error:  # the recipe or the gold file is broken
        missing, gold, notice = {}, [], str(error)
    systems = [key for key in SYSTEMS if key not in missing]
    if system not in systems:
        system = "qna" if "qna" in systems else "base"
    return (
        gr.Radio(choices=[(LABELS[key], key) for key in systems], value=system),
        gr.Dropdown(choices=[(_gold_label(row), row.question) for row in gold], value=None, visible=bool(gold)),
        gr.Textbox(notice, visible=bool(notice), lines=notice.count("\n") + 1),
    )


def _gold_label(row: GoldQuestion) -> str:
    return f"{row.question} ({row.question_id}, {row.fold})"


def _chat(desk: Desk, variant: gr.Dropdown) -> tuple[gr.Radio, gr.Textbox]:
    """One system at a time, with its passages: (the choice of the system, the question)."""

    def answer(question, _history, name, system):
        for reply in desk.reply(question, name, system):
            yield messages(reply, name, system)

    system = gr.Radio([(LABELS[key], key) for key in SYSTEMS], value="qna", label="System")
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
    gr.ChatInterface(
        answer,
        chatbot=chatbot,
        textbox=question,
        additional_inputs=[variant, system],
        autofocus=False,
        fill_height=False,
        concurrency_limit=AT_ONCE,
        analytics_enabled=False,
        api_visibility="private",
    )
    question.show_label = True  # ChatInterface hides it
    file = gr.Textbox(label="File", visible="hidden")
    with gr.Row():
        for label, write, kind, filename in (
            ("Save as Markdown", as_markdown, "text/markdown", "conversation.md"),
            ("Save as JSON", as_json, "application/json", "conversation.json"),
        ):
            written = gr.Button(label, size="sm").click(write, chatbot, file, api_visibility="private")
            written.then(None, file, None, js=SAVE % (kind, filename))
    return system, question


def _side_by_side(desk: Desk, variant: gr.Dropdown) -> gr.Textbox:
    """One question, all systems, with the passages and the scores: the question."""
    question = gr.Textbox(label="Question for all systems", max_length=MAX_CHARACTERS)
    with gr.Row():
        ask, stop = gr.Button("Ask all systems", variant="primary"), gr.Button("Stop all systems")
    # whole, because what cannot be edited cannot be scrolled with the keyboard
    whole = {"interactive": False, "max_lines": 1000}
    answers = {key: gr.Textbox(label=LABELS[key], lines=2, **whole) for key in SYSTEMS}
    passages = gr.Textbox(label="Passages that the systems with retrieval are given", **whole)
    reference = gr.Textbox(label="Reference answer", interactive=False, visible=False)
    scores = gr.Markdown(visible=False, elem_classes="scores")

    def compare(asked, name):
        hidden = {reference: gr.Textbox(visible=False), scores: gr.Markdown(visible=False)}
        yield {component: "" for component in [*answers.values(), passages]} | hidden
        scored = {}
        for system, reply in desk.side_by_side(asked, name):
            update = {answers[system]: f"No answer: {reply.problem}" if reply.problem else reply.text}
            if reply.sources and uses_retrieval(system):
                update[passages] = passages_text(reply.sources)
            if reply.gold:
                scored[system] = reply
                update[reference] = gr.Textbox(reply.gold.answer, visible=True)
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


def scores_table(replies: dict[str, Reply]) -> str:
    """The scores of each system as a Markdown table: numbers and words of ours, and nothing else."""
    lines = [["system", *SHOWN_SCORES.values()], ["---"] * (1 + len(SHOWN_SCORES))]
    for system in SYSTEMS:
        if system in replies:
            lines.append([system, *(f"{replies[system].scores[name]:.3f}" for name in SHOWN_SCORES)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
