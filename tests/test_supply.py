"""What is installed and what it may do: licences, environment variables, telemetry."""

import ast
import importlib.util
import os
import re
import subprocess
import sys

import pytest

from llama_qna.project.variant import REPOSITORY

spec = importlib.util.spec_from_file_location("licences", REPOSITORY / "docs" / "licences.py")
licences = importlib.util.module_from_spec(spec)
spec.loader.exec_module(licences)

PACKAGES = [*licences.pinned(), *licences.BESIDE_THE_LOCK]
# what the package reads of the environment, each a place or a switch; the last is the user's name of a key
READ = {"LLAMA_QNA_ROOT", "LLAMA_QNA_ARXIV", "endpoint.api_key_variable"}


def test_every_package_has_a_licence_and_none_is_of_the_gpl_family():
    found = {name: licences.licence(name) for name in PACKAGES}
    copyleft = re.compile(r"\bA?L?GPL|GNU (Affero|Lesser|General)|SSPL|Commons Clause|unknown", re.IGNORECASE)
    assert {name: text for name, text in found.items() if copyleft.search(text)} == {}


def test_licences_stand_in_the_documentation():
    table = licences.SUPPLY.read_text(encoding="utf-8").split(licences.MARK)[1].strip()
    assert table == licences.table().strip(), "run `python docs/licences.py`"


def test_what_is_installed_is_what_is_pinned():
    assert {name: licences.version(name) for name in licences.pinned()} == licences.pinned()


def environment_reads(tree):
    """Arguments of os.environ.get, os.environ[...] and os.getenv, as they stand in the source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv", "os.environ.pop"):
            yield ast.unparse(node.args[0]).strip("'")
        if (
            isinstance(node, ast.Subscript)
            and ast.unparse(node.value) == "os.environ"
            and isinstance(node.ctx, ast.Load)
        ):
            yield ast.unparse(node.slice).strip("'")


def test_no_secret_is_read():
    """Only the variables that are ours; a token is never asked for, handed on or looked for on the disk."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "llama_qna").rglob("*.py"))}
    read = {name for text in sources.values() for name in environment_reads(ast.parse(text))}
    assert READ <= read
    secret = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|AWS_|_KEY\b")
    assert [name for name in read - READ if secret.search(name.upper())] == []
    asked = re.compile(r"\bget_token\(|\btoken=|use_auth_token|\.netrc|\.ssh|\.aws")
    # hub.py asks whether there is a token at all, before an upload of minutes; the library uses it
    assert [path.name for path, text in sources.items() if asked.search(text)] == ["hub.py"]


SAID = """
import os, llama_qna
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY, os.environ["GRADIO_ANALYTICS_ENABLED"], os.environ["DO_NOT_TRACK"])
print("HF_HUB_OFFLINE" in os.environ, constants.HF_HUB_OFFLINE)
"""


@pytest.mark.parametrize("own", [{}, {"DO_NOT_TRACK": "0"}])
def test_telemetry_is_off_before_any_library_is_imported(own):
    """And nothing else: whether the hub is asked for a model is the user's choice."""
    ours = ("HF_HUB_DISABLE_TELEMETRY", "GRADIO_ANALYTICS_ENABLED", "DO_NOT_TRACK", "HF_HUB_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | own
    done = subprocess.run([sys.executable, "-c", SAID], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False", own.get("DO_NOT_TRACK", "1"), "False", "False"], done.stderr
