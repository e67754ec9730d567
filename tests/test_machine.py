"""`models.device`: machines that lack something: memory, AVX512, bfloat16, a GPU that is new enough."""

import os
import re
import subprocess
import sys

import pytest
import torch

from llama_qna import UserError
from llama_qna.models import device, plan
from llama_qna.models.base import load_base
from llama_qna.models.device import (
    GIB,
    check_gpu,
    compute_dtype,
    give_back_freed,
    gpu_has_bfloat16,
    held_memory,
    parse_memory,
)
from llama_qna.project.recipe import Quantization
from llama_qna.project.variant import REPOSITORY
from llama_qna.training.stages import pretrain
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture  # noqa: F401
from tests.test_planning import losses


@pytest.fixture(autouse=True)
def repository_root(monkeypatch):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(REPOSITORY))


@pytest.mark.parametrize(
    ("size", "expected"), [("24GiB", 24 * GIB), ("22.5 GB", 22_500_000_000), ("8g", 8 * GIB), ("512MiB", GIB // 2)]
)
def test_sizes(size, expected):
    assert parse_memory(size) == expected


@pytest.mark.parametrize("size", ["", "24", "GiB", "1.2.3G", "0GiB", "-4GiB"])
def test_sizes_that_are_none(size):
    with pytest.raises(UserError, match="give a size such as 24GiB"):
        parse_memory(size)


@pytest.mark.skipif(compute_dtype(None) is not torch.bfloat16, reason="this CPU has no bfloat16 instructions")
def test_cpu_without_avx512_computes_in_float32():
    """oneDNN held to AVX2 is the machine that it would be without AVX512."""
    code = "from llama_qna.models import device, plan; print(device.compute_dtype(None), plan.value_bytes('cpu'))"
    held = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.run([sys.executable, "-c", code], env=held, cwd=REPOSITORY, capture_output=True, text=True)
    assert found.stdout.split() == ["torch.float32", "4"]
    assert found.stderr.count("this CPU has no AVX512: computing in float32") == 1


def test_training_in_float32_where_bfloat16_is_slow(shallow_variant, monkeypatch):
    pretrain(shallow_variant)
    expected = losses(shallow_variant.pretraining)
    (shallow_variant.pretraining / "run.json").unlink()
    for module in (device, plan):
        monkeypatch.setattr(module, "bfloat16_is_fast", lambda: False)
    model = load_base(shallow_variant.recipe.base_model, shallow_variant.recipe.quantization)
    assert model.dtype is torch.float32
    pretrain(shallow_variant)
    assert losses(shallow_variant.pretraining) == pytest.approx(expected, rel=0.05)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of a compute capability, as far as torch would tell."""

    def forget():
        check_gpu.cache_clear()
        gpu_has_bfloat16.cache_clear()

    def pretend(major, minor):
        forget()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (major, minor))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("Found", (), {"major": major}))
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70", "sm_75", "sm_80", "sm_90a", "compute_90"])

    yield pretend
    forget()


def test_gpu_without_bfloat16_computes_in_float16(gpu, capsys):
    gpu(7, 5)
    assert [compute_dtype(Quantization()) for _ in range(2)] == [torch.float16] * 2
    assert capsys.readouterr().err == "llama-qna: Old GPU has no bfloat16: computing in float16, its losses scaled\n"


def test_gpu_with_bfloat16_computes_as_the_recipe_says(gpu, capsys):
    gpu(8, 9)
    assert compute_dtype(Quantization()) is torch.bfloat16
    assert compute_dtype(Quantization(compute_dtype="float16")) is torch.float16
    assert capsys.readouterr().err == ""


def test_gpu_that_torch_has_no_kernels_for_is_refused(gpu):
    gpu(5, 2)
    with pytest.raises(UserError, match=r"Old GPU \(compute capability 5.2\) is too old for this PyTorch.* at 7.0"):
        compute_dtype(Quantization(compute_dtype="float16"))


@pytest.fixture
def lost(monkeypatch, tmp_path):
    """A machine with a card, as far as its files tell, that PyTorch does not see."""

    def pretend(driver="535.104.05", built="13.0", cards=("nvidia0", "nvidiactl")):
        (tmp_path / "version").write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Sat Aug 19\n")
        for name in cards:
            (tmp_path / name).touch()
        monkeypatch.setattr(device, "DEVICES", tmp_path)
        monkeypatch.setattr(device, "DRIVER_SAYS", tmp_path / "version")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        device.check_no_gpu_is_lost.cache_clear()

    yield pretend
    device.check_no_gpu_is_lost.cache_clear()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "driver 535.104.05 is too old: this PyTorch (CUDA 13.0) needs 580 or newer"),
        ({"built": "12.8"}, "cannot use the NVIDIA GPU (driver 535.104.05)"),
        ({"driver": "580.95.05"}, "cannot use the NVIDIA GPU (driver 580.95.05)"),
        ({"built": None}, "cannot use any: install one built for CUDA"),
    ],
)
def test_gpu_that_torch_does_not_see_is_an_error_and_not_the_cpu(found, said, lost):
    lost(**found)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        device.device()
    assert "CUDA_VISIBLE_DEVICES=" in str(error.value) and "\n" not in str(error.value)


def test_machine_without_a_card_or_with_a_hidden_one_computes_on_its_cpu(lost, monkeypatch):
    lost(cards=("nvidiactl",))  # the module is loaded, and this container has no card
    assert device.device() == "cpu"
    lost()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.device() == "cpu"


def test_what_triton_compiles_with_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert device.lacks_for_compiling() == ["C compiler", "Python.h"]
    for name in ("gcc", "Python.h"):
        (tmp_path / name).touch(0o755)
    assert device.lacks_for_compiling() == []


@pytest.mark.parametrize(
    "said", ["CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"]
)
def test_ways_to_say_that_memory_ran_out(said):
    assert device.is_out_of_memory(RuntimeError(said)) and not device.is_out_of_memory(RuntimeError("no"))


def test_freed_memory_is_given_back_only_above_the_plan():
    blocks = [bytearray(b"x" * 60_000) for _ in range(2000)]
    kept = blocks[::2]  # holes between them
    del blocks
    before = held_memory()
    give_back_freed(2**50)
    assert held_memory() == pytest.approx(before, abs=2**21)
    give_back_freed(0)
    assert held_memory() < before - 30 * 2**20
    assert len(kept) == 1000
