"""Questions answered by the fine-tuned model of a variant."""

from __future__ import annotations

from llama_qna import UserError
from llama_qna.training import checkpoints, start_of_finetuning
from llama_qna.variants import Variant


def ask(variant: Variant, questions: list[str]) -> list[str]:
    """Answer questions, all in one batch, with the last fine-tuning checkpoint of this machine's run; greedy.

    Raises:
        UserError: the variant has not been fine-tuned on this machine.
    """
    trained = checkpoints(variant.finetuning)
    if not trained:
        raise UserError(
            f"{variant.name} has no trained model on this machine: run `llama-qna run {variant.name}` first"
        )
    from llama_qna import models
    from llama_qna.evaluation import answer

    recipe = variant.recipe
    tokenizer = models.load_tokenizer(recipe.base_model)
    model = models.load_base(recipe.base_model, recipe.quantization, weights=start_of_finetuning(variant)[0])
    return answer(models.attach_adapter(model, trained[-1]), tokenizer, questions, recipe.evaluation)
