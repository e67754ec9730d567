"""Questions from the terminal: as words, from standard input, in a file of questions, or in a conversation."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from llama_qna import UserError
from llama_qna.answering.answerer import Prompter
from llama_qna.answering.retrieval import Answer
from llama_qna.project.files import locked, write_text
from llama_qna.project.systems import SYSTEMS, is_given_passages, model_of
from llama_qna.serving.library import SYSTEM, Library, told
from llama_qna.text.tables import delimiter_of, plain_line_ends

COLUMNS = ["question", "system", "model", "answer", "evidence", "sources"]
HELP = "A question is answered; /system NAME changes the system, /sources shows the passages or not, /quit leaves."


def ask(answerer, questions: list[str], system: str, with_sources: bool) -> Iterator[str]:
    """The lines to print for some questions: of one question the answer, of several each with its answer.

    An answer with evidence comes with the sentence and its page; of one that the documents do not give the place is
    named where they come nearest to it.
    """
    for question, answer in zip(questions, answerer.answer(questions, system), strict=True):
        text = str(told(answerer, answer))
        yield printable(f"Question: {question}\nAnswer: {text}" if len(questions) > 1 else text)
        if with_sources:
            yield sources_text(answerer, question, system, answer)


def ask_file(answerer: Prompter, source: Path, target: Path, system: str) -> int:
    """Answer a CSV of questions into another; what stands there already, answered by the same model, is kept.

    The target is rewritten after every batch and is whole at any time. Rows of other systems and models stay, so that
    several can be compared in one file.

    Args:
        source: has a column `question`, in any case; its fields are parted by `,`, `;`, tab or `|`.
        target: gets the columns of `COLUMNS`.

    Returns:
        How many questions were answered now.

    Raises:
        UserError: a file cannot be read or written, the target is damaged or written by another process at this time,
            or a question is empty or too long.
    """
    questions = _questions(source, answerer, system)
    folder = target.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{target}: its folder is not there, or may not be written to")
    with locked(folder, target.name, folder, lock=f".{target.name}.lock"):  # who answers beside us would be overwritten
        return _answer_into(target, questions, answerer, system)


def _answer_into(target: Path, questions: list[str], answerer: Prompter, system: str) -> int:
    """Answer the questions that have no row in the target yet; how many."""
    rows = _answered(target)
    model = answerer.label(system)
    known = {tuple(row[:3]) for row in rows}
    missing = [question for question in dict.fromkeys(questions) if (question, system, model) not in known]
    if missing or not target.is_file():
        _write(target, rows)  # before anything is answered that could not be kept
    with tqdm(total=len(questions), initial=len(questions) - len(missing), desc="answers", unit="question") as bar:
        for start in range(0, len(missing), answerer.batch_size):
            batch = missing[start : start + answerer.batch_size]
            for question, answer in zip(batch, answerer.answer(batch, system), strict=True):
                places = " | ".join(f"{source.place} ({source.chunk_id})" for source in answer.sources)
                evidence = " ".join(told(answerer, answer).place.split()) if answer.evidence else ""
                rows.append([question, system, model, *map(printable, (answer.text, evidence, places))])
            _write(target, rows)
            bar.update(len(batch))
    return len(missing)


def converse(answerer: Prompter, system: str, with_sources: bool) -> None:
    """Ask and answer until the end of the input; every question is on its own, as in training."""
    import readline  # noqa: F401 - input() then has a history and editing

    model_of(system)  # refuses one that is not there
    print(f"{answerer.name}, {system}. {HELP}")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if line == "/quit":
            return
        if line == "/sources":
            with_sources = not with_sources
            print(f"passages are {'shown' if with_sources else 'not shown'}")
        elif line.startswith("/system"):
            system = _chosen(answerer, line.removeprefix("/system").strip(), system)
        elif line.startswith("/"):
            print(HELP)
        elif line:
            _converse_once(answerer, line, system, with_sources)


def _converse_once(answerer: Prompter, question: str, system: str, with_sources: bool) -> None:
    try:
        if answerer.reads(system):  # its answer and its evidence are there at once
            print("\n".join(ask(answerer, [question], system, with_sources)))
            return
        for piece in answerer.stream(question, system):
            print(printable(piece), end="", flush=True)
        print()
        if with_sources:
            print(sources_text(answerer, question, system))
    except UserError as error:
        print(error)
    except KeyboardInterrupt:
        print("\nstopped")


def _chosen(answerer, wanted: str, system: str) -> str:
    systems = (SYSTEM,) if isinstance(answerer, Library) else SYSTEMS
    chosen = wanted if wanted in systems else system
    print(f"{chosen} (there are: {', '.join(systems)})")
    return chosen


def sources_text(answerer: Prompter, question: str, system: str, answer: Answer | None = None) -> str:
    """The passages that a system was given, or, of one without any, those that a reader may look into."""
    given = is_given_passages(system)
    sources = answer.sources if given and answer else answerer.sources(question)
    heading = "Answered from:" if given else "The model was given no passage; these were found:"
    lines = [heading] if sources else ["No passage shares a word with the question."]
    lines += [f"  {source.place} ({source.chunk_id})\n    {source.text}" for source in sources]
    return printable("\n".join(lines))


def printable(text: str) -> str:
    """A text without control characters: a document may hold some that steer a terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


