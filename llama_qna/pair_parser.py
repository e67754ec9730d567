"""What a chat model wrote becomes question-answer pairs, in whatever shape it labelled them."""

from __future__ import annotations

import re

# A label begins a line (behind list marks, a number, bold) or follows a sentence. A single letter needs a colon, a
# bracket or a number, or else initials ("A. Graves") and "vitamin A." would be labels.
_PLACE = r"(?:^[ \t]*(?:[-*•>#(]+[ \t]*)*(?:\d+[.)][ \t]*)?[*(]*|(?<=[.?!])[ \t]+[*(]*)"
_END = r"[ \t]*\**\)?[ \t]*(?:[:.)]|(?=\n))\**[ \t]*"
_LETTER_END = r"(?:[ \t]*\d+[ \t]*[:.)]|[ \t]*[:)])[ \t]*"
QUESTION_LABEL = rf"{_PLACE}(?:(?i:question)[ \t]*#?\d*{_END}|Q{_LETTER_END})"
ANSWER_LABEL = rf"{_PLACE}(?:(?i:answer)[ \t]*#?\d*{_END}|A{_LETTER_END})"
LISTED_QUESTION = r"^[ \t]*\d+[.)][ \t]+(?=[^\n]*\?\**[ \t]*$)"


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """The pairs in a chat model's free text; a pair without its second half is left out."""
    text = text.replace("\r\n", "\n")
    label = re.compile(rf"(?P<question>{QUESTION_LABEL}|{LISTED_QUESTION})|(?P<answer>{ANSWER_LABEL})", re.M)
    found = list(label.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    pairs, question = [], None
    for match, end in zip(found, ends, strict=False):  # without labels there is no pair, but one end
        body = text[match.end() : end].strip().split("\n\n")[0]  # what follows a blank line is chatter
        body = " ".join(body.replace("**", " ").split())
        if match["question"] is not None:
            question = body
        elif question and body:
            pairs.append((question, body))
            question = None
    return pairs
