"""Where weights come from, NF4, adapters, prompts, text from a model, and what it will take in memory and time.

Begin at `base.load_base`; `lineage` says which adapter was trained on what.
"""

import logging
import warnings

from llama_qna import hand_out

# Libraries warn, in a terminal, of what nobody there can mend: bitsandbytes when it is imported that the hub did not
# give it a CPU kernel, which ours never asks for; peft that it uses a name that transformers will drop.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

__all__ = ["load_base", "load_tokenizer", "plan_stage", "trained"]
__getattr__ = hand_out(__name__, load_base="base", load_tokenizer="base", trained="lineage", plan_stage="plan")
