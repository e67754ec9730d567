"""Small PDFs in many layouts, written from texts whose every paragraph is known."""

from .layouts import LAYOUTS, build
from .model import Case, Layout

__all__ = ["LAYOUTS", "Case", "Layout", "build"]
