"""Tests of reporting/results.py and reporting/pages.py, and of the pages that publishing makes of them."""

import json
import shutil

import pytest

from llama_qna import UserError, publish
from llama_qna.project import marked
from llama_qna.project import stage as stage_module
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import figures, pages, results
from llama_qna.reporting.tables import as_text, checkpoints_table, seconds_of, seeds_table, systems_table, times_table
from llama_qna.run import summary
from tests import fixtures_metrics as made_up

PUBLISHED = json.loads((REPOSITORY / "data" / "published_results.json").read_text(encoding="utf-8"))


def block(**metrics):
    runs = {name: results.Run(found, f"about {name}", "paper", []) for name, found in metrics.items()}
    return results.results_block(runs, PUBLISHED)


def tables(text):
    """The Markdown tables of a text: a list of rows each, each row a list of cells."""
    parts = [part for part in text.split("\n\n") if part.startswith("|")]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()] for part in parts]


def test_heldout_tables_hold_every_system_with_its_intervals():
    leading, overlap, _ = tables(block(paper_135m=made_up.metrics()))
    shown = ["evidence", "page", "answer or evidence", "says so, unanswerable", "says so, answerable"]
    assert leading[0] == ["system", "right", "right, not copied", "new words F1", *shown]
    assert overlap[0] == ["system", "ROUGE-1", "ROUGE-2", "ROUGE-L", "F1", "exact match"]
    for table in (leading, overlap):
        assert [row[0] for row in table[2:]] == [label for _, label, *_ in made_up.SYSTEMS]
    row = next(row for row in leading if row[0] == "fine-tuned with passages")
    means = ["0.350 [0.300, 0.400]", "0.090 [0.040, 0.140]", "0.400 [0.350, 0.450]"]
    assert row[1:] == [*means, "-", "-", "-", "0.300 [0.250, 0.350]", "0.100 [0.050, 0.150]"]
    row = next(row for row in overlap if row[0] == "fine-tuned with passages")
    assert row[3:] == ["0.450 [0.400, 0.500]", "0.430 [0.380, 0.480]", "0.080 [0.030, 0.130]"]
    best = next(row for row in leading if row[0].startswith("the best sentence"))
    assert best[4] == "0.400 [0.350, 0.450]"


def test_findings_state_the_differences_and_their_price():
    text = block(paper_135m=made_up.metrics())
    assert "**Held out: paper_135m** (about paper_135m). 50 gold questions" in text and "25 unanswerable" in text
    gain, close = "+0.130 [+0.080, +0.180] (better)", "+0.040 [-0.010, +0.090] (no clear difference)"
    above = "+0.060 [+0.010, +0.110] (better)"
    retrieved, best = "+0.120 [+0.070, +0.170] (better)", "+0.110 [+0.060, +0.160] (better)"
    tuned = "- fine-tuned against"
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        f"{tuned} base: right {gain}, new words F1 {gain}",
        f"{tuned} fine-tuned without pretraining: right {close}, new words F1 {close}",
        f"{tuned} the question itself: right {above}, new words F1 {above}, ROUGE-L {above}",
        f"- base with passages against base: right {retrieved}, new words F1 {retrieved}",
        "- best of the models (fine-tuned with passages) against the best sentence (BM25): "
        f"right {best}, new words F1 {best}",
        "- general-text perplexity, base → shipped checkpoint (finetuning checkpoint-10): 40.00 → 42.00 (+5.0%)",
    ]


def test_likelihood_of_references_stands_beside_the_answers_where_it_was_measured():
    metrics = made_up.metrics()
    by_name = {system["name"]: system for system in metrics["systems"]}
    by_name["finetuned"]["scores"]["log_likelihood"] = {"mean": -2.5, "low": -3.0, "high": -2.0}
    by_name["finetuned"]["against"]["finetuned_only"]["log_likelihood"] = {
        "mean": 0.9, "low": 0.4, "high": 1.4, "p": 0.001, "p_holm": 0.002
    }  # fmt: skip
    text = block(paper_135m=metrics)
    _, heldout, _ = tables(text)
    assert heldout[0][-1] == "reference's log-likelihood a token"
    assert {row[0]: row[-1] for row in heldout[2:]}["fine-tuned"] == "-2.500 [-3.000, -2.000]"
    assert [row[-1] for row in heldout[2:]].count("-") == len(made_up.SYSTEMS) - 1
    assert "reference's log-likelihood a token +0.900 [+0.400, +1.400] (better)" in text


