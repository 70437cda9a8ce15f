"""Words are counted in captions of every script, and those of English as ever."""

import random

import pytest

from pinxit.data.filters.histograms import measure_row
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.filters.word_count import count_words
from pinxit.data.row import Row


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        # the number that is counted, beside the words as a person separates them
        ("一只橙色的猫坐在红色的沙发上", 7),  # 一只 橙色的 猫 坐在 红色的 沙发 上
        ("雪山日落\uff0c湖面倒影", 4),  # 雪山 日落 湖面 倒影
        ("猫", 1),
        ("京都の寺院と桜", 4),  # 京都 の 寺院 と 桜
        ("海辺を走る犬の写真", 5),  # 海辺 を 走る 犬 の 写真
        ("カタカナ・テスト", 4),
        ("แมวสีส้มนอนบนโซฟา", 5),  # แมว สีส้ม นอน บน โซฟา
        ("ສາວນ້ອຍໃນສວນດອກໄມ້", 5),
        ("빨간 집 앞의 작은 고양이", 5),
        ("iPhone 15 手机壳", 4),  # iPhone, 15, and three characters
        ("寿司 sushi", 2),
        ("東京tokyo2020年", 3),
        ("красный дом под луной", 4),
        ("بيت أحمر صغير", 3),
        ("", 0),
        (" \n\t", 0),
        ("。。。", 1),  # as white space counts it
    ],
)
def test_captions_of_many_scripts(caption, words):
    assert count_words(caption) == words


def test_captions_with_spaces_are_counted_by_white_space_alone():
    words = ["한국", "дом", "بيت", "\u00a0", "\u2028", "\t\n", "\u2014", " ", "  "]
    random.seed(0)
    for _ in range(2_000):
        caption = "".join(
            random.choice([*"abcXYZ12.,-'éß😀", *words]) for _ in range(random.randrange(1, 30))
        )
        assert count_words(caption) == len(caption.split())


@pytest.mark.parametrize("caption", ["红色的房子", "京都の寺院と桜", "แมวสีส้มนอนบนโซฟา"])
def test_a_sentence_without_spaces_passes_the_filter_of_words(caption):
    row = Row(key="00000-000/00000000", url="http://host.test/1.jpg", caption=caption)
    assert measure_row(row)["words"] >= 3
    assert Filter(FilterConfig(min_side=None, min_words=3)).check(row) is None
    short = Row(key="00000-000/00000001", url="http://host.test/2.jpg", caption="猫")
    assert Filter(FilterConfig(min_side=None, min_words=3)).check(short) == "filtered_words"
