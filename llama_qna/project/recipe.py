"""What a recipe may say, and how a `variant.yaml` is read, which may be a stranger's.

Every section has its keys, their defaults and limits; a file that is no recipe is told in one line where it is wrong.
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from llama_qna import UserError, one_line

LARGEST = 2**31 - 1  # number in a recipe: seeds of torch and of servers end there
FOLDER_NAME = r"^\w[\w. -]*$"


class _Strict(BaseModel):
    """A section of a recipe: a key that nothing reads is a mistake, so unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _numbers_are_no_mistakes(self):
        for key, value in self:
            if isinstance(value, int | float) and abs(value) > LARGEST:
                raise ValueError(f"{key} must not be larger than {LARGEST}")
        return self


class Chunking(_Strict):
    chunk_size: int = Field(1024, gt=0)  # characters
    chunk_overlap: int = Field(100, ge=0)  # characters

    @model_validator(mode="after")
    def _overlap_is_smaller(self):
        if self.chunk_overlap >= self.chunk_size:
            raise ValueError("chunk_overlap must be smaller than chunk_size")
        return self


class Heldout(_Strict):
    """Sections that no stage trains on, chosen whole and before any chunking."""

    fraction: float = Field(0.0, ge=0, lt=1)  # of the characters of each document
    seed: int = Field(0, ge=0)


class ReadLimits(_Strict):
    """What reading one document may cost; a file that needs more is reported and left out."""

    seconds: float = Field(120, gt=0, le=86_400)
    memory_gb: float = Field(2.0, gt=0, le=1024)


class Endpoint(_Strict):
    """An OpenAI-compatible server: it writes the pairs in place of a model in this process, or judges answers."""

    url: str  # such as http://localhost:8000/v1
    model: str  # the name that the server knows
    # The environment variable that holds the key; the recipe never does. The name must say that it is for this: what it
    # holds is sent to the url.
    api_key_variable: str = Field("OPENAI_API_KEY", pattern=r"^\w*API_KEY$")
    concurrency: int = Field(8, gt=0)  # requests at a time
    timeout_seconds: float = Field(120, gt=0)
    max_retries: int = Field(5, ge=0)


class Generation(_Strict):
    """How chunks become question-answer pairs."""

    # the embedded model with its reader's adapter, or several pairs in one text, as the study asked Llama-2-7b-chat
    method: Literal["reader", "multi_pair"]
    pairs_per_chunk: int = Field(gt=0)
    attempts: int = Field(1, gt=0)  # a chunk without a single pair is asked about again, with other seeds
    # reader: the least mean log-probability per token of a question that is kept
    min_score: float = Field(-1.0, lt=0)
    temperature: float = Field(0.6, ge=0)
    max_new_tokens: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    load_in_4bit: bool = False
    endpoint: Endpoint | None = None  # None: the base model in this process
    reference_questions: bool = False  # ask for every entry of the reference list
    # pairs of your own in place of generated ones, a CSV with Question,Answer or JSON Lines; its path from the root of
    # the repository
    qna_file: str | None = None

    @field_validator("qna_file")
    @classmethod
    def _qna_file_is_inside(cls, value: str | None):
        if value is not None and (not value.isprintable() or Path(value).is_absolute() or ".." in Path(value).parts):
            raise ValueError("a path inside the repository, from its root, without ..")
        return value


class Quantization(_Strict):
    """bitsandbytes NF4 as in QLoRA (arXiv:2305.14314, section 3), or the base's own 16 bits."""

    # 16: no quantization. 4 bits cost a 135M model a good part of its reading, and save nothing that matters there.
    bits: Literal[4, 16] = 4
    double_quantization: bool = False
    compute_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    # Keep a 16-bit copy of the dequantized NF4 weights, bit-equal to dequantizing them at every step: faster, and
    # affordable for small models only.
    dequantize_once: bool = False

    @property
    def in_words(self) -> str:
        """What the base is in, as in "the base in NF4"."""
        return "NF4" if self.bits == 4 else "16 bits"

    @property
    def unquantized(self) -> Quantization:
        """The base's own 16 bits, in the same compute type."""
        return self.model_copy(update={"bits": 16, "dequantize_once": False})


