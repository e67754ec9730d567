"""How an adapter is trained, stopped and resumed (stages 3 and 4).

Begin at `stages.pretrain` and `stages.finetune`. `cpu` makes steps quick on a CPU; everything runs without it, slower.
"""

from llama_qna import hand_out

__all__ = ["finetune", "pretrain"]
__getattr__ = hand_out(__name__, pretrain="stages", finetune="stages")
