"""Questions that a text asks about itself: a few words of a sentence, answered by the whole sentence.

Read as plain text alone, a document is learnt forwards only: a model that knows it by heart still cannot say the
sentence that a question is about (Allen-Zhu and Li 2023, arXiv:2309.14316; Berglund et al. 2023, arXiv:2309.12288). A
row of this module starts from words anywhere in a sentence, in the template of questions, as a question does. Nothing
of the generated pairs is used: the rows are made of the text of the chunks alone.
"""

from __future__ import annotations

import random
import re

from llama_qna import prompts
from llama_qna.pair_filters import STOPWORDS
from llama_qna.pair_writers import sentences_of

QUESTIONS = (
    "What does the text say about {}?",
    "What is known about {}?",
    "How is it with {}?",
    "What holds for {}?",
    "Which fact is about {}?",
)
WORDS = (6, 70)  # of a sentence that is asked about: shorter ones say little, longer ones are tables and lists


def recall_rows(tokenizer, chunks: list[str], draws: int, seed: int, max_length: int) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of every sentence of some chunks with `draws` questions each; labels on the sentence.

    A sentence that stands in two chunks, where they overlap, is asked about once a draw. Only whole sentences are
    taken, not the parts at the ends of a chunk.
    """
    chance = random.Random(seed)
    sentences = dict.fromkeys(sentence for chunk in chunks for sentence in sentences_of(chunk) if _whole(sentence))
    return [
        prompts.training_row(tokenizer, recall_question(sentence, chance), sentence, max_length)
        for _ in range(draws)
        for sentence in sentences
    ]


def recall_question(sentence: str, chance: random.Random) -> str:
    """A question from a sentence's own words: two to five of them, or a few that stand together.

    Most numbers are left out, since they are what is asked for.
    """
    words = [word for word in re.findall(r"\w[\w-]*", sentence) if word.lower() not in STOPWORDS]
    words = [word for word in words if not word[0].isdigit() or chance.random() < 0.15]
    if len(words) < 2 or chance.random() < 0.4:
        all_words = sentence.rstrip(".!?").split()
        count = min(chance.randint(3, 8), len(all_words))
        start = chance.randint(0, len(all_words) - count)
        said = " ".join(all_words[start : start + count])
    else:
        *first, last = chance.sample(words, min(chance.randint(2, 5), len(words)))
        said = f"{', '.join(first)} and {last}"
    return chance.choice(QUESTIONS).format(said.strip(",;: "))


def _whole(sentence: str) -> bool:
    return sentence[:1].isupper() and sentence[-1:] in ".!?" and WORDS[0] <= len(sentence.split()) <= WORDS[1]
