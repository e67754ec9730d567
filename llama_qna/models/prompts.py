"""The one template that training, evaluation and answering share, and the prompts that make questions.

A question is asked in the base model's own chat template, so that the same adapter answers here and behind any server
that applies it. Token ids are built here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llama_qna import UserError

CONTEXT_TOKENS = 900  # of a prompt with chunks: the 135M model was trained on 2,048 tokens, and long prompts are slow
SYSTEM = "Answer the question briefly and precisely."
READING = (
    "Quote the words of the texts that answer the question, then answer it. If they do not answer it, write a dash."
)
WRITING = "Write a question about the text that the given sentence answers."
NOTHING = "-"  # in place of a quote
DOUBT_WEIGHT = 0.5  # of a reader's doubt against a question's mean log-probability (docs/experiments.md)
NOT_SAID = "The documents do not say."
# For base models that come without a chat template.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ '### ' + message['role'] | capitalize + ':\n' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)
# Before a template that takes no system turn: the message becomes the beginning of the user's.
SYSTEM_IN_USER = (
    "{% if messages[0]['role'] == 'system' %}{% set messages = [{'role': 'user', 'content': messages[0]['content'] "
    "+ '\n\n' + messages[1]['content']}] + messages[2:] %}{% endif %}"
)


def with_system_turn(tokenizer):
    """The tokenizer, whose chat template takes a system turn from now on if it refused one."""
    from jinja2 import TemplateError

    template = tokenizer.chat_template
    if isinstance(template, str):
        try:
            tokenizer.apply_chat_template(_turn("system", "a") + _turn("user", "a"), tokenize=False)
        except TemplateError:
            tokenizer.chat_template = SYSTEM_IN_USER + template
    return tokenizer


def question_ids(tokenizer, question: str) -> list[int]:
    """`input_ids` of a question, ready for the answer; (T,)."""
    return chat_ids(tokenizer, _turn("system", SYSTEM) + _turn("user", question))


def fit_chunks(tokenizer, question: str, chunks: list[str], max_tokens: int) -> tuple[list[int], int]:
    """`input_ids` of a question with the chunks that may answer it, the best first; and how many chunks are in it.

    Whole chunks are left out from the end until the rest fits; if not even the first fits, its end is cut off between
    two words. Without any chunk this is `question_ids`.

    Returns:
        (T,), T <= max_tokens; and a number from 0 to that of the chunks.

    Raises:
        UserError: the question alone is longer than that.
    """

    def with_texts(texts: list[str]) -> list[int]:
        parts = [f"Text: {text}" for text in texts]
        return question_ids(tokenizer, "\n\n".join([*parts, f"Question: {question}"]))

    alone = question_ids(tokenizer, question)
    if len(alone) > max_tokens:
        raise UserError(f"the question {question[:60]!r} is longer than the {max_tokens} tokens of a prompt")
    whole = [chunks[:count] for count in range(len(chunks), 0, -1)]
    words = list(re.finditer(r"\S+", chunks[0])) if chunks else []
    less_and_less = [[chunks[0][: word.end()]] for word in reversed(words)]
    for texts in whole + less_and_less:
        input_ids = with_texts(texts)
        if len(input_ids) <= max_tokens:
            return input_ids, len(texts)
    return alone, 0


def training_row(tokenizer, question: str, answer: str) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one pair; labels are -100 on the question, so that the loss is on the answer alone.

    The end-of-text token belongs to the answer and stays in the labels: that is how the model learns to stop. So a pair
    is never cut off: half an answer teaches to go on, and half a question is another one.
    """
    prompt = question_ids(tokenizer, question)
    completion = encode_document(tokenizer, answer) + [tokenizer.eos_token_id]
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


def fits(row: dict[str, list[int]], max_length: int) -> bool:
    """Whether a row of a pair is trained on: one of more tokens than that is left out."""
    return len(row["input_ids"]) <= max_length


def fitting_pairs(tokenizer, pairs, max_length: int):
    """The rows of a table of pairs whose own rows fit, closed book."""
    texts = zip(pairs.Question, pairs.Answer, strict=True)
    return pairs.loc[[fits(training_row(tokenizer, *text), max_length) for text in texts]]


def reading_messages(question: str, passages: Sequence[str]) -> list[dict[str, str]]:
    """The messages that ask for a quote from passages and for the answer that it gives."""
    texts = [f"Text: {passage}" for passage in passages]
    return _turn("system", READING) + _turn("user", "\n\n".join([*texts, f"Question: {question}"]))


def reading_answer(evidence: str, answer: str) -> str:
    """What a reader writes: a quote and the answer on two lines, or that the passages do not tell.

    The quote comes first: to copy the words that matter is what a small model can, and its answer then stands beside
    them.
    """
    return f"{evidence}\n{answer}" if evidence else f"{NOTHING}\n{NOT_SAID}"


def writing_messages(passage: str, sentence: str) -> list[dict[str, str]]:
    """The messages that ask for a question about a sentence of a passage."""
    return _turn("system", WRITING) + _turn("user", f"Text: {passage}\n\nSentence: {sentence}")


