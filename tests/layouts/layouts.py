"""The layouts, which `data/layouts.yaml` lists, and the function that builds one."""

from pathlib import Path

import yaml

from . import drawn_writer, typst_writer
from .model import Case, Layout
from .texts import prepare, truth

PRODUCERS = {"t": "typst", "r": "reportlab"}


def _read() -> list[Layout]:
    listed = yaml.safe_load((Path(__file__).parent / "data" / "layouts.yaml").read_text(encoding="utf-8"))
    return [
        Layout(
            name,
            PRODUCERS[name[0]],
            about["text"],
            about["tries"],
            **{key: tuple(value) if isinstance(value, list) else value for key, value in about["settings"].items()},
        )
        for name, about in listed.items()
    ]


LAYOUTS = _read()


def build(layout: Layout, folder: Path | str) -> Case:
    """Write the PDF of a layout into the folder and tell what is in it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, document = folder / f"{layout.name}.pdf", prepare(layout)
    writer = typst_writer if layout.producer == "typst" else drawn_writer
    absent, notes = writer.write(document, layout, path)
    known = truth(document, layout)
    known["notes"] += notes
    return Case(layout.name, path, document.title, absent=absent, language=document.language, **known)
