"""Tests of llama_qna/project/variant.py and recipe.py: what a recipe may say, and what a bad one is told."""

from dataclasses import replace

import pytest

from llama_qna import UserError, cli
from llama_qna.project.files import locked
from llama_qna.project.variant import REPOSITORY, Reader, Variant, variant_names

SHIPPED = ["paper_135m", "paper_13b", "paper_7b", "paper_reader_135m", "physics_books_135m", "physics_mk_books_7b"]


def complaint(name="paper_135m"):
    with pytest.raises(UserError) as caught:
        Variant.load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_shipped_variants_are_these():
    assert variant_names(REPOSITORY) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipe_loads(name, monkeypatch):
    monkeypatch.delenv("LLAMA_QNA_ROOT", raising=False)
    variant = Variant.load(name)
    assert variant.folder == REPOSITORY / name
    assert variant.run == REPOSITORY / "runs" / name
    assert len(set(variant.stage_folders.values())) == 8, "every stage has a folder of its own"
    assert all(folder.is_relative_to(variant.run) for folder in variant.stage_folders.values())
    assert [notebook[:2] for notebook in variant.recipe.notebooks][-5:] == ["06", "07", "08", "09", "10"]


def test_unknown_variant_suggests_the_nearest(toy_root):
    assert "did you mean paper_135m?" in complaint("paper_135")


def test_unknown_variant_without_a_near_one_lists_what_there_is(toy_root):
    assert complaint("nothing_like_it").endswith("there are: paper_135m")


@pytest.mark.parametrize("name", ["paper_135m/", "./paper_135m"])
def test_name_completed_by_the_shell_is_the_variants_name(name, toy_root):
    assert Variant.load(name).name == "paper_135m"


def test_a_run_never_writes_into_the_committed_folder(toy_root):
    try:
        variant = Variant.load(str(toy_root / "paper_135m"))
    except UserError:
        return
    assert variant.run == toy_root / "runs" / "paper_135m"


