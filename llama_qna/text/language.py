"""Which language a text is in."""


def language_of(text: str) -> str:
    """An ISO 639-1 code, or an empty string where it cannot be told."""
    return ""