class Lora(_Strict):
    r: int = Field(64, gt=0)
    alpha: float = Field(gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | list[str]

    @field_validator("target_modules")
    @classmethod
    def _something_is_adapted(cls, value: str | list[str]):
        if not value:
            raise ValueError("all-linear, or the names of some modules")
        return value


class TrainingStage(_Strict):
    folder: str = Field(pattern=r"^(pretraining|finetuning)\w*$")
    epochs: float = Field(gt=0)
    max_steps: int = -1  # as many as the epochs make
    batch_size: int = Field(gt=0)  # rows per optimizer step
    learning_rate: float = Field(gt=0)
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_length: int = Field(1024, gt=1)  # tokens
    packing: bool = False  # join rows to blocks of max_length tokens, as the study did
    group_by_length: bool = True  # rows of like length share a step, or else padding is computed too
    replay_tokens: int = Field(0, ge=0)  # of general text a step, on which the model is held to its base
    # taken as it stands under FSDP, which is not planned; else the plan uses it where memory asks for it
    gradient_checkpointing: bool = False
    logging_steps: int = Field(gt=0)
    save_steps: int = Field(gt=0)

    @field_validator("max_steps")
    @classmethod
    def _some_steps_are_made(cls, value: int):
        if value < 1 and value != -1:  # of 0 the trainer makes one step, with a learning rate of 0
            raise ValueError("must be greater than 0, or -1 for as many as the epochs make")
        return value

    @property
    def rounds(self) -> int:
        """Of how many epochs the rows are that training is given: of one, unless epochs differ."""
        return math.ceil(self.epochs) if self.rows_differ() else 1

    def rows_differ(self) -> bool:
        """Whether rows are drawn anew for each epoch."""
        return False

    @property
    def passes(self) -> float:
        """How often training goes over the rows that it is given."""
        return self.epochs / self.rounds


class Pretraining(TrainingStage):
    # rows of the reading set (data/reading) for each row of the stage's own: they hold a reader to its skill
    reading_rows: float = Field(0.0, ge=0)

    def rows_differ(self) -> bool:
        return self.reading_rows > 0


class Passages(_Strict):
    """Shares of the rows of pairs, which add up to 1 (RAFT, arXiv:2403.10131)."""

    closed_book: float = Field(ge=0)  # the question alone, the study's way
    with_passage: float = Field(ge=0)  # with the text around its evidence: quote and answer
    others_only: float = Field(ge=0)  # with passages that do not tell: the documents do not say
    question: float = Field(ge=0)  # the question to write about the evidence

    @model_validator(mode="after")
    def _shares_are_of_a_whole(self):
        total = sum(share for _, share in self)
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"the shares must add up to 1, and they are {total:g}")
        return self


class Finetuning(Pretraining):
    passages: Passages | None = None  # None: every row closed book

    def rows_differ(self) -> bool:
        return super().rows_differ() or self.passages is not None


class Evaluation(_Strict):
    window: int = Field(1024, gt=1)  # tokens
    stride: int = Field(512, gt=0)  # tokens
    max_new_tokens: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    max_questions: int | None = Field(None, gt=0)  # the first n training questions; None: all
    # what every checkpoint is measured by: so many training questions, and so many windows of each text; the base, the
    # last checkpoint of a stage and the one that ships are measured by all of them
    sample: int = Field(32, gt=0)
    sample_windows: int = Field(4, gt=0)
    protocol: Literal["published", "heldout", "both"] = "both"
    retrieved_chunks: int = Field(2, gt=0)  # that a question is given with retrieval
    # measure WikiText-2 too, from the Hugging Face hub: 300,000 tokens for every checkpoint, minutes each without a GPU
    wikitext2: bool = False
    judge: Endpoint | None = None  # a model that judges the test answers besides; no score depends on it

    @model_validator(mode="after")
    def _windows_leave_no_gap(self):
        if self.stride > self.window:
            raise ValueError("stride must not be larger than window")
        return self


class Serving(_Strict):
    """What the engine of `llama-qna serve` may use."""

    max_model_len: int = Field(2048, gt=0)  # tokens of a prompt and its answer; a longer prompt is refused
    concurrency: int = Field(64, gt=0)  # requests that are computed at once; others wait
    cache_gb: int = Field(1, gt=0)  # for keys and values, on a CPU


