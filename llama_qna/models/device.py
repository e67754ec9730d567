"""What computes here: the device and its 16-bit type, the memory that there is, and its measured limits."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import shutil
import sys
import sysconfig
import time
from functools import cache
from pathlib import Path

import psutil

from llama_qna import UserError
from llama_qna.project import processes
from llama_qna.project.recipe import Quantization

GIB = 2**30


def parse_memory(text: str) -> int:
    """Bytes of `24GiB`, `22.5 GB` (also G, MiB, MB, M); GB is 10^9 bytes, GiB and G are 2^30.

    Raises:
        UserError: no such size.
    """
    found = re.fullmatch(r"(\d*\.?\d+)\s*([GM])(I?B)?", text.strip().upper())
    number, prefix, unit = found.groups() if found else (0, "G", "")
    size = int(float(number) * (1000 if unit == "B" else 1024) ** {"G": 3, "M": 2}[prefix])
    if size <= 0:
        raise UserError(f"--memory {text}: give a size such as 24GiB or 22GB")
    return size


def held_memory() -> int:
    """Bytes of main memory that this process holds."""
    return psutil.Process().memory_info().rss


def main_memory() -> int:
    """Bytes of main memory that this process may hold: what is free and what it has, within the limit of its cgroup."""
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    capped = [int(path.read_text()) for path in limits if path.exists() and path.read_text().strip().isdigit()]
    return min([psutil.virtual_memory().available + held_memory(), *capped])


M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of glibc's mallopt


def _glibc(function: str, *numbers: int) -> None:
    """Call a function of glibc's heap; another C library has none of them, and only memory or time is lost."""
    try:
        getattr(ctypes.CDLL("libc.so.6"), function)(*numbers)
    except (OSError, AttributeError):
        pass


def map_blocks_from(size: int) -> None:
    """Take blocks of so many bytes and more from the system one by one, and give them back whole when they are freed.

    For weights that are dequantized at each use: one large block after the other that the heap would not use again,
    which for the matrices of 7B added up to the whole 16-bit model.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, size)


def keep_heap() -> None:
    """Let glibc keep freed blocks: returning them to the system after every step costs a tenth of the time.

    Large pages for them were tried and saved less than their first use costs (2 s; steps of paper_135m, two cores).
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, 1 << 30)
    _glibc("mallopt", M_TRIM_THRESHOLD, -1)  # never


def give_back_freed(above: int) -> None:
    """Return freed heap to the system when this process holds more than so many bytes.

    Training keeps freed blocks, since taking them anew at every step costs time; but steps of many lengths leave holes
    that no later tensor fits, and the heap grows from step to step.
    """
    if held_memory() > above:
        _glibc("malloc_trim", 0)


def available_memory(device: str) -> int:
    """Bytes this process may train in: of its GPU what no tensor is in, else its share of main memory."""
    if device == "cpu":
        return main_memory() // processes.here()
    import torch

    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # what PyTorch keeps for its next tensor
    return torch.cuda.mem_get_info()[0] + unused


def release() -> None:
    """Let go of models that nobody holds any more, before memory is counted or another one is loaded.

    A trainer and its model refer to each other, so that only the garbage collector ends them.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@cache
def bfloat16_is_fast() -> bool:
    """Whether the CPU multiplies in bfloat16 itself; where it only emulates it, float32 is several times faster.

    Measured on one core, (512, 576) times (576, 1536): with AVX512-BF16 630 GFLOP/s in bfloat16 and 93 in float32; held
    to AVX512 without it 18 and 88, held to AVX2 9 and 80.
    """
    import torch

    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # on Arm oneDNN says so only where the instructions exist
    if platform.machine().lower() in ("x86_64", "amd64"):
        fast = fast and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if not fast:
        missing = "AVX512" if torch.backends.cpu.get_cpu_capability() != "AVX512" else "bfloat16 instructions"
        said = f"this CPU has no {missing}: computing in float32, slower and with twice the memory for 16-bit values"
        print(f"llama-qna: {said}", file=sys.stderr)
    return fast


@cache
def check_gpu() -> None:
    """Refuse a GPU that this PyTorch has no kernels for, before anything is loaded.

    Raises:
        UserError: the GPU is too old.
    """
    import torch

    built = [int(arch[3:].rstrip("af")) for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    major, minor = torch.cuda.get_device_capability()
    if built and major * 10 + minor < min(built):  # AMD's builds name their GPUs otherwise
        raise UserError(
            f"{torch.cuda.get_device_name()} (compute capability {major}.{minor}) is too old for this PyTorch, which "
            f"begins at {min(built) // 10}.{min(built) % 10}: hide it with CUDA_VISIBLE_DEVICES= to use the CPU"
        )


@cache
def gpu_has_bfloat16() -> bool:
    """Whether the GPU multiplies in bfloat16 itself; where it does not, float16 takes its place."""
    import torch

    has = torch.cuda.is_bf16_supported(including_emulation=False)
    if not has:
        said = f"{torch.cuda.get_device_name()} has no bfloat16: computing in float16, its losses scaled"
        print(f"llama-qna: {said}", file=sys.stderr)
    return has


@cache
def measure(matrices: tuple[tuple[int, int], ...], rows: int, seconds: float = 1.5) -> dict[str, float]:
    """The limits of this machine at a model's shapes: what no training can exceed.

    Args:
        matrices: (out, in) of each matrix of a layer.
        rows: tokens that pass at once.
        seconds: about how long to measure.

    Returns:
        `matmul`, FLOP/s of products in the compute type, the layer's matrices one after the other; `copy`, bytes/s read
        and written by a copy of memory.
    """
    import torch
    import torch.nn.functional as F

    on, dtype = device(), compute_dtype(None)
    inputs = {width: torch.randn(rows, width, device=on).to(dtype) for width in {inner for _, inner in matrices}}
    weights = [torch.randn(shape, device=on).to(dtype) for shape in matrices]
    block = torch.zeros(2**28 if on != "cpu" else 2**26, dtype=torch.uint8, device=on)

    def layer():
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)

    flops = 2 * rows * sum(weight.numel() for weight in weights)
    return {
        "matmul": flops * _per_second(layer, seconds * 2 / 3),
        "copy": 2 * block.numel() * _per_second(block.clone, seconds / 3),
    }


def _per_second(work, seconds: float) -> float:
    """Calls a second, by the fastest call: what disturbs a call is not the machine's limit."""
    import torch

    def timed() -> float:
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    timed()
    end, fastest = time.perf_counter() + seconds, timed()
    while time.perf_counter() < end:
        fastest = min(fastest, timed())
    return 1 / fastest


