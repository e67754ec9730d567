"""What is kept of documents that were read, damaged or not; and the reader that answers about them."""

import json
import shutil
import threading

import pytest

from llama_qna import UserError, cli
from llama_qna.models.lineage import READER
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.serving import library
from llama_qna.serving.library import Library
from tests.fixtures_library import (  # noqa: F401
    BRIDGE,
    FERRY,
    QUESTION,
    no_room,
    one_line,
    papers_fixture,
    root_fixture,
)


@pytest.fixture
def read_again(monkeypatch):
    """The names of the files that were really read, in order."""
    read, names = library.read_one, []
    monkeypatch.setattr(library, "read_one", lambda path: names.append(path.name) or read(path))
    return names


def test_a_document_is_read_once_whatever_it_is_called(papers, read_again):
    Library(papers)
    (papers / "orsk.pdf").rename(papers / "bridge.pdf")
    assert Library(papers).ask(QUESTION).evidence.document == "bridge"
    assert read_again == ["orsk.pdf"]


def _changed(content):
    rows = json.loads(content)
    rows["rows"][0]["text"] = "The bridge at Orsk is 9 metres long."
    return json.dumps(rows)


DAMAGES = [lambda c: "", lambda c: c[: len(c) // 2], lambda c: "[]", lambda c: "null", lambda c: "{}", _changed]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_kept_and_is_damaged_is_made_again(papers, root, read_again, damage):
    Library(papers)
    (kept,) = (root / "runs" / ".library").iterdir()
    whole = kept.read_text()
    kept.write_text(damage(whole))
    assert Library(papers).ask(QUESTION).evidence.sentence == BRIDGE[0]
    assert len(read_again) == 2 and kept.read_text() == whole


def test_a_full_disk_does_not_keep_from_answering(papers, root, monkeypatch):
    monkeypatch.setattr("llama_qna.project.files.os.fsync", no_room)
    assert Library(papers).ask(QUESTION).text == "412 metres"
    assert not list((root / "runs" / ".library").iterdir())


def test_a_place_that_cannot_be_written_does_not_keep_from_answering(papers, root):
    root.mkdir()
    (root / "runs").write_text("a file where the folder should be")  # the superuser may write anywhere else
    assert Library(papers).ask(QUESTION).text == "412 metres"


def test_stopped_in_the_middle_nothing_half_stays_and_the_rest_is_kept(papers, root, monkeypatch, capsys):
    (papers / "zz.txt").write_text("The well of Tarn is 90 metres deep.")
    read = library.read_one

    def stop(path):
        if path.name == "zz.txt":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(library, "read_one", stop)
    assert cli.main(["ask", str(papers), QUESTION]) == 130
    assert [path.suffix for path in (root / "runs" / ".library").iterdir()] == [".json"]
    assert one_line(capsys.readouterr().err)


def test_two_at_once_on_one_folder(papers):
    (papers / "zz.txt").write_text("The well of Tarn is 90 metres deep.")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(Library(papers).ask(QUESTION).text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["412 metres"] * 4


# --- the reader itself -----------------------------------------------------------------------------------------------


@pytest.fixture
def copied_reader(tmp_path, monkeypatch):
    """A reader with an adapter of a few bytes, and a record that names it."""
    folder = tmp_path / "place" / READER
    (folder / "adapter").mkdir(parents=True)
    shutil.copy(REPOSITORY / READER / "reader.yaml", folder)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr("llama_qna.project.variant.REPOSITORY", tmp_path / "place")
    return Reader.load(READER)


@pytest.mark.parametrize("record", [None, "", "[]", "{}", '{"outputs": {}}', '{"outputs": 3}', "RIGHT", "WRONG"])
def test_a_reader_that_is_damaged_is_one_line_and_nothing_is_read(papers, root, copied_reader, record, capsys):
    if record in ("RIGHT", "WRONG"):
        made = library.sha256(copied_reader.adapter / "adapter_model.safetensors")
        record = json.dumps({"outputs": {"adapter/adapter_model.safetensors": made if record == "RIGHT" else "0" * 64}})
    if record is not None:
        (copied_reader.folder / "run.json").write_text(record)
    assert cli.main(["ask", str(papers), QUESTION]) == 2
    captured = capsys.readouterr()
    assert one_line(captured.err) and READER in captured.err and not captured.out


def test_a_missing_adapter_is_one_line(papers, copied_reader, capsys):
    (copied_reader.adapter / "adapter_model.safetensors").unlink()
    assert cli.main(["ask", str(papers), QUESTION]) == 2
    assert one_line(capsys.readouterr().err)


@pytest.fixture
def true_reader():
    if not Reader.load(READER).adapter.is_dir():
        pytest.skip("there is no adapter of the reader here")


def test_what_somebody_gets_who_asks_about_their_documents(papers, true_reader):
    opened = Library(papers)
    told = opened.ask("How often does the ferry cross the sound?")
    assert "Twice a week" in told.text and told.evidence.sentence == FERRY[0] and told.evidence.page == 1
    for question in ("What is it of the?", "Quid nunc <|im_end|>?", "bridge " * 200):
        assert str(opened.ask(question))
    for question in ("why " * 2000, "How \udcff long?"):
        with pytest.raises(UserError):
            opened.ask(question)
