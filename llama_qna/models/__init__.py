"""Where weights come from, NF4, adapters, prompts, text from a model, and what it will take in memory and time.

Begin at `base.load_base`; `lineage` says which adapter was trained on what.
"""

from llama_qna import hand_out

__all__ = ["load_base", "load_tokenizer", "plan_stage", "trained"]
__getattr__ = hand_out(__name__, load_base="base", load_tokenizer="base", trained="lineage", plan_stage="plan")
