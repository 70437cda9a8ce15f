"""The place at which a text encoder cuts a prompt that is too long."""

from __future__ import annotations

from pinxit.arrays import TextEncoder

SHOWN = 3
"""Number of words that the warning shows on each side of the cut."""


def cut_warning(text_encoder: TextEncoder, prompt: str, *, field: str = "prompt") -> str | None:
    """Returns a warning with the last words that are read and the first that are not, or None."""
    read = characters_read(text_encoder, prompt)
    if read == len(prompt):
        return None
    before = " ".join(prompt[:read].split()[-SHOWN:])
    after = " ".join(prompt[read:].split()[:SHOWN])
    return (
        f"{field}: longer than the {text_encoder.max_tokens} tokens that the text encoder reads; "
        f"the last words that are read are {before!r}, and everything from {after!r} is ignored"
    )


def characters_read(text_encoder: TextEncoder, prompt: str) -> int:
    """Returns the number of characters at the start of a prompt that the text encoder reads.

    The cut is put at the beginning of a word, unless there is none before it.
    """
    if not text_encoder.truncated([prompt])[0]:
        return len(prompt)
    fits, cut = 0, len(prompt)
    while cut - fits > 1:
        middle = (fits + cut) // 2
        if text_encoder.truncated([prompt[:middle]])[0]:
            cut = middle
        else:
            fits = middle
    if prompt[fits : fits + 1].isspace():
        return fits
    start = max((i + 1 for i, letter in enumerate(prompt[:fits]) if letter.isspace()), default=0)
    return start or fits
