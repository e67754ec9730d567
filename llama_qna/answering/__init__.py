"""How a question gets its passages and its answer.

Begin at `answerer.Answerer`: evaluation scores what it returns, and every way to ask goes through it.
"""

from llama_qna import hand_out

__all__ = ["Answerer"]
__getattr__ = hand_out(__name__, Answerer="answerer")
