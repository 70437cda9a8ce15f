"""Counts the words of a caption, also in scripts that put no spaces between words.

Words are separated by white space. Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan
sentences have none, so that a run of their characters counts as many words as it has on average.
Captions without such characters are counted by white space alone. (Korean has spaces.)
"""

from __future__ import annotations

import itertools
import math

CHARACTERS_PER_WORD: tuple[tuple[int, int, int], ...] = (
    (0x0E01, 0x0EFF, 4),  # Thai, Lao
    (0x0F00, 0x0FFF, 4),  # Tibetan
    (0x1000, 0x109F, 6),  # Burmese
    (0x1780, 0x17FF, 6),  # Khmer
    (0x3005, 0x3007, 2),  # ideographic repetition and zero
    (0x3041, 0x309F, 2),  # Hiragana
    (0x30A1, 0x30FA, 2),  # Katakana
    (0x30FC, 0x312F, 2),  # Katakana, Bopomofo
    (0x31F0, 0x31FF, 2),  # Katakana
    (0x3400, 0x4DBF, 2),  # Chinese characters
    (0x4E00, 0x9FFF, 2),
    (0xF900, 0xFAFF, 2),
    (0xFF66, 0xFF9D, 2),  # Katakana of half width
    (0x20000, 0x3FFFF, 2),
)
"""Ranges of code points (first, last) of scripts without spaces, with the average number of
characters of a word."""
FIRST = chr(CHARACTERS_PER_WORD[0][0])


def count_words(caption: str) -> int:
    """Returns the number of words of a caption, which is an estimate for scripts without spaces."""
    return sum(_words_in(part) for part in caption.split())


def _words_in(part: str) -> int:
    """Returns the number of words in a text without white space."""
    if max(part) < FIRST:
        return 1
    lengths = [_word_length(character) for character in part]
    if not any(lengths):
        return 1
    count, start = 0, 0
    for length, run in itertools.groupby(lengths):
        stop = start + len(list(run))
        if length:
            count += math.ceil((stop - start) / length)
        else:  # a word or a number of another script; punctuation is no word
            count += any(character.isalnum() for character in part[start:stop])
        start = stop
    return count


def _word_length(character: str) -> int:
    """Returns the average length of a word in the character's script, or 0 if it uses spaces."""
    point = ord(character)
    return next((n for first, last, n in CHARACTERS_PER_WORD if first <= point <= last), 0)
