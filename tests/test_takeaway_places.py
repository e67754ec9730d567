"""Where an export goes: no folder loses anything to it, what fails is one line, and the hub is a stand-in."""

import json
import shutil

import httpx2
import pytest

from llama_qna import UserError, cli
from llama_qna.serving import exports, gguf, hub
from tests.fixtures_models import shallow_folder_fixture, write_variant  # noqa: F401
from tests.fixtures_takeaway import merged_fixture, read, trained_fixture  # noqa: F401

# --- nothing is lost -------------------------------------------------------------------------------------------------


def test_second_export_of_the_same_writes_nothing(trained, merged, capsys):
    times = {path: path.stat().st_mtime_ns for path in merged.iterdir()}
    assert exports.export(trained("continue"), "merged", force=True) == merged
    assert {path: path.stat().st_mtime_ns for path in merged.iterdir()} == times
    assert "written before" in capsys.readouterr().out


def test_damaged_or_other_export_is_replaced_only_by_force(trained, merged, tmp_path):
    other, damaged = (shutil.copytree(merged, tmp_path / name) for name in ("other", "damaged"))
    (other / "export.json").write_text(json.dumps(read(other) | {"adapter": "another"}))
    (damaged / "model.safetensors").write_bytes(b"no weights")
    for folder in (other, damaged):
        with pytest.raises(UserError, match="exists with another export: replace it with --force"):
            exports.export(trained("continue"), "merged", folder)
    exports.export(trained("continue"), "merged", damaged, force=True)
    assert read(damaged)["files"] == read(merged)["files"]


def test_other_folders_are_never_replaced(trained, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="exists and is no export"):
        exports.export(trained("continue"), "merged", tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_failed_export_leaves_the_old_one(trained, merged, tmp_path, monkeypatch):
    folder = shutil.copytree(merged, tmp_path / "out")
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(exports, "save_tokenizer", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        exports.export(trained("continue"), "merged", folder, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (folder / "config.json").read_text() == "{}"


@pytest.mark.parametrize("to", ["gguf", "ollama"])
def test_missing_converter_is_one_line(to, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "TOOLS", tmp_path / "nothing")
    with pytest.raises(UserError, match="run `make gguf` first"):
        exports.export(trained("continue"), to, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_converter_that_fails_is_one_line(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    (tools / "xllamacpp").mkdir(parents=True)
    (tools / "convert_hf_to_gguf.py").write_text("raise SystemExit('Model FooForCausalLM is not supported')")
    monkeypatch.setattr(gguf, "TOOLS", tools)
    with pytest.raises(UserError, match="could not write a.gguf: Model FooForCausalLM is not supported"):
        gguf.convert(tmp_path, tmp_path / "a.gguf")


def test_untrained_variant_is_refused(tmp_path, shallow_folder):
    with pytest.raises(UserError, match="no trained model on this machine"):
        exports.export(write_variant(tmp_path, str(shallow_folder)), "merged")


# --- the hub ---------------------------------------------------------------------------------------------------------


class Hub:
    """A stand-in for `HfApi` that keeps what it was told, or fails."""

    told: list = []
    failure = None

    def create_repo(self, repository, **options):
        if Hub.failure:
            raise Hub.failure
        Hub.told.append(("create_repo", repository, options))
        return f"https://huggingface.co/{repository}"

    def upload_folder(self, **options):
        Hub.told.append(("upload_folder", options["repo_id"], sorted(p.name for p in options["folder_path"].iterdir())))


@pytest.fixture
def stand_in(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(Hub, "told", [])
    monkeypatch.setattr(Hub, "failure", None)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    return Hub


def refusal(status):
    from huggingface_hub.errors import HfHubHTTPError

    request = httpx2.Request("POST", "https://huggingface.co/api/repos/create")
    return HfHubHTTPError("the hub's own\nlong words", response=httpx2.Response(status, request=request))


def test_push_makes_a_private_repository(merged, stand_in):
    assert hub.push(merged, "someone/small") == "https://huggingface.co/someone/small"
    created, uploaded = stand_in.told
    assert created == ("create_repo", "someone/small", {"private": True, "exist_ok": True})
    assert uploaded == ("upload_folder", "someone/small", sorted(path.name for path in merged.iterdir()))


@pytest.mark.parametrize(
    ("failure", "complaint"),
    [
        (refusal(401), "the hub does not know this token (401)"),
        (refusal(403), "this account may not write there (403)"),
        (refusal(500), "the hub's own long words (500)"),
        (
            httpx2.ConnectError("[Errno -3] Temporary failure"),
            "the hub cannot be reached ([Errno -3] Temporary failure)",
        ),
    ],
)
def test_refused_push_is_one_line(failure, complaint, merged, stand_in):
    stand_in.failure = failure
    with pytest.raises(UserError) as caught:
        hub.push(merged, "someone/small")
    assert str(caught.value) == f"--push someone/small: {complaint}"


def test_push_without_a_token_or_a_name_does_no_work(stand_in, monkeypatch, capsys):
    monkeypatch.setattr("llama_qna.serving.exports.export", lambda *_: pytest.fail("worked before it looked"))
    assert cli.main(["export", "paper_135m", "--to", "merged", "--push", "a/b/c"]) == 2
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert cli.main(["export", "paper_135m", "--to", "merged", "--push", "someone/small"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("llama-qna: --push a/b/c: ")
    assert lines[1:] == ["llama-qna: --push needs an account of the hub: run `hf auth login`, or set HF_TOKEN"]
    assert stand_in.told == []


def test_command_exports_and_pushes(trained, merged, stand_in, monkeypatch, capsys):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(trained("continue").root))
    assert cli.main(["export", "small", "--to", "merged", "--push", "someone/small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "merged: written before, nothing has changed"
    assert lines[1] == exports.read_checks(merged)[0]
    assert lines[2:] == ["runs/small/exports/merged", "https://huggingface.co/someone/small"]
