"""Turns titles into the last part of a URL."""

import re
import unicodedata


def slugify(title: str, max_length: int = 60) -> str:
    """Return `title` in lower case, with one hyphen between words and no accents.

    The result has at most `max_length` characters and neither starts nor ends with a hyphen.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode("ascii")
    slug = re.sub(r"[^a-z0-9]", "-", plain.lower())
    return slug.strip("-")[:max_length].rstrip("-")