class Recipe(_Strict):
    """Everything that decides what a variant becomes."""

    description: str
    corpus: str = Field(pattern=FOLDER_NAME)  # reads data/pdfs/<corpus>/: *.pdf, *.txt, *.md
    # embedded/smollm2-135m-instruct, a name on the Hugging Face hub, or a local folder, its path from the root of the
    # repository
    base_model: str
    # a folder with a reader's adapter, such as reader_135m, which training goes on from; None: a fresh adapter
    start: str | None = Field(None, pattern=FOLDER_NAME)
    seed: int = Field(42, ge=0)
    notebooks: list[Annotated[str, Field(pattern=FOLDER_NAME)]]
    extractor: Literal["pypdfium2", "pdfminer"] = "pypdfium2"
    read_limits: ReadLimits = ReadLimits()
    chunking: Chunking = Chunking()
    heldout: Heldout = Heldout()
    generation: Generation
    quantization: Quantization = Quantization()
    lora: Lora
    pretraining: Pretraining
    finetuning: Finetuning
    # how fine-tuning starts from pretraining: with a new adapter on the merged and again quantized model, as the study
    # did, or with the same adapter, on the base as it is
    stacking: Literal["merge", "continue"] = "merge"
    evaluation: Evaluation
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _stages_have_their_own_folders(self):
        if self.pretraining.folder == self.finetuning.folder:
            raise ValueError("pretraining and finetuning must not share a folder")
        return self


class ReaderRecipe(_Strict):
    """How a small base learns to read, from the examples of `data/reading/`; no documents of a user's are needed."""

    description: str
    base_model: str
    seed: int = Field(42, ge=0)
    quantization: Quantization = Quantization()
    lora: Lora
    rounds: int = Field(gt=0)  # how often each example comes, each time among other passages
    finetuning: TrainingStage


EMBEDDED = "embedded/smollm2-135m-instruct"
# what the hub calls a base model that our recipes name otherwise
HUB_NAMES = {EMBEDDED: "HuggingFaceTB/SmolLM2-135M-Instruct"}
MOST_BYTES = 100_000  # of a recipe; those that are shipped have about 3,000


def read_recipe(path: Path, kind: type[BaseModel] = Recipe):
    """Read and check one `variant.yaml`, or a recipe of another kind.

    Raises:
        UserError: with the file, the key and, for a misspelt key, the nearest key that exists.
    """
    shown = f"{path.parent.name}/{path.name}"
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{shown}: {size} bytes are too many for a recipe; it may have {MOST_BYTES}")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except RecursionError:
        raise UserError(f"{shown}: not readable as YAML: brackets within brackets, too deep") from None
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML leaves dates and numbers that are none to Python
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        problem = one_line(str(getattr(error, "problem", None) or error))
        raise UserError(f"{shown}{line}: not readable as YAML: {problem}") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown}: a recipe is a list of `key: value` lines; this file holds {type(content).__name__}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{shown}: {one_line(_explain(error, kind))}") from None


class _Plain(yaml.SafeLoader):
    """Text, numbers, lists and mappings, each written out.

    Refuses a key that stands twice, of which YAML would take the last one in silence, and references to anchors, by
    which a few lines can stand for more than any memory holds.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            problem = f"references such as *{event.anchor} are not read; write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key `{key.value}` stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line for the first complaint (unknown keys first: a misspelt key also looks like a missing one)."""
    complaints = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = complaints[0]
    key = ".".join(str(part) for part in first["loc"] if "[" not in str(part))  # without the branch of a union
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), _keys_beside(first["loc"], kind), n=1)
        return f"unknown key `{key}`" + (f"; did you mean `{close[0]}`?" if close else "")
    if first["type"] == "missing":
        return f"the key `{key}` is missing"
    return f"`{key}`: {first['msg'].removeprefix('Value error, ')}" if key else first["msg"]


def _keys_beside(location: tuple, model: type[BaseModel]) -> list[str]:
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation
        model = next((branch for branch in get_args(annotation) if branch is not type(None)), annotation)
    return list(model.model_fields)
