"""Scores over strings, search over passages, and what a word, a sentence and a title is.

Knows nothing of models, files or variants. Begin at `scores.score` and `search.Search`.
"""

from llama_qna import hand_out

__all__ = ["Search", "content_words", "score"]
__getattr__ = hand_out(__name__, content_words="words", score="scores", Search="search")
