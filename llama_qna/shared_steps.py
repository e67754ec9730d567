"""Optimizer steps over several processes: the rows of each step are those that one process would take.

Left to themselves, accelerate repeats rows to fill the last step of an epoch, and transformers groups rows of like
length by the batch of one process, so the rows of a step would depend on the number of processes.
"""

from __future__ import annotations

from llama_qna import distributed


def shared_trainer(trainer_class: type, batch_size: int) -> type:
    """A trainer whose every step takes `batch_size` rows over all processes and accumulations; in one process itself.

    Args:
        trainer_class: a transformers `Trainer` whose `train_dataset` has `labels`.
        batch_size: rows of an optimizer step.
    """
    if distributed.processes() == 1:
        return trainer_class
    from accelerate.data_loader import SeedableRandomSampler
    from datasets import concatenate_datasets
    from torch.utils.data import RandomSampler
    from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

    class Shares(BatchRebalanceSampler):  # the one class of sampler that transformers leaves as it is in each process
        def __init__(self, sampler, accumulation: int, blank: int):
            self.sampler, self.accumulation, self.blank = sampler, accumulation, blank

        def set_epoch(self, epoch: int) -> None:
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)

        def __len__(self) -> int:
            full, left = divmod(len(self.sampler), batch_size)
            return full * self.accumulation + self._parts(left)

        def _parts(self, rows: int) -> int:
            """In how many batches each process takes its share of a step; fewer for a short step."""
            at_once = distributed.processes() * -(-distributed.rows_each(batch_size) // self.accumulation)
            return min(self.accumulation, -(-rows // at_once))

        def __iter__(self):
            order = distributed.from_main(list(self.sampler))  # drawn once: dropout moves the generators apart
            for start in range(0, len(order), batch_size):
                step = order[start : start + batch_size]
                parts = self.accumulation if len(step) == batch_size else self._parts(len(step))
                slots = distributed.shares(step, parts * distributed.processes())
                for rows in slots[distributed.rank() :: distributed.processes()]:
                    yield rows or [self.blank]

    class SharedTrainer(trainer_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            rows = self.train_dataset
            self.blank = len(rows)  # a row without labels, for a process that has none in a short step
            shortest = min(range(len(rows)), key=lambda n: len(rows[n]["input_ids"]))
            blank = rows.select([shortest]).map(
                lambda row: row | {"labels": [-100] * len(row["labels"])}, features=rows.features
            )
            self.train_dataset = concatenate_datasets([rows, blank])

        def _get_train_sampler(self, train_dataset=None):
            rows = (self.train_dataset if train_dataset is None else train_dataset).select(range(self.blank))
            sampler = super()._get_train_sampler(rows)
            if isinstance(sampler, LengthGroupedSampler):
                sampler.batch_size = batch_size
            if isinstance(sampler, RandomSampler):  # as accelerate makes it in one process
                sampler = SeedableRandomSampler(rows)
            return Shares(sampler, self.args.gradient_accumulation_steps, self.blank)

    return SharedTrainer