def device() -> str:
    """The GPU of this process, or `cpu`.

    Raises:
        UserError: there is a GPU that PyTorch cannot use.
    """
    import torch

    if torch.cuda.is_available():
        return f"cuda:{processes.local_rank()}"
    check_no_gpu_is_lost()
    return "cpu"


def kind_of_device() -> str:
    """`cpu` or `cuda`."""
    return device().split(":")[0]


DEVICES, DRIVER_SAYS = Path("/dev"), Path("/proc/driver/nvidia/version")
OLDEST_DRIVER = {13: 580, 12: 525}  # by CUDA's major version; docs.nvidia.com/cuda/cuda-toolkit-release-notes, table 2


@cache
def check_no_gpu_is_lost() -> None:
    """Refuse to compute on the CPU in place of an NVIDIA GPU whose driver is loaded, which PyTorch does in silence.

    Raises:
        UserError: the driver is older than this PyTorch needs, or PyTorch cannot use the GPU for another reason.
    """
    import torch

    there = DRIVER_SAYS.is_file() and any(re.fullmatch(r"nvidia\d+", path.name) for path in DEVICES.glob("nvidia*"))
    if not there or os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return
    found = re.search(r"\b(\d{3,})\.\d+(\.\d+)?\b", DRIVER_SAYS.read_text())
    driver, built = found[0] if found else "of an unknown version", torch.version.cuda
    hide = "or hide the GPU with CUDA_VISIBLE_DEVICES= to compute on the CPU"
    if not built:
        what = f"there is an NVIDIA GPU, and this PyTorch ({torch.__version__}) cannot use any"
        raise UserError(f"{what}: install one built for CUDA, {hide}")
    oldest = OLDEST_DRIVER.get(int(built.split(".")[0]), 0)
    if found and int(found[1]) < oldest:
        what = f"the NVIDIA driver {driver} is too old: this PyTorch (CUDA {built}) needs {oldest} or newer"
        raise UserError(f"{what}: update it with `sudo python3 install_gpu_driver.py`, {hide}")
    raise UserError(f"PyTorch (CUDA {built}) cannot use the NVIDIA GPU (driver {driver}): look at nvidia-smi, {hide}")


def lacks_for_compiling() -> list[str]:
    """What Triton compiles its kernels with and this machine has not: a C compiler, Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return [name for name, there in (("C compiler", compiler), ("Python.h", headers.is_file())) if not there]


def compute_dtype(quantization: Quantization | None):
    """The type to compute in: the recipe's on a GPU that has it; bfloat16 on a CPU, or float32 where that is faster.

    Raises:
        UserError: the GPU is too old for this PyTorch.
    """
    import torch

    if device() == "cpu":
        return torch.bfloat16 if bfloat16_is_fast() else torch.float32
    check_gpu()
    name = quantization.compute_dtype if quantization else "bfloat16"
    return torch.bfloat16 if name == "bfloat16" and gpu_has_bfloat16() else torch.float16


SAID_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc", "_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(said in str(error) for said in SAID_OUT_OF_MEMORY)
