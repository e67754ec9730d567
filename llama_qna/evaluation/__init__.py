"""Who is asked what, and how it is compared (stage 5).

Begin at `protocols.evaluate`; `bench` asks, `compare` makes the numbers.
"""

from llama_qna import hand_out

__all__ = ["evaluate"]
__getattr__ = hand_out(__name__, evaluate="protocols")
