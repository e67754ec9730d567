"""Answers for people: the terminal, the page, the engine, and models to take away.

Begin at `library.open`, `terminal.ask`, `page.serve_page`, `engine.serve` and `exports.export`.
"""

from llama_qna import hand_out

__all__ = ["export", "open", "serve", "serve_page"]
__getattr__ = hand_out(__name__, open="library", serve="engine", serve_page="page", export="exports")
