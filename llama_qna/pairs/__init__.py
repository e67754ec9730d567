"""How chunks become questions and answers, and which of them are kept (stage 2).

Begin at `qna.generate`; `writers` asks a model or a server, `parser` reads what it says, `filters` decides.
"""

from llama_qna import hand_out

__all__ = ["funnel", "generate", "judge", "passages_of", "read_qna_file", "write_pairs"]
__getattr__ = hand_out(
    __name__,
    funnel="qna",
    generate="qna",
    judge="qna",
    passages_of="qna",
    read_qna_file="own",
    write_pairs="writers",
)
