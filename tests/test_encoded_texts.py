"""Each text of a call is encoded once, in chunks of one size."""

from __future__ import annotations

import numpy as np

from pinxit.arrays import Conditioning
from pinxit.encoded_texts import EncodedTexts


class Counting:
    """An encoder whose only token is the text's length."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts):
        self.calls.append(list(texts))
        lengths = np.array([[[float(len(text))]] for text in texts], np.float32)
        return Conditioning(tokens=lengths, mask=np.ones((len(texts), 1), bool))


def test_a_text_is_encoded_once_however_often_it_is_used():
    encode, uses = Counting(), ["a", "", "bb", "", "a", ""]
    texts = EncodedTexts(encode, uses, chunk=1)
    rows = [texts.rows(uses[i : i + 2]) for i in (0, 2, 4)]
    assert encode.calls == [["a"], [""], ["bb"]]
    assert [row.tokens.ravel().tolist() for row in rows] == [[1, 0], [2, 0], [1, 0]]
    assert rows[0].mask.shape == (2, 1)


def test_all_chunks_have_one_size_and_hold_the_next_texts():
    encode, uses = Counting(), ["a", "bb", "ccc", "a", "dddd", "eeeee"]
    texts = EncodedTexts(encode, uses, chunk=3)
    assert texts.rows(uses[:2]).tokens.ravel().tolist() == [1, 2]
    assert encode.calls == [["a", "bb", "ccc"]]
    assert texts.rows(uses[2:]).tokens.ravel().tolist() == [3, 1, 4, 5]
    assert encode.calls[1:] == [["dddd", "eeeee", "eeeee"]]


def test_a_text_is_forgotten_after_its_last_use():
    uses = ["a", "bb", "a", "ccc"]
    texts = EncodedTexts(Counting(), uses, chunk=1)
    texts.rows(uses[:2])
    assert list(texts._encoded) == ["a"]
    texts.rows(uses[2:])
    assert not texts._encoded
