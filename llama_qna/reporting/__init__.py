"""How numbers look: figures, tables, the generated parts of the pages, model cards (stage 6).

Begin at `reporting.figures.draw`.
"""

from llama_qna import hand_out

__all__ = ["draw", "draw_published"]
__getattr__ = hand_out(__name__, draw="figures", draw_published="figures")