def test_a_lost_comparison_is_said_plainly():
    metrics = made_up.metrics()
    for system in metrics["systems"]:
        if "best_sentence" in system["against"]:
            system["against"]["best_sentence"]["right"] |= {"mean": -0.1, "low": -0.2, "high": -0.01}
    text = block(paper_135m=metrics)
    assert "against the best sentence (BM25): right -0.100 [-0.200, -0.010] (worse)" in text


def test_a_run_without_fine_tuning_only_is_not_compared_with_it():
    metrics = made_up.metrics()
    metrics["systems"] = [system for system in metrics["systems"] if system["name"] != "finetuned_only"]
    for system in metrics["systems"]:
        system["against"].pop("finetuned_only")
    text = block(paper_135m=metrics)
    assert "fine-tuned without pretraining" not in text and "fine-tuned against base" in text
    assert list(systems_table(metrics).system) == [
        label for name, label, *_ in made_up.SYSTEMS if name != "finetuned_only"
    ]
    points = figures.numbers(made_up.sources(metrics), "about")["systems"]["panels"][0]["shares"]
    assert len(points) == len(made_up.SYSTEMS) - 1


def test_in_sample_table_holds_ours_beside_the_study():
    physics = made_up.metrics("physics_books_135m")
    physics["checkpoints"][0]["perplexity"]["domain"]["perplexity"] = 25.0
    *_, rows = tables(block(paper_135m=made_up.metrics(), physics_books_135m=physics))
    assert rows[0] == [
        "score",
        "paper_135m (about paper_135m)",
        "physics_books_135m (about physics_books_135m)",
        "Paper-7b (Llama-2-7b-chat, CoAxNN paper, one NVIDIA L4)",
        "MK-PhysX-7b (Llama-2-7b-chat, four physics books, one NVIDIA L4)",
    ]
    assert rows[2:] == [
        ["Text perplexity, base model", "17.75", "25.00", "6.91", "6.56"],
        ["Text perplexity, after pretraining", "2.50", "2.50", "2.49", "2.47"],
        ["Text perplexity falls by a factor of", "7.10", "10.00", "2.77", "2.65"],
        ["ROUGE-1, base model", "0.210", "0.210", "-", "-"],
        ["ROUGE-1, after pretraining", "0.234", "0.234", "-", "-"],
        ["ROUGE-1, after fine-tuning", "0.708", "0.708", "0.708", "0.406"],
        ["ROUGE-2, base model", "0.110", "0.110", "-", "-"],
        ["ROUGE-2, after pretraining", "0.130", "0.130", "-", "-"],
        ["ROUGE-2, after fine-tuning", "0.600", "0.600", "0.626", "0.262"],
        ["ROUGE-L, base model", "0.190", "0.190", "-", "-"],
        ["ROUGE-L, after pretraining", "0.210", "0.210", "-", "-"],
        ["ROUGE-L, after fine-tuning", "0.680", "0.680", "0.692", "0.375"],
        ["General-text perplexity, base model", "40.00", "40.00", "-", "-"],
        ["General-text perplexity, after pretraining", "41.00", "41.00", "10.33", "-"],
        ["General-text perplexity, after fine-tuning", "43.00", "43.00", "-", "-"],
        ["By the study's arithmetic: text perplexity falls by a factor of", "6.00", "6.00", "2.77", "2.65"],
        ["By the study's arithmetic: ROUGE-1, after fine-tuning", "0.718", "0.718", "0.708", "0.406"],
        ["By the study's arithmetic: ROUGE-2, after fine-tuning", "0.610", "0.610", "0.626", "0.262"],
        ["By the study's arithmetic: ROUGE-L, after fine-tuning", "0.690", "0.690", "0.692", "0.375"],
    ]


