"""No network at all: every default command does its work, and asks for no host."""

import os
import shutil
import subprocess
import sys

import pytest

from llama_qna.project.variant import REPOSITORY
from tests import fixtures_metrics
from tests.faults.harness import tiny_folder_fixture, tiny_variant  # noqa: F401
from tests.faults.offline import COMMANDS

NAMESPACE = ["unshare", "--map-root-user", "--net"]


def without_network(*command, **environment):
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here: neither root nor user namespaces")
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | environment
    return subprocess.run([*NAMESPACE, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_every_default_command_works_without_a_network_and_asks_for_none(tiny_folder, tmp_path):
    tiny_variant(tmp_path, tiny_folder)
    fixtures_metrics.pages(tmp_path)
    done = without_network(sys.executable, "-m", "tests.faults.offline", str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith(("status", "reached"))]
    assert said == [f"status 0 of {' '.join(command)}" for command in COMMANDS], done.stderr


@pytest.mark.slow
def test_notebook_works_without_a_network(toy_root):
    """Jupyter talks to its kernel over loopback, which the namespace has to bring up."""
    command = f"{sys.executable} -m llama_qna run paper_135m --notebooks 02_coaxnn_paper_loader"
    if not shutil.which("ip"):
        pytest.skip("loopback cannot be brought up: no `ip`")
    done = without_network("sh", "-c", f"ip link set lo up && {command}", LLAMA_QNA_ROOT=str(toy_root))
    assert done.returncode == 0, done.stderr
    assert (toy_root / "runs/paper_135m/notebooks/02_coaxnn_paper_loader.ipynb").is_file()


@pytest.mark.slow
def test_model_of_the_hub_without_a_network_is_one_line(tiny_folder, tmp_path):
    """What needs the hub says so, and how to do without."""
    tiny_variant(tmp_path, tiny_folder)
    path = tmp_path / "small/variant.yaml"
    path.write_text(path.read_text().replace(str(tiny_folder), "somebody/some-model"))
    command = [sys.executable, "-m", "llama_qna", "pretrain", "small"]
    environment = {"LLAMA_QNA_ROOT": str(tmp_path), "HF_HOME": str(tmp_path / "hub")}
    done = without_network(*command[:-2], "load", "small", **environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("llama-qna: base_model somebody/some-model cannot be reached: ")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("run.json"))


def test_arxiv_without_a_network_is_one_line(toy_root):
    done = without_network(sys.executable, "-m", "llama_qna", "load", "paper_135m", "--arxiv", "2405.11913")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("llama-qna: ")]
    assert "arXiv" in line
