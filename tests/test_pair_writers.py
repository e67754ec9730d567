"""Tests of llama_qna/pairs/writers.py: with a server on loopback, and with the embedded model."""

import json

import pandas as pd
import pytest
import yaml

from llama_qna import UserError, cli
from llama_qna.documents.chunks import load
from llama_qna.models import prompts
from llama_qna.pairs import qna
from llama_qna.pairs.evidence import evidence_of, stands_alone, worth
from llama_qna.pairs.writers import Passage, Written, write_pairs, writer
from llama_qna.project.data import read_chunks
from llama_qna.project.stage import valid_record
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.text.words import sentences_of
from tests.fixtures_server import answer, refusal, serving

FACTS = {  # sentence: question
    "The Alder bridge was built in 1884 by two brothers from the valley of Marne.": "When was the Alder bridge built?",
    "Ilse Brandt wrote the manual of the harbour crane in four weeks of winter.": "Who wrote the crane's manual?",
    "The lid of the great kiln weighs three tonnes and is lifted once a year.": "How heavy is the great kiln's lid?",
    "The northern sluice failed in 1921 because ice had bent its gate.": "Why did the northern sluice fail in 1921?",
    "Tungsten lines the walls of the Corvane furnace, which reach 2,000 kelvin.": "What lines the Corvane furnace?",
    "The Dunmore method takes eleven days from harvest to flour.": "How many days does the Dunmore method take?",
    "The Kestrel rovers carry a drill, two cameras and a lamp over the dunes.": "What do the Kestrel rovers carry?",
    "Salt is won at the Ness works by drying sea water on slate.": "How is salt won at the Ness works?",
    "A guild of pilots paid for the tower on Gull island in silver.": "Who paid for the tower on Gull island?",
    "The glass of the Orrin lamp is green from iron in the sand.": "Why is the glass of the Orrin lamp green?",
}
SECTIONS = [list(FACTS)[n : n + 2] for n in range(0, len(FACTS), 2)]


def model(body, attempt=1):
    """What a good model would say: a pair for every fact of the text, or the fact that answers a question."""
    asked = body["messages"][-1]["content"]
    facts = [fact for fact in FACTS if fact in asked]
    if "question and answer pairs" in asked:
        return answer("Here they are!\n" + "\n".join(f"**Q{n}:** {FACTS[f]}\nA: {f}" for n, f in enumerate(facts)))
    (fact,) = [fact for fact in facts if asked.endswith(FACTS[fact])]
    return answer(f"Answer: {fact}")


def variant_at(root, url, **generation):
    """A loaded variant `workshop` of five chunks on that server, a chunk a ledger entry, each group with two chunks."""
    recipe = yaml.safe_load((REPOSITORY / "paper_135m" / "variant.yaml").read_text())
    endpoint = {"url": url, "model": "toy", "max_retries": 0, "concurrency": 2, "timeout_seconds": 60}
    recipe |= {"corpus": "notes", "heldout": {"fraction": 0.2, "seed": 1}}
    told = {"method": "multi_pair", "pairs_per_chunk": 2, "batch_size": 1, "attempts": 1, "reference_questions": False}
    recipe["generation"] |= {"endpoint": endpoint} | told | generation
    notes = root / "data" / "pdfs" / "notes" / "notes.md"
    for folder in (notes.parent, root / "workshop"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "workshop" / "variant.yaml").write_text(yaml.safe_dump(recipe))
    sections = (f"## Part {'ABCDE'[n]}\n\n{' '.join(facts)}\n\n" for n, facts in enumerate(SECTIONS))
    notes.write_text("# Notes\n\n" + "".join(sections))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_QNA_ROOT", str(root))
        variant = Variant.load("workshop")
    assert len(load(variant)) == len(SECTIONS)
    return variant


def asked_about(bodies):
    return {fact for fact in FACTS for body in bodies if fact in body["messages"][-1]["content"]}


# --- on a server ----------------------------------------------------------------------------------------


def test_pairs_of_a_server_are_kept_with_where_they_come_from(tmp_path):
    with serving(model) as server:
        variant = variant_at(tmp_path, server.url)
        pairs = qna.generate(variant)
    assert dict(zip(pairs.Answer, pairs.Question, strict=True)) == FACTS
    table = read_chunks(variant).set_index("chunk_id")
    for pair in pairs.itertuples():
        chunk = table.loc[pair.chunk_id]
        assert pair.Answer in chunk.text
        assert (pair.document, pair.page, pair.split) == (chunk.document, chunk.page, chunk.split)
        assert (pair.recipe, pair.model, pair.evidence) == ("multi_pair", "toy", "")
    assert set(pairs.split) == {"train", "heldout"}


