"""What a recipe says, where files lie, when a stage is done, and how files and tables are kept whole.

Begin at `variant.Variant`, the folder of a recipe, and at `stage.once`, by which every stage is done once.
"""

from llama_qna import hand_out

__all__ = ["Variant", "once", "read_chunks", "read_gold", "read_qna"]
__getattr__ = hand_out(__name__, Variant="variant", once="stage", read_chunks="data", read_qna="data", read_gold="gold")
