"""What is named on the terminal: somebody's documents or a variant. Light, so that a mistake is told at once."""

from __future__ import annotations

import os
from pathlib import Path

from llama_qna import UserError
from llama_qna.documents.folder import SUFFIXES
from llama_qna.project.variant import Variant, root_in_use


def named(name: str) -> Path | Variant:
    """The documents or the variant of a name; of the same name the variant.

    Raises:
        UserError: it is neither, or the variant cannot be read.
    """
    is_variant = "/" not in name.rstrip("/") and os.path.isfile(root_in_use() / name / "variant.yaml")
    signs = "/" in name or name.startswith((".", "~")) or Path(name).suffix.lower() in SUFFIXES
    if not is_variant and (signs or name and os.path.exists(name)):
        return Path(name)
    try:
        return Variant.load(name)
    except (UserError, OSError) as error:
        if is_variant:
            raise
        reason = error if isinstance(error, UserError) else f"{name[:60]!r}... is no variant"  # its name is too long
        raise UserError(f"there is no file or folder of that name here; and {reason}") from None