def conversation_row(tokenizer, messages: list[dict[str, str]]) -> dict[str, list[int]]:
    """`input_ids` and `labels` of a conversation; labels stand on the assistant's turns and on the end of each: (T,).

    A turn of the assistant begins with a space, so that what it quotes has the same tokens as in the middle of a text.
    """
    input_ids, labels, asked = [], [], []
    for message in messages:
        if message["role"] != "assistant":
            asked.append(message)
            continue
        prompt = _next_turn(tokenizer, asked) if input_ids else chat_ids(tokenizer, asked)
        answer = encode_document(tokenizer, f" {message['content']}") + [tokenizer.eos_token_id]
        input_ids += prompt + answer
        labels += [-100] * len(prompt) + answer
        asked = []
    return {"input_ids": input_ids, "labels": labels}


def _next_turn(tokenizer, messages: list[dict[str, str]]) -> list[int]:
    """What the template puts between the end of one answer and the beginning of the next."""
    begun = _turn("user", "a")
    before = chat_ids(tokenizer, begun)
    after = chat_ids(tokenizer, begun + _turn("assistant", "a") + messages)
    answered = encode_document(tokenizer, "a")
    return after[len(before) + len(answered) :][1:]  # without the end-of-text token, which belongs to the answer


def text_rows(tokenizer, text: str, max_length: int) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of a plain text, in as many rows as it takes: every token is predicted once.

    A model predicts no row's first token; so a row begins with the start token or, of models that have none, with the
    last token of the row before. A text of which nothing can be predicted has no row.
    """
    start, input_ids, rows = _start(tokenizer), text_ids(tokenizer, text), []
    for place in range(1, len(input_ids), max_length - 1):
        row = (start or input_ids[place - 1 : place]) + input_ids[place : place + max_length - 1]
        rows.append({"input_ids": row, "labels": list(row)})
    return rows


def text_ids(tokenizer, text: str) -> list[int]:
    """`input_ids` of a plain text, after the start token of models that have one; (T,)."""
    return _start(tokenizer) + encode_document(tokenizer, text)


def encode_document(tokenizer, text: str) -> list[int]:
    """Tokens of text that came from a document: control tokens that it spells out stay plain text."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def nothing_id(tokenizer) -> int:
    """The token with which a reader begins that finds no answer."""
    return encode_document(tokenizer, f" {NOTHING}")[0]


def chat_ids(tokenizer, messages: list[dict[str, str]]) -> list[int]:
    """`input_ids` of messages in the model's chat template, ready for its turn; (T,).

    The control tokens of the template are the model's; those that a message spells out, as a document may, are not.
    """
    template = None if tokenizer.chat_template else PLAIN_TEMPLATE

    def render(contents):
        turns = [message | {"content": content} for message, content in zip(messages, contents, strict=True)]
        text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=True)
        return text.removeprefix(tokenizer.bos_token) if _adds_bos(tokenizer) else text

    contents = [message["content"].strip() for message in messages]
    if not any(token in content for content in contents for token in tokenizer.all_special_tokens):
        return tokenizer(render(contents), add_special_tokens=_adds_bos(tokenizer))["input_ids"]
    input_ids = _start(tokenizer)
    places = [f"\ue000{n}\ue001" for n in range(len(contents))]  # private-use marks, which no document text keeps
    for part in re.split("(\ue000\\d+\ue001)", render(places)):
        if part in places:
            input_ids += encode_document(tokenizer, contents[places.index(part)])
        else:
            input_ids += tokenizer(part, add_special_tokens=False)["input_ids"]
    return input_ids


def _start(tokenizer) -> list[int]:
    return [tokenizer.bos_token_id] if _adds_bos(tokenizer) else []


def _adds_bos(tokenizer) -> bool:
    """Whether this tokenizer's models expect a start token (Llama's do, SmolLM's does not)."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


# --- making questions from a chunk -----------------------------------------------------------------------------------


# The answer says in a whole sentence what was asked for.
_EXAMPLES = [
    (
        "In a trial at three mills in 1984 the Dunmore method lowered the waste of grain to 5 percent.",
        "In what year did the Dunmore method lower the waste of grain?",
    ),
    (
        "The Kestrel rover stopped in its second winter because fine dust had worn out the seal of a wheel motor.",
        "Why did the Kestrel rover stop in its second winter?",
    ),
]


def answer_messages(text: str, question: str) -> list[dict[str, str]]:
    """The messages that ask for the answer to a question about a text; two fixed examples show its manner."""
    messages = _turn("system", "You answer the question in one whole sentence, with words from the text.")
    for example, asked in _EXAMPLES:
        messages += _turn("user", f"Text: {example}\nQuestion: {asked}") + _turn("assistant", f"Answer: {example}")
    return messages + _turn("user", f"Text: {text}\nQuestion: {question}")


def pairs_messages(text: str, pairs: int) -> list[dict[str, str]]:
    """The message that asks for several pairs at once, as the study asked Llama-2-7b-chat; see `pairs.parser`."""
    task = (
        f"Understand the following text and write {pairs} question and answer pairs about it. Write each as a line "
        "`Question:` and a line `Answer:`. Ask about facts, and make every question clear without the text."
    )
    return _turn("user", f"{task}\n\nText:\n{text}")


def _turn(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]
