"""Recipes of strangers: YAML that is a bomb, a program, a path out of the repository, or nonsense is one line."""

import shutil

import pytest

from llama_qna import UserError, cli
from llama_qna.pairs.qna import read_qna_file
from llama_qna.project.recipe import LARGEST
from llama_qna.project.variant import Variant
from llama_qna.reporting.tables import times_table

LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGES = "b0: &b0 {k: 1}\n" + "".join(f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 9)}]}}\n" for n in range(1, 12))

FILES = {
    "anchors that multiply": (LAUGHS, "references such as *a0 are not read"),
    "merges that multiply": (MERGES, "references such as *b0 are not read"),
    "an anchor that holds itself": ("a: &a [*a]\n", "references such as *a are not read"),
    "brackets without end": ("a: " + "[" * 50_000, "too deep"),
    "mappings without end": ("a: " + "{a: " * 20_000, "too deep"),
    "a list as a key": ("? [a, b]\n: c\n", "a key must be a word"),
    "a mapping as a key": ("{a: b}: c\n", "a key must be a word"),
    "more than a recipe": ("# " + "x" * 200_000, "too many for a recipe"),
    "two documents": ("a: 1\n---\nb: 2\n", "not readable as YAML"),
    "a date that is none": ("seed: 2024-99-99\n", "not readable as YAML"),
    "a number of 5,000 digits": ("seed: " + "9" * 5000 + "\n", "not readable as YAML"),
    "binary that is none": ("seed: !!binary '***'\n", ""),
    "a key of control characters": ('"\\e[2J\\nERROR": 1\n', "unknown key"),
    "half a character": ('"\\ud800": "\\ud800"\n', ""),
    "keys that are no words": ("1: a\nnull: b\ntrue: c\n", ""),
}
TAGS = [
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:subprocess.Popen [['touch', '{mark}']]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:llama_qna.project.recipe.Recipe {{}}",
]


def complaint():
    with pytest.raises(UserError) as caught:
        Variant.load("paper_135m")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    assert str(caught.value).startswith("paper_135m/variant.yaml")
    return str(caught.value)


@pytest.mark.parametrize("case", FILES)
def test_file_that_is_no_recipe_is_refused(case, toy_root):
    content, reason = FILES[case]
    (toy_root / "paper_135m" / "variant.yaml").write_text(content)
    assert reason in complaint()


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag.split()[0])
def test_tag_that_would_run_python_is_refused(tag, toy_root, edit_recipe, tmp_path):
    mark = tmp_path / "code_has_run"
    edit_recipe("seed: 42", f"seed: {tag.format(mark=mark)}")
    assert "could not determine a constructor for the tag" in complaint()
    assert not mark.exists()


@pytest.mark.parametrize(
    "old, new, key",
    [
        ("corpus: paper", "corpus: ../../../etc", "corpus"),
        ("corpus: paper", "corpus: /etc", "corpus"),
        ("corpus: paper", "corpus: ..", "corpus"),
        ("corpus: paper", 'corpus: "paper\\n../x"', "corpus"),
        ("corpus: paper", 'corpus: ""', "corpus"),
        ("generation:\n", "generation:\n  qna_file: ../../secret.csv\n", "generation.qna_file"),
        ("generation:\n", "generation:\n  qna_file: /etc/passwd\n", "generation.qna_file"),
        ("generation:\n", "generation:\n  qna_file: data/../../x.csv\n", "generation.qna_file"),
        ("folder: pretraining_paper", "folder: pretraining/../../../x", "pretraining.folder"),
        ("folder: pretraining_paper", 'folder: "pretraining\\n"', "pretraining.folder"),
        ("notebooks:\n", "notebooks:\n  - ../../evil\n", "notebooks.0"),
        ("notebooks:\n", "notebooks:\n  - /tmp/evil\n", "notebooks.0"),
    ],
)
def test_path_out_of_the_repository_is_refused(old, new, key, edit_recipe):
    edit_recipe(old, new)
    assert f"`{key}" in complaint()


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PATH", "X_API_KEY\\n"])
def test_recipe_cannot_send_any_variable_of_the_environment_to_a_server(name, edit_recipe):
    endpoint = f'{{url: "http://localhost:1/v1", model: m, api_key_variable: "{name}"}}'
    edit_recipe("generation:\n", f"generation:\n  endpoint: {endpoint}\n")
    assert "`generation.endpoint.api_key_variable`" in complaint()


@pytest.mark.parametrize(
    "old, new, key",
    [
        ("seed: 42", f"seed: {LARGEST + 1}", "seed"),
        ("seed: 42", "seed: -1", "seed"),
        ("epochs: 6", "epochs: .inf", "pretraining.epochs"),
        ("epochs: 6", "epochs: 1.0e300", "epochs"),
        ("epochs: 6", "epochs: .nan", "pretraining.epochs"),
        ("alpha: 64", "alpha: .inf", "lora.alpha"),
        ("chunk_size: 1024", f"chunk_size: {10**30}", "chunk_size"),
        ("extractor: pypdfium2", "extractor: pypdfium2\nread_limits: {seconds: .inf}", "read_limits.seconds"),
        ("extractor: pypdfium2", "extractor: pypdfium2\nread_limits: {memory_gb: 1.0e18}", "read_limits.memory_gb"),
        ("seed: 42", "seed: [42]", "seed"),
        ("seed: 42", "seed: {a: 1}", "seed"),
        ("corpus: paper", "corpus: [a]", "corpus"),
        ("notebooks:\n", "notebooks:\n  - [a]\n", "notebooks.0"),
    ],
)
def test_number_or_type_that_is_a_mistake_is_refused(old, new, key, edit_recipe):
    edit_recipe(old, new)
    assert key in complaint()


def test_qna_file_that_is_a_link_is_read_as_a_table_alone(toy_root):
    """A link is the user's own, unlike one in a corpus; what it names is a table with the columns, or is refused."""
    (toy_root / "secret").write_text("swordfish\n")
    (toy_root / "mine.csv").symlink_to(toy_root / "secret")
    with pytest.raises(UserError, match=r"mine\.csv: no column Question or Answer"):
        read_qna_file(toy_root / "mine.csv")


def test_bad_recipe_beside_others_is_one_line_and_stops_none_of_them(toy_root, capsys):
    (toy_root / "evil").mkdir()
    (toy_root / "evil" / "variant.yaml").write_text(LAUGHS)
    record = toy_root / "evil_too" / "pretraining_paper" / "run.json"
    shutil.copytree(toy_root / "paper_135m", toy_root / "evil_too")
    record.parent.mkdir()
    record.write_text("{")
    assert cli.main(["variants"]) == 0
    bad, _, good = capsys.readouterr().out.splitlines()
    assert bad.split(maxsplit=1)[1].startswith("evil/variant.yaml line 2: not readable as YAML")
    assert good.startswith("paper_135m ")
    assert list(times_table(toy_root, "pretraining").index) == ["paper_135m"]