def test_yields_add_up(tmp_path):
    """A model whose answers are all the same sentence: what is kept and what is not is all that it wrote."""

    def stubborn(body, attempt):
        status, content = model(body)
        if "\nQuestion:" in body["messages"][-1]["content"]:
            return answer("Answer: The lid of the great kiln weighs three tonnes and is lifted once a year.")
        return status, content

    with serving(stubborn) as server:
        variant = variant_at(tmp_path, server.url)
        pairs = qna.generate(variant)
    rejected = pd.read_csv(variant.qna / "qna_rejected.csv", keep_default_na=False)
    found = valid_record(variant.qna, "generate")["results"]
    assert len(pairs) + len(rejected) == len(FACTS) == found["pairs"] + found["rejected"]
    assert sum(found["reasons"].values()) == len(rejected) == 9
    assert found["reasons"] == rejected.reason.value_counts().to_dict()


def test_not_one_usable_pair_is_said_with_the_reasons_of_all(tmp_path, capsys, monkeypatch):
    with serving(lambda body, attempt: answer("I am sorry, but I can not help with that.")) as server:
        variant = variant_at(tmp_path, server.url)
        monkeypatch.setenv("LLAMA_QNA_ROOT", str(tmp_path))
        assert cli.main(["generate", "workshop"]) == 2
    said = capsys.readouterr()
    line = said.err.splitlines()[-1]
    assert "workshop: not one usable question-answer pair came out of 5 tries" in line
    assert "no pair in the response" in said.out and said.out.split()[-1] == "0"
    rejected = pd.read_csv(tmp_path / line.split("; ")[1].split()[0])
    assert len(rejected) == 5 and set(rejected.reason) == {"no pair in the response: no labels"}
    assert not variant.qna.exists(), "the stage is not done"


# --- servers of several kinds ----------------------------------------------------------------------------------------


def test_model_that_thinks_aloud_gives_the_pairs_of_one_that_does_not(tmp_path):
    """Its thoughts are cut off where an answer of one line is asked for, and hold drafts of pairs where several are."""

    def thinking(body, attempt):
        if body.get("stop"):
            return answer("<think>")
        status, content = model(body)
        message = content["choices"][0]["message"]
        thoughts = "<think>\nQuestion: Who?\nAnswer: Hm.\n</think>\n\n"
        message["content"] = f"{thoughts}{message['content']}\n\nLet me know if it helps."
        return status, content

    with serving(thinking) as server:
        pairs = qna.generate(variant_at(tmp_path, server.url))
    assert dict(zip(pairs.Answer, pairs.Question, strict=True)) == FACTS
    stopped = [body for body in server.bodies if body.get("stop")]
    assert 0 < len(stopped) <= 4, "one group is stopped, and then no more"


def test_model_that_only_thinks_says_nothing_else(tmp_path):
    with serving(lambda body, attempt: answer("<think>\nQuestion: Who?\nAnswer: Me, and")) as server:
        variant = variant_at(tmp_path, server.url)
        with pytest.raises(UserError, match="not one usable"):
            qna.generate(variant)
    rejected = pd.read_csv(variant.qna.with_name(variant.qna.name + ".partial") / "qna_rejected.csv")
    assert set(rejected.reason) == {"no pair in the response: cut off within its thoughts"}


def as_json(body, attempt=1):
    asked = body["messages"][-1]["content"]
    if not body.get("response_format"):
        return model(body)
    facts = [fact for fact in FACTS if fact in asked]
    return answer(json.dumps({"pairs": [{"answer": fact, "question": FACTS[fact]} for fact in facts]}))


@pytest.mark.parametrize("takes", [True, False])
def test_pairs_are_asked_for_as_json_where_the_server_takes_that(takes, tmp_path):
    def reply(body, attempt):
        return as_json(body) if takes or not body.get("response_format") else refusal(400, "no response_format here")

    with serving(reply) as server:
        pairs = qna.generate(variant_at(tmp_path, server.url))
    assert dict(zip(pairs.Answer, pairs.Question, strict=True)) == FACTS
    asked = [body for body in server.bodies if "question and answer pairs" in body["messages"][-1]["content"]]
    formatted = sum("response_format" in body for body in asked)
    assert formatted == len(SECTIONS) if takes else formatted in (1, 2), "two at once, and then no more"
    assert len(asked) == len(SECTIONS) + (0 if takes else formatted)


def test_chunk_without_a_pair_is_asked_about_again_with_another_seed(tmp_path):
    def second_time(body, attempt):
        return model(body) if body["seed"] in seeds[1] else answer("I cannot say.")

    with serving(lambda body, attempt: answer("I cannot say.")) as server:
        variant = variant_at(tmp_path, server.url, attempts=2)
        with pytest.raises(UserError, match="came out of 10 tries"):
            qna.generate(variant)
        seeds = [{body["seed"] for body in server.bodies[:5]}, {body["seed"] for body in server.bodies[5:]}]
    assert len(seeds[0]) == len(seeds[1]) == 5 and seeds[0].isdisjoint(seeds[1])
    with serving(second_time) as server:
        variant = variant_at(tmp_path / "again", server.url, attempts=2)
        write = writer(variant)
        (first,), (second,) = (write([_passage(variant)], attempt) for attempt in (1, 2))
    assert first.candidates[0].problem and first.final
    assert [candidate.problem for candidate in second.candidates] == ["", ""]