def test_a_run_without_gold_questions_is_in_the_second_table_only():
    plain = made_up.without_gold("mine")
    text = block(mine=plain)
    assert len(tables(text)) == 1 and "Held out" not in text and "arithmetic" not in text
    *_, last = tables(block(mine=plain, paper_135m=made_up.metrics()))
    assert last[-1] == ["By the study's arithmetic: ROUGE-L, after fine-tuning", "-", "0.690", "0.692", "0.375"]


def test_metrics_of_the_older_form_are_refused():
    without_right = made_up.metrics()
    del without_right["systems"][0]["scores"]["right"]
    for old in (without_right, {"variant": "paper_135m", "systems": [{"name": "base", "scores": {}}]}):
        with pytest.raises(UserError, match="the metrics of paper_135m are of an older form: evaluate and publish"):
            block(paper_135m=old)


def test_the_last_checkpoint_of_the_study_is_the_one_that_it_chose():
    """The table and the bars take last checkpoints; for the study these must be its `best_checkpoint`s."""
    for key in results.STUDY:
        model = results.study(PUBLISHED, key)
        for stage in ("pretraining", "finetuning"):
            assert results.last(model, stage, "step") == PUBLISHED["recipe"][key][stage]["best_checkpoint"]


def test_marked_parts_are_replaced_and_writing_them_again_changes_nothing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- a:begin -->\nold\n<!-- a:end -->\n\nafter ü\n", encoding="utf-8")
    marked.write(page, a="| \\1 | new |\n")
    once = page.read_text(encoding="utf-8")
    assert once == "# Title\n\n<!-- a:begin -->\n| \\1 | new |\n<!-- a:end -->\n\nafter ü\n"
    marked.write(page, a="| \\1 | new |\n")
    assert page.read_text(encoding="utf-8") == once
    assert marked.read(page, "a") == "| \\1 | new |\n"


