"""The pinned environments agree with each other and with pyproject.toml; the recipes agree with the published study."""

import json
import re
import tomllib

import pytest
import yaml

from llama_qna.project.variant import REPOSITORY, Variant

STUDY = ["physics_mk_books_7b", "paper_7b", "paper_13b"]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines):
    """`name==version` lines as a dictionary, without a build's local suffix such as `+cpu`."""
    found = {}
    for line in lines:
        line = line.split("#")[0].split(";")[0].strip()
        if line and not line.startswith("-"):
            name, version = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.!+-]+)", line).groups()
            assert canonical(name) not in found, f"{name} is pinned twice"
            found[canonical(name)] = version.split("+")[0]
    return found


@pytest.fixture(scope="module")
def lock():
    return pins((REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def conda():
    return yaml.safe_load((REPOSITORY / "llama2_conda_deps.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def conda_pip(conda):
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    return pins(line for line in pip if "==" in line)


@pytest.fixture(scope="module")
def direct():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {canonical(re.match(r"[\w.-]+", name).group()) for name in project["dependencies"]}


def test_conda_pins_are_those_of_the_lock(lock, conda_pip):
    assert conda_pip
    assert {name: (version, lock.get(name)) for name, version in conda_pip.items() if lock.get(name) != version} == {}


def test_every_direct_dependency_is_pinned_in_both(lock, conda_pip, direct):
    assert direct - set(lock) == set()
    assert direct - set(conda_pip) == set()


def test_conda_names_a_python_that_the_package_takes(conda):
    (python,) = [entry for entry in conda["dependencies"] if isinstance(entry, str) and re.match(r"python\b", entry)]
    version = re.search(r"(\d+)\.(\d+)", python)
    assert (int(version[1]), int(version[2])) >= (3, 11)


def test_every_import_of_the_package_is_a_dependency(direct):
    """Libraries that come with another one and are imported by name are missed sooner or later."""
    import ast
    import sys
    from importlib.metadata import packages_distributions

    known = packages_distributions()
    missing = {}
    for path in sorted((REPOSITORY / "llama_qna").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"llama_qna"}:
                if not {canonical(owner) for owner in known.get(name, [])} & direct:
                    missing.setdefault(name, path.name)
    # these come with transformers, arxiv, papermill and gradio, which say so in what they require; vllm has an
    # environment of its own
    expected = {"huggingface_hub", "requests", "tokenizers", "safetensors", "httpx2", "nbclient", "starlette", "vllm"}
    assert set(missing) <= expected, missing


@pytest.fixture(scope="module")
def published():
    return json.loads((REPOSITORY / "data" / "published_results.json").read_text(encoding="utf-8"))["recipe"]


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.delenv("LLAMA_QNA_ROOT", raising=False)
    return lambda name: Variant.load(name).recipe


@pytest.mark.parametrize("name", STUDY)
def test_recipe_has_what_the_study_held_in_common(name, recipe, published):
    ours, common = recipe(name), published["common"]
    assert (ours.lora.r, ours.lora.alpha, ours.lora.dropout) == tuple(
        common["lora"][key] for key in ("r", "alpha", "dropout")
    )
    assert ", ".join(ours.lora.target_modules) == common["lora"]["target_modules"].split(": ")[1]
    for stage in (ours.pretraining, ours.finetuning):
        assert stage.learning_rate == common["learning_rate"]
        assert stage.scheduler == common["scheduler"]
        assert stage.max_length == common["max_seq_length"]
        assert stage.packing is common["packing"]
    assert ours.seed == common["seed"]
    assert ours.chunking.chunk_size == common["chunking"]["chunk_size_characters"]
    assert ours.chunking.chunk_overlap == common["chunking"]["chunk_overlap_characters"]
    assert ours.generation.max_new_tokens == common["qna prompt"]["max_new_tokens"]
    assert ours.generation.temperature == common["qna prompt"]["temperature"]
    assert common["quantization"] == "nf4, no double quantization, float16 compute"
    assert ours.quantization.double_quantization is False
    assert ours.quantization.compute_dtype == "float16"


@pytest.mark.parametrize("name", STUDY)
def test_recipe_has_the_studys_model_and_batch_sizes(name, recipe, published):
    ours, theirs = recipe(name), published[name]
    assert ours.base_model == theirs["base_model"]
    for stage in ("pretraining", "finetuning"):
        mine = getattr(ours, stage)
        assert mine.batch_size == theirs[stage]["batch_size"]
        assert mine.epochs == theirs[stage].get("epochs", theirs[stage].get("epochs_planned"))


@pytest.mark.parametrize("name", STUDY[:2])
@pytest.mark.parametrize("stage", ["pretraining", "finetuning"])
def test_recipe_saves_and_logs_as_the_study_did(name, stage, recipe, published):
    mine, theirs = getattr(recipe(name), stage), published[name][stage]
    assert (mine.save_steps, mine.logging_steps) == (theirs["save_steps"], theirs["logging_steps"])
    assert mine.max_steps >= theirs["best_checkpoint"]
    if "max_steps" in theirs:
        assert mine.max_steps == theirs["max_steps"]


@pytest.mark.parametrize("name, other", [("paper_135m", "paper_7b"), ("physics_books_135m", "physics_mk_books_7b")])
def test_embedded_variant_reads_its_own_documents(name, other, recipe):
    assert recipe(name).base_model == "embedded/smollm2-135m-instruct"
    assert recipe(name).corpus != recipe(other).corpus
    assert sorted((REPOSITORY / "data" / "pdfs" / recipe(name).corpus).glob("*.pdf"))
