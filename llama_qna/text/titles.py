"""The title in an entry of a reference list."""

from __future__ import annotations

import re

SURNAME = r"(?:(?:van|von|de|der|den|di|da|la|le|du|el|al)\s+)*[^\W\d_a-z][\w'’-]+(?:\s[^\W\d_a-z][\w'’-]+)?"
INITIALS = r"[^\W\d_a-z]\.(?:[\s-]*[^\W\d_a-z]\.)*"


def title_of(entry: str) -> str:
    """The title of a reference entry, the sentence after its authors; empty where the entry has another form.

    The entry must begin with a list of authors with initials that a full stop ends, after which a year may stand.
    """
    author = rf"(?:{INITIALS}\s{SURNAME}|{SURNAME},\s{INITIALS})"
    authors = rf"{author}(?:(?:,|,? (?:and|&|und|et|y|e|en|och|og|и)) {author})*\.?(?<=\.)(?: \(?\d{{4}}\)?\.)?"
    match = re.match(rf"{authors} (?P<title>.{{8,}}?)(?:\.|(?<=[?!]))(?: |$)", " ".join(entry.split()))
    return match["title"] if match else ""
