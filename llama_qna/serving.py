"""Questions answered by the fine-tuned model of a variant."""

from __future__ import annotations

from pathlib import Path

from llama_qna import UserError, records
from llama_qna.checkpoints import checkpoints
from llama_qna.training import start_of_finetuning
from llama_qna.variants import Variant


def ask(variant: Variant, questions: list[str]) -> list[str]:
    """Answer questions, all in one batch, with the shipped checkpoint of this machine's run; greedy.

    Raises:
        UserError: the variant has not been fine-tuned on this machine.
    """
    adapter = shipped_checkpoint(variant)
    records.check_output(adapter.parent, "finetune", f"{adapter.name}/adapter_model.safetensors")
    from llama_qna import models
    from llama_qna.evaluation import answer

    recipe = variant.recipe
    tokenizer = models.load_tokenizer(recipe.base_model)
    model = models.load_base(recipe.base_model, recipe.quantization, weights=start_of_finetuning(variant)[0])
    return answer(models.attach_adapter(model, adapter), tokenizer, questions, recipe.evaluation)


def shipped_checkpoint(variant: Variant) -> Path:
    """The fine-tuning checkpoint that evaluation chose on its dev questions; the last one where it has not seen them.

    Raises:
        UserError: the variant has not been fine-tuned on this machine.
    """
    trained = checkpoints(variant.finetuning)
    if not trained:
        raise UserError(
            f"{variant.name} has no trained model on this machine: run `llama-qna run {variant.name}` first"
        )
    record = records.valid_record(variant.evaluation, "evaluate") or {"results": {}, "inputs": {}}
    for adapter in trained:
        name = f"finetuning {adapter.name}"
        seen = record["inputs"].get(name) == records.sha256(adapter / "adapter_model.safetensors")
        if seen and record["results"].get("chosen") == name:
            return adapter
    return trained[-1]
