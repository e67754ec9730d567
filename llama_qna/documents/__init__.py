"""How a file becomes clean chunks (stage 1).

Begin at `documents.chunks.load`; below it a file is read in a child process (`read`), cleaned (`clean`) and split. For
a LangChain program of your own take `SectionLoader`; `find` and `picture` show where a sentence stands on its page.
"""

from llama_qna import hand_out

__all__ = ["SectionLoader", "fetch", "find", "first_document", "load", "picture", "read_document", "read_folder"]
__getattr__ = hand_out(
    __name__,
    load="chunks",
    read_document="read",
    read_folder="read",
    first_document="read",
    fetch="arxiv",
    SectionLoader="loader",
    find="pages",
    picture="pages",
)