def test_a_reader_runs_below_the_root_in_use_and_leaves_nothing_empty_there(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    reader = Reader.load("reader_135m")
    with locked(reader.run, reader.name, reader.root):
        assert reader.run.is_relative_to(root)
    assert root.is_dir() and not list(root.iterdir())


def test_the_command_that_does_a_stage_again_is_one_that_there_is():
    """Of a reader, of a variant, and of one that repeats it with another seed."""
    variant = Variant.load("paper_135m")
    seed = replace(variant, recipe=variant.recipe.model_copy(update={"seed": 43}), repeats_another=True)
    said = [Reader.load("reader_135m").again("read"), variant.again("finetune_only"), seed.again("pretrain")]
    parsed = [vars(cli._options(command.split()[1:])) for command in said]
    assert [found["verb"] for found in parsed] == ["reader", "finetune", "repeat"]
    assert parsed[0]["reader"] == "reader_135m"
    assert parsed[1]["variant"] == "paper_135m" and parsed[1]["without_pretraining"]
    assert parsed[2]["variant"] == "paper_135m" and parsed[2]["seeds"] == [43]


@pytest.mark.parametrize(
    "old, new, key, nearest",
    [
        ("corpus:", "corpsu:", "corpsu", "corpus"),
        ("chunk_size:", "chunk_sise:", "chunking.chunk_sise", "chunk_size"),
        ("dequantize_once:", "dequantise_once:", "quantization.dequantise_once", "dequantize_once"),
        ("save_steps: 15", "save_step: 20", "pretraining.save_step", "save_steps"),
        ("  window:", "  windows:", "evaluation.windows", "window"),
    ],
)
def test_misspelt_key_names_itself_and_the_nearest(old, new, key, nearest, edit_recipe):
    edit_recipe(old, new)
    assert complaint() == f"paper_135m/variant.yaml: unknown key `{key}`; did you mean `{nearest}`?"


def test_key_that_is_like_no_other_is_refused_without_a_guess(edit_recipe):
    edit_recipe("seed: 42", "seed: 42\nzzzz: 1")
    assert complaint() == "paper_135m/variant.yaml: unknown key `zzzz`"


@pytest.mark.parametrize(
    "old, new, key, reason",
    [
        ("chunk_size: 1024", "chunk_size: many", "chunking.chunk_size", "integer"),
        ("chunk_size: 1024", "chunk_size: 0", "chunking.chunk_size", "greater than 0"),
        ("batch_size: 64", "batch_size: 3.5", "generation.batch_size", "integer"),
        ("extractor: pypdfium2", "extractor: mupdf", "extractor", "'pypdfium2' or 'pdfminer'"),
        ("method: reader", "method: three_step", "generation.method", "'reader' or 'multi_pair'"),
        ("method: reader", "method: two_step", "generation.method", "multi_pair"),
        ("dropout: 0.0", "dropout: 1.5", "lora.dropout", "less than 1"),
        ("temperature: 0.4", "temperature: -1", "generation.temperature", "greater than or equal to 0"),
        ("epochs: 6", "epochs: five", "pretraining.epochs", "number"),
        ("learning_rate: 0.001", "learning_rate: .nan", "pretraining.learning_rate", ""),
        ("reference_questions: true", "reference_questions: maybe", "generation.reference_questions", "boolean"),
        ("target_modules: all-linear", "target_modules: all-linar", "lora.target_modules", "all-linear"),
        ("target_modules: all-linear", "target_modules: []", "lora.target_modules", "the names of some modules"),
        ("save_steps: 15", "save_steps: 15\n  max_steps: 0", "pretraining.max_steps", "greater than 0, or -1"),
        ("save_steps: 15", "save_steps: 15\n  max_steps: -2", "pretraining.max_steps", "greater than 0, or -1"),
        ("{chunk_size: 1024, chunk_overlap: 100}", "1024", "chunking", "dictionary"),
        ("corpus: paper", "corpus: 2024", "corpus", "string"),
    ],
)
def test_bad_value_names_its_key_and_what_is_wrong(old, new, key, reason, edit_recipe):
    edit_recipe(old, new)
    message = complaint()
    assert message.startswith("paper_135m/variant.yaml: ") and f"`{key}" in message and reason in message


@pytest.mark.parametrize("overlap", [1024, 2000])
def test_overlap_is_smaller_than_the_chunk(overlap, edit_recipe):
    edit_recipe("chunk_overlap: 100", f"chunk_overlap: {overlap}")
    assert complaint().endswith("chunk_overlap must be smaller than chunk_size")


def test_largest_overlap_is_accepted(edit_recipe):
    edit_recipe("chunk_overlap: 100", "chunk_overlap: 1023")
    assert Variant.load("paper_135m").recipe.chunking.chunk_overlap == 1023


@pytest.mark.parametrize("old, key", [("corpus: paper\n", "corpus"), ("  alpha: 64 ", "lora.alpha")])
def test_missing_key_is_named(old, key, edit_recipe):
    edit_recipe(old, "")
    assert complaint() == f"paper_135m/variant.yaml: the key `{key}` is missing"


@pytest.mark.parametrize("old, new", [("seed: 42", "seed: [42"), ("seed: 42", "seed:\n\t- 42")])
def test_broken_yaml_names_the_line(old, new, edit_recipe, toy_root):
    edit_recipe(old, new)
    lines = (toy_root / "paper_135m" / "variant.yaml").read_text().splitlines()
    line = next(n for n, text in enumerate(lines, start=1) if text.startswith("seed:"))
    assert f"paper_135m/variant.yaml line {line + 1}: not readable as YAML" in complaint()


@pytest.mark.parametrize("content", [b"a: \x00b\n", b"\xff\xfe\x00\n"])
def test_file_that_is_no_text_is_one_line(content, toy_root):
    (toy_root / "paper_135m" / "variant.yaml").write_bytes(content)
    assert "not readable as YAML" in complaint()


@pytest.mark.parametrize("content, kind", [("- a\n- b\n", "list"), ("", "NoneType"), ("hello\n", "str")])
def test_yaml_that_is_no_mapping(content, kind, toy_root):
    (toy_root / "paper_135m" / "variant.yaml").write_text(content)
    assert complaint().startswith("paper_135m/variant.yaml: ") and complaint().endswith(kind)


def test_key_given_twice_is_refused(edit_recipe):
    edit_recipe("seed: 42", "seed: 42\nseed: 43")
    assert "seed" in complaint()


def test_the_two_training_stages_share_no_folder(edit_recipe):
    edit_recipe("folder: finetuning_qna_paper", "folder: pretraining_paper")
    assert "folder" in complaint()