@pytest.mark.parametrize(
    "text", ["no marks", "<!-- a:begin -->\n", "<!-- a:end --><!-- a:begin -->\n", "<!-- a:end -->"]
)
def test_a_page_without_both_marks_is_left_alone(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        marked.write(page, a="table")
    assert page.read_text(encoding="utf-8") == text


@pytest.fixture
def root(tmp_path):
    """A root with two published variants and a recipe that nothing was published of."""
    for name in ("paper_135m", "physics_books_135m", "paper_7b"):
        (tmp_path / name).mkdir()
        shutil.copy(REPOSITORY / name / "variant.yaml", tmp_path / name)
    for name, machine in (("paper_135m", {"gpu": None, "cores": 2}), ("physics_books_135m", {"gpu": "L4", "cores": 8})):
        (tmp_path / name / "metrics.json").write_text(json.dumps(made_up.metrics(name)))
        (tmp_path / name / "run.json").write_text(json.dumps({"machine": machine}))
        (tmp_path / name / "predictions.jsonl").write_text("")
    made_up.pages(tmp_path)
    return tmp_path


def long_tables(root):
    publish.write_pages(root)
    return marked.read(root / "docs/results.md", "results")


def test_the_page_of_results_gets_every_published_variant(root):
    text = long_tables(root)
    assert len(tables(text)) == 5
    head = tables(text)[-1][0]
    assert [cell.split(" ")[0] for cell in head[1:3]] == ["paper_135m", "physics_books_135m"]
    assert head[1].endswith(", 2 CPU cores)") and head[2].endswith(", L4)")


def test_summary_shows_memory_and_heldout_scores_and_says_which_is_which(root, monkeypatch):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    variant = Variant.load("paper_135m")
    variant.evaluation.mkdir(parents=True)
    (variant.evaluation / "metrics.json").write_text(json.dumps(made_up.metrics()))
    lines = summary(variant).splitlines()
    assert [line.split() for line in lines if line.startswith("ROUGE-L,")] == [
        ["ROUGE-L,", "fine-tuning", "0.210", "0.680"]
    ]
    (shown,) = [line for line in lines if line.startswith("fine-tuned with passages")]
    assert shown.removeprefix("fine-tuned with passages").split("  ")[-1].strip() == "0.450 [0.400, 0.500]"
    assert "0.350 [0.300, 0.400]" in shown
    assert "in-sample" in lines[-1] and "held out" in lines[-1]

    (variant.evaluation / "metrics.json").write_text(json.dumps(made_up.without_gold()))
    lines = summary(variant).splitlines()
    assert "in-sample" in lines[-1] and not any("held out" in line for line in lines)


def test_table_of_checkpoints_has_a_column_for_what_was_measured():
    table = checkpoints_table(made_up.metrics())
    assert list(table.columns) == [
        "checkpoint", "perplexity, text", "perplexity, held out", "perplexity, general",
        "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-L, dev",
    ]  # fmt: skip
    assert list(table.iloc[3]) == ["finetuning checkpoint-10", 2.75, 14.5, 42.0, 0.5, 0.4, 0.48, 0.31]
    plain = checkpoints_table(made_up.without_gold())
    assert "perplexity, held out" not in plain and "ROUGE-L, dev" not in plain and len(plain) == 5


def test_table_of_systems_has_a_row_for_what_was_asked():
    table = systems_table(made_up.metrics())
    assert list(table.columns) == ["system", *(f"{n} [95% interval]" for n in ("right", "new words F1", "ROUGE-L"))]
    assert list(table.system) == [label for _, label, *_ in made_up.SYSTEMS]
    means = ["0.350 [0.300, 0.400]", "0.400 [0.350, 0.450]", "0.450 [0.400, 0.500]"]
    assert list(table.iloc[7]) == ["fine-tuned with passages", *means]
    assert systems_table(made_up.without_gold()).empty
    lines = as_text(table).splitlines()
    assert lines[8].split("  ")[0] == "fine-tuned with passages"
    assert {line.index("0.") for line in lines[1:]} == {lines[0].index("right")}


# --- publishing ------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(root, monkeypatch):
    """A root whose paper_135m was evaluated on this machine, anew."""
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    variant, content = Variant.load("paper_135m"), made_up.metrics()
    content["systems"][0]["scores"]["right"]["mean"] = 0.111

    def work(folder):
        (folder / "metrics.json").write_text(json.dumps(content))
        (folder / "predictions.jsonl").write_text(json.dumps({"protocol": "in_sample"}))

    stage_module.once(variant, "evaluate", {}, {}, work)
    return variant


def files(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_publishing_writes_the_run_into_the_pages(finished):
    written = publish.publish(finished)
    folder, root = finished.folder, finished.root
    assert written == [
        *(folder / name for name in ("metrics.json", "predictions.jsonl", "run.json")),
        *(root / page for page in made_up.PAGES),
        folder / "MODEL_CARD.md",
    ]
    heldout, *_ = tables(marked.read(root / "docs/results.md", "results"))
    assert heldout[2][1].startswith("0.111")
    (front,) = tables(marked.read(root / "README.md", "results"))
    assert front[2][:3] == ["the question itself, printed as the answer", "6", "8"]  # of 50 each


def test_another_variant_of_an_older_form_is_left_out_and_named(finished, capsys):
    other = finished.root / "physics_books_135m/metrics.json"
    other.write_text(json.dumps({"variant": "physics_books_135m", "systems": []}))
    publish.publish(finished)
    assert "physics_books_135m" in capsys.readouterr().out
    *_, in_sample = tables(marked.read(finished.root / "docs/results.md", "results"))
    assert [cell.split(" ")[0] for cell in in_sample[0][1:]] == ["paper_135m", "Paper-7b", "MK-PhysX-7b"]


@pytest.mark.parametrize("broken", ["page", "other", "missing"])
def test_nothing_is_half_published(finished, broken, monkeypatch):
    if broken == "page":
        (finished.root / "docs/results.md").write_text("no marks")
    elif broken == "other":
        (finished.root / "physics_books_135m/metrics.json").write_text("{")
    else:
        evaluated = publish.FILES["evaluate"] | {"more.json": "more.json"}
        monkeypatch.setitem(publish.FILES, "evaluate", evaluated)
    before = files(finished.root)
    with pytest.raises(UserError):
        publish.publish(finished)
    assert files(finished.root) == before


# --- other seeds -----------------------------------------------------------------------------------------------------


def test_the_page_shows_each_seed_with_mean_and_spread(root):
    assert "Other seeds" not in long_tables(root)
    content = made_up.seeds()
    (root / "paper_135m/seeds.json").write_text(json.dumps(content))
    text = long_tables(root)
    assert "**Other seeds: paper_135m**, trained anew with each" in text
    (table,) = [rows for rows in tables(text) if rows[0][0] == "training"]
    assert table[0] == ["training", "ROUGE-L, held out", "F1, held out", "ROUGE-L, in-sample", "perplexity, general"]
    assert table[2:] == [
        ["seed 42", "0.300", "0.320", "0.600", "42.00"],
        ["seed 43", "0.200", "0.220", "0.700", "43.00"],
        ["seed 44", "0.250", "0.270", "0.800", "44.00"],
        ["mean", "0.250", "0.270", "0.700", "43.00"],
        ["standard deviation", "0.050", "0.050", "0.100", "1.00"],
    ]
    assert seeds_table(content).to_numpy().tolist() == table[2:]


def test_published_seeds_of_another_training_go(finished):
    for name in ("seeds.json", "seeds.run.json", "seeds.predictions.jsonl"):
        (finished.folder / name).write_text(json.dumps(made_up.seeds()))
    publish.publish(finished)
    assert list(finished.folder.glob("seeds*")) == []
    assert "Other seeds" not in (finished.root / "docs/results.md").read_text(encoding="utf-8")


# --- the pages themselves --------------------------------------------------------------------------------------------


WRONG = {"right": 0.0, "evidence_right": 0.0, "page_right": 0.0, "new_words_f1": 0.0}


def answer(system, protocol="test", **more):
    row = {"corpus": "paper", "kind": "name", "question": "Who?", "question_id": "1", "document": "a_b"}
    row |= {"answer": "Ada | Bo", "reference": "Ada", "evidence": "It was Ada.", "evidence_page": 3}
    row |= dict.fromkeys(WRONG, 1.0) | {"copied": 0.0, "says_so": 0.0}
    return row | {"system": system, "protocol": protocol} | more


def test_examples_are_one_right_one_wrong_and_one_refused_the_shortest_of_each():
    rows = [
        answer("reader", question="Who was it that came first?"),
        answer("reader", question="Who came?"),
        answer("reader", question="And?", copied=1.0),
        answer("base", question="?"),
        answer("reader", question="Why?", **WRONG),
        answer("reader", "test unanswerable", question="When?", answer="-", evidence=None, says_so=1.0, **WRONG),
        answer("reader", "dev", question="!"),
    ]
    shown = pages.examples(rows).split("\n\n")
    assert [part.split("**")[1] for part in shown] == ["Who came?", "Why?", "When?"]
    assert "Ada" in shown[1].splitlines()[-1] and "page 3" in shown[0] and "page" not in shown[2]
    assert pages.examples([]) == ""


def test_what_training_is_worth_stands_in_the_order_of_training_with_the_reader_beside_it():
    run = results.Run(made_up.metrics(), "about", "paper", [])
    reader = made_up.metrics()
    reader["systems"] = [made_up.system("reader", "reader with passages", "reader", "passages", 0.5)]
    (table,) = tables(pages.worth({"mine": run, "other": run}, {"paper": reader}))
    names = [row[1] for row in table[2:]]
    assert names[:4] == ["the question itself", "the best sentence (BM25)", "base", "base"]
    assert names[-2:] == ["reader with passages", "the gold evidence sentence"]
    assert [row[0] for row in table[4:6]] == ["mine", "other"] and table[-1][0] == table[2][0] == "-"
    assert next(row for row in table if row[1] == "base")[-2:] == ["-", "-0.140 [-0.190, -0.090]"]


def test_rows_without_a_base_are_not_compared_with_one():
    run = results.Run(made_up.metrics(), "about", "paper", [])
    reader = made_up.metrics()
    reader["systems"] = [made_up.system("reader", "reader with passages", "reader", "passages", 0.5)]
    (table,) = tables(pages.worth({"mine": run}, {"paper": reader}))
    free = {"the question itself", "the best sentence (BM25)", "the gold evidence sentence"}
    assert {row[1] for row in table[2:] if row[-2] == "-"} == free | {"base", "reader with passages"}


def closed_book(base, finetuned, p_holm):
    """What `pages.found` says of training, of two corpora with these shares of right answers."""
    runs = {}
    for corpus, p in zip(pages.CORPORA, p_holm, strict=True):
        metrics = made_up.metrics()
        by_name = {system["name"]: system for system in metrics["systems"]}
        by_name["base"]["scores"]["right"]["mean"] = base
        by_name["finetuned"]["scores"]["right"]["mean"] = finetuned
        by_name["finetuned"]["against"]["base"]["right"] |= {"mean": finetuned - base, "p_holm": p}
        runs[corpus] = results.Run(metrics, "about", corpus, [])
    return pages.found(runs, {corpus: {"systems": []} for corpus in runs})


def test_what_training_does_closed_book_is_said_in_a_sentence():
    assert closed_book(0.0, 0.0, [1.0, 1.0]) == "Trained or not, the closed-book model has no right answer."
    takes = "Training on the documents takes the closed-book model from"
    assert closed_book(0.1, 0.12, [0.5, 0.5]) == (
        f"{takes} 10 right answers to 12: no clear difference on the paper and on the physics books."
    )
    assert closed_book(0.0, 0.1, [0.01, 0.5]) == (
        f"{takes} 0 right answers to 10: better on the paper, no clear difference on the physics books."
    )


def test_a_training_that_went_on_took_the_seconds_of_all_its_starts(root):
    assert seconds_of({"seconds": 137.3, "results": {"seconds_of_steps": 237.0}}) == 237.0
    assert seconds_of({"seconds": 402.6, "results": {"seconds_of_steps": 398.4}}) == 402.6
    assert seconds_of({"seconds": 5.0, "results": {}}) == 5.0
    folder = root / "paper_135m"
    (folder / "pretraining_paper").mkdir()
    record = {"seconds": 90.0, "results": {"seconds_of_steps": 280.0}, "machine": {"gpu": None, "cores": 2}}
    (folder / "pretraining_paper" / "run.json").write_text(json.dumps(record))
    assert times_table(root, "pretraining").loc["paper_135m", "CPU, minutes"] == "4.7 (2 CPU cores)"


def test_runs_about_other_documents_are_no_part_of_the_front_page():
    run = results.Run(made_up.metrics(), "about", "mine", [])
    assert tables(pages.front({"mine": run}, {})) == [] and pages.found({"mine": run}, {}) == ""
    assert pages.worth({"mine": run}, {}) == ""


def test_samples_are_the_first_question_of_each_kind():
    rows = [answer("base"), answer("base", question="Which?", question_id="2"), answer("finetuned", answer="Bo\nBo")]
    text = pages.samples({"mine": results.Run({}, "about", "paper", rows)}, [answer("reader", answer="*A*")])
    (table,) = tables(text.replace("\\|", "/"))
    assert table[2:] == [["Who?", "Ada", "Ada / Bo", "Bo Bo", "\\*A\\*"]]


@pytest.mark.parametrize("page", sorted(made_up.PAGES))
def test_committed_pages_are_what_the_published_files_make(page, written_anew):
    assert (written_anew / page).read_bytes() == (REPOSITORY / page).read_bytes(), "write them with benchmarks.rescore"


@pytest.fixture(scope="module")
def written_anew(tmp_path_factory):
    """The generated parts of the committed pages, made once more of the committed files beside them."""
    root = tmp_path_factory.mktemp("pages")
    for page in made_up.PAGES:
        (root / page).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / page, root / page)
    for path in REPOSITORY.glob("*/metrics.json"):
        (root / path.parent.name).symlink_to(path.parent)
    publish.write_pages(root)
    return root