def _passage(variant):
    chunk = read_chunks(variant).iloc[0]
    return Passage(chunk.chunk_id, chunk.text)


@pytest.mark.parametrize("batch_size, most", [(4, 4), (1, 2)])
def test_batches_are_filled_and_a_server_has_work_for_all_its_requests(batch_size, most, tmp_path, monkeypatch):
    variant = variant_at(tmp_path, "http://127.0.0.1:9/v1", batch_size=batch_size)
    groups = []
    monkeypatch.setattr(qna, "_write", lambda *a, whole: groups.append(len(a[3])) or ([Written([]) for _ in a[3]], 0))
    with pytest.raises(UserError, match="not one usable"):
        qna.generate(variant)
    assert max(groups) == most


def test_reader_is_no_server_and_no_other_model(tmp_path):
    variant = variant_at(tmp_path, "http://127.0.0.1:9/v1", method="reader")
    recipe = variant.recipe
    own = recipe.generation.model_copy(update={"endpoint": None})
    other = recipe.model_copy(update={"generation": own, "base_model": "some/other"})
    for one in (recipe, other):
        with pytest.raises(UserError, match="multi_pair"):
            qna.generate(Variant(variant.name, variant.root, one))


# --- the embedded model in this process ------------------------------------------------------------------------------


def test_reader_asks_about_sentences_of_the_chunk_and_quotes_them(toy_root):
    variant = Variant.load("paper_135m")
    begun, *facts = list(FACTS)[:3]
    text = " ".join([begun, *facts])
    (written,) = write_pairs(variant, [Passage("d-0000", text, continued=True)])
    assert written.final and written.tokens > 0
    assert [candidate.evidence for candidate in written.candidates] == facts, "the first one began in another chunk"
    for candidate in written.candidates:
        assert candidate.question.endswith("?") and candidate.score < 0
        assert candidate.answer or candidate.check == prompts.NOTHING
    row = {"chunk_id": "d-0000", "document": "d", "page": 1, "split": "train", "text": text}
    pairs, rejected = qna.judge(variant, pd.DataFrame([row]), {"d-0000": [written]})
    assert len(pairs) + len(rejected) == len(facts)
    assert set(pairs.recipe) <= {"reader"} and set(pairs.evidence) <= set(facts)


# --- evidence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence, wanted",
    [
        (list(FACTS)[0], True),
        ("It was built in 1884 by two brothers from the valley of Marne.", False),
        ("However, the Alder bridge was built in 1884 by two brothers.", False),
        ("After the war they built the Alder bridge in 1884 with two brothers.", False),
        ("and was built in 1884 by two brothers from the valley of Marne.", False),
        ("The Alder bridge was built in 1884 by two brothers from the", False),
        ("The bridge is old.", False),
        ("Who built the Alder bridge over the river Marne in 1884?", False),
        ("Die Brücke wurde 1884 von zwei Brüdern aus dem Tal der Marne gebaut.", True),
    ],
)
def test_what_stands_alone(sentence, wanted):
    assert stands_alone(sentence, "de" if sentence.startswith("Die ") else "en") is wanted


def test_evidence_is_spread_over_the_chunk():
    def found(*arguments):
        return [sentence for sentence, *_ in evidence_of(text, *arguments)]

    facts, text = list(FACTS), " ".join(FACTS)
    assert (found(False, 20), found(True, 20), found(False, 5)) == (facts, facts[1:], facts[::2])
    assert evidence_of(text, False, 5)[1][1] == " ".join(facts[1:4]), "with its neighbours"
    assert evidence_of("A short one.", False, 5) == []


def test_made_up_question_is_worth_less():
    def of(question, sentence):
        return worth(question, sentence, f"{cause} {plain}", "en")

    cause, plain = list(FACTS)[3], list(FACTS)[2]
    assert of("Why did the northern sluice fail?", cause) > of("When did the sluice fail?", cause)
    assert of("When did the sluice fail?", cause) > of("When did the wizard fail?", cause)
    assert of("How heavy is the lid?", plain) > of("Why is the lid of the kiln lifted?", plain)


@pytest.mark.parametrize("question", ["Welche Brücke wurde gebaut?", "Was wurde im Jahr 1884 gebaut?"])
def test_the_words_of_a_question_count_in_the_language_of_the_text(question):
    """No word of it is strange, and "Was" asks no English question, which would be worth more."""
    sentence = "Die Brücken über den Fluss wurden im Jahr 1884 gebaut."
    assert worth(question, sentence, f"Die grünen Schiffe liegen im alten Hafen. {sentence}", "de") == 0


# --- text ------------------------------------------------------------------------------------------------------------


def test_sentences_are_without_citation_marks_and_line_breaks():
    text = "Early exit is old [3, 4–6].\nIt was 1.62 for W1. “Why?” she asked [12]. U.S. mills closed."
    assert sentences_of(text) == [
        "Early exit is old.", "It was 1.62 for W1.", "“Why?” she asked.", "U.S. mills closed."
    ]  # fmt: skip
