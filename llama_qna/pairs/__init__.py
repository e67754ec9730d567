"""How chunks become questions and answers, and which of them are kept (stage 2).

Begin at `qna.generate`; `writers` asks a model or a server, `parser` reads what it says, `filters` decides.
"""

from llama_qna import hand_out

__all__ = ["generate", "parse_pairs", "read_qna_file"]
__getattr__ = hand_out(__name__, generate="qna", read_qna_file="own", parse_pairs="parser")