def piped_questions(lines: Iterable[str]) -> list[str]:
    """One question a line; empty lines do not count.

    Raises:
        UserError: there is none.
    """
    questions = [text for line in lines if (text := line.replace("\ufeff", "").strip())]  # the mark of a file in UTF-8
    if not questions:
        raise UserError("no question: give one in quotes, or one a line on standard input, or --input FILE")
    return questions


def _questions(path: Path, answerer: Prompter, system: str) -> list[str]:
    """The questions of a CSV, each checked before any is answered."""
    table = _read_csv(path, any_delimiter=True)
    names = [name.strip().lower() for name in table[0]] if table else []
    if "question" not in names:
        raise UserError(f"{path}: no column `question`; there are: {', '.join(names) or 'none'}")
    place, questions = names.index("question"), []
    for number, row in enumerate(table[1:], start=1):
        try:
            answerer.check(row[place], system)
        except UserError as error:
            raise UserError(f"{path}, row {number}: {error}") from None
        questions.append(plain_line_ends(row[place]).strip())
    return questions


def _answered(path: Path) -> list[list[str]]:
    """The rows of an earlier run; none where the file is not there."""
    if not path.exists():
        return []
    table = _read_csv(path)
    if not table or table[0] != COLUMNS:
        raise UserError(f"{path} is not written by ask: its columns are not {','.join(COLUMNS)}; name another file")
    return table[1:]


def _read_csv(path: Path, any_delimiter: bool = False) -> list[list[str]]:
    """Every row of a CSV, all as long as its first: a row that was torn is not taken for a short one.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()  # once: of a pipe there is no second time
        start = text[: 2**16] if any_delimiter else ""
        delimiter = delimiter_of(start, lambda header: "question" in [name.strip().lower() for name in header])
        lines = io.StringIO(text, newline="")
        rows = csv.reader(lines, strict=True, delimiter=delimiter, skipinitialspace=any_delimiter)
        table = [row for row in rows if row]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged or no CSV in UTF-8 ({error}); nothing was changed") from None
    for number, row in enumerate(table[1:], start=1):
        if len(row) != len(table[0]):
            lengths = f"row {number} has {len(row)} fields, not {len(table[0])}"
            raise UserError(f"{path} is damaged: {lengths}; nothing was changed")
    return table


def _write(path: Path, rows: list[list[str]]) -> None:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows([COLUMNS, *rows])
    try:
        write_text(path, content.getvalue())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def is_piped() -> bool:
    """Whether standard input is a file or a pipe and no terminal."""
    return sys.stdin is not None and not sys.stdin.isatty()
