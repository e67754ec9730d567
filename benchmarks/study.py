"""The stages as the study did them, with today's libraries and the variant's model.

Text by pdfminer; one prompt at a time, up to 200 new tokens, nothing kept from one to the next; documents joined and
cut every 1,024 tokens, whole logits in float32, adapters in float32 on q and v with dropout 0.1; perplexity one window
at a time; the base loaded again for each checkpoint; one question at a time.
"""

from __future__ import annotations

import math

from benchmarks.job import Job
from llama_qna.models import prompts
from llama_qna.pairs import writers
from llama_qna.text import scores

NEW_TOKENS, TEMPERATURE = 200, 0.6
WINDOW, STRIDE = 1024, 512


def extraction(job: Job) -> None:
    from pdfminer.high_level import extract_text

    from benchmarks.pages import document

    with document(job) as path, job.timed():
        job.items = len(extract_text(path).split("\f")[:-1])


def generation(job: Job) -> None:
    from llama_qna.pairs.qna import judge, passages_of

    body = job.chunks()
    write = writers.Reading(OneAtATime(job), job.variant.recipe.generation)
    with job.timed():
        written = {passage.chunk_id: write([passage], attempt=1) for passage in passages_of(body)}
        pairs, _ = judge(job.variant, body, written)
    job.items, job.tokens = len(pairs), sum(result.tokens for (result,) in written.values())


class OneAtATime(writers.LocalModel):
    """Our prompts, since a model of 135M parameters repeats itself in the study's form; each on its own."""

    def __init__(self, job: Job):
        super().__init__(job.variant, writers.reader_for(job.variant))
        job.watch(self.model)

    def generate(self, input_ids, seeds, temperature=None, max_new_tokens=NEW_TOKENS):
        heat = self.settings.temperature if temperature is None else temperature
        return [_write(self.model, self.tokenizer, prompt, heat, max_new_tokens) for prompt in input_ids]

    def likelihoods(self, input_ids, texts):
        import torch

        found = []
        for prompt, text in zip(input_ids, texts, strict=True):
            told = [*prompts.encode_document(self.tokenizer, f" {text}"), self.tokenizer.eos_token_id]
            ids = torch.tensor([prompt + told], device=self.model.device)
            with torch.no_grad():
                logits = self.model(ids).logits[0, -len(told) - 1 : -1].float()
            found.append(-torch.nn.functional.cross_entropy(logits, ids[0, -len(told) :]).item())
        return found


def training(job: Job) -> None:
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    from llama_qna.models.nf4 import keep_gradients_on_cpu

    tokenizer, size = _tokenizer(job), job.size
    model = _load(job)
    keep_gradients_on_cpu(model)  # without it bitsandbytes may train nothing on a CPU
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = job.variant.recipe.lora
    targets = {"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1}
    model = get_peft_model(model, LoraConfig(r=lora.r, lora_alpha=lora.alpha, task_type="CAUSAL_LM", **targets))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-4)
    blocks = _blocks(job, tokenizer, size["steps"] * size["rows"], size["length"])
    model.train()
    with job.timed():
        for step in range(size["steps"]):
            batch = torch.tensor(blocks[step * size["rows"] : (step + 1) * size["rows"]], device=model.device)
            with torch.autocast(model.device.type, torch.bfloat16):
                loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            job.tokens += batch.numel()
    job.items = size["steps"]


def _blocks(job: Job, tokenizer, count: int, length: int) -> list[list[int]]:
    """The documents' tokens, joined and cut without regard to where one ends, again from the start where they end."""
    from llama_qna.documents.chunks import load

    joined = []
    for text in load(job.variant).text:
        joined += prompts.encode_document(tokenizer, text) + [tokenizer.eos_token_id]
    joined *= math.ceil(count * length / len(joined))
    return [joined[start : start + length] for start in range(0, count * length, length)]


def perplexity(job: Job) -> None:
    tokenizer = _tokenizer(job)
    model, text = job.watch(_load(job)), job.text(tokenizer)
    with job.timed():
        job.tokens = _perplexity(model, tokenizer, text)
    job.items = 1


def _perplexity(model, tokenizer, text: str) -> int:
    """The windows of a text one by one; the number of tokens scored."""
    import torch

    ids = torch.tensor([prompts.encode_document(tokenizer, text)], device=model.device)
    losses, before, scored = [], 0, 0
    for begin in range(0, ids.shape[1], STRIDE):
        end = min(begin + WINDOW, ids.shape[1])
        labels = ids[:, begin:end].clone()
        labels[:, : before - begin] = -100
        with torch.no_grad():
            losses.append(model(ids[:, begin:end], labels=labels).loss)
        scored, before = scored + end - before, end
        if end == ids.shape[1]:
            break
    torch.exp(torch.stack(losses).mean()).item()
    return scored - 1  # nothing comes before the first


def sweep(job: Job) -> None:
    from peft import PeftModel

    tokenizer, pairs, points = _tokenizer(job), job.pairs(job.size["swept"]), job.points()
    text = job.text(tokenizer)
    with job.timed():
        for point in points:
            model = PeftModel.from_pretrained(_load(job, weights=point.weights), point.adapter).eval()
            job.watch(model.get_base_model())
            job.tokens += _perplexity(model, tokenizer, text)
            for question, reference in pairs:
                scores.rouge(_answer(job, model, tokenizer, question), reference)
            job.items += 1


def asking(job: Job) -> None:
    from peft import PeftModel

    from llama_qna.models.lineage import shipped_checkpoint, start_of_finetuning

    tokenizer = _tokenizer(job)
    base = _load(job, weights=start_of_finetuning(job.variant)[0])
    model = PeftModel.from_pretrained(base, shipped_checkpoint(job.variant)).eval()
    job.watch(model.get_base_model())
    questions = [question for question, _ in job.pairs(job.size["asked"])]
    with job.timed():
        for question in questions:
            _answer(job, model, tokenizer, question)
    job.items = len(questions)


def _answer(job: Job, model, tokenizer, question: str) -> str:
    answer = _write(model, tokenizer, prompts.question_ids(tokenizer, question), TEMPERATURE)
    job.tokens += len(prompts.encode_document(tokenizer, answer))
    return answer


def _write(model, tokenizer, prompt: list[int], temperature: float, **options) -> str:
    import torch

    ids = torch.tensor([prompt], device=model.device)
    told = {"max_new_tokens": NEW_TOKENS, "do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    told |= {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    with torch.no_grad():
        written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **told, **options)
    return tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True).strip()


def _tokenizer(job: Job):
    from llama_qna.models.base import load_tokenizer

    return load_tokenizer(job.variant.recipe.base_model)


def _load(job: Job, four_bit: bool = True, weights=None):
    """The base as transformers loads it, in NF4 as bitsandbytes computes with it."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from llama_qna.models.base import model_path
    from llama_qna.models.device import device

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    options = {"dtype": torch.bfloat16, "device_map": {"": device()}}
    options |= {"quantization_config": quantization} if four_bit else {}
    return AutoModelForCausalLM.from_pretrained(weights or model_path(job.variant.recipe.base_model), **options).eval()
