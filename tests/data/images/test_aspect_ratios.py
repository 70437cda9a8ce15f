"""Buckets of about one area, and the picture's way to one of them."""

import pytest
from pictures import encoded, scene

from pinxit.data.images.aspect_ratios import make_buckets, nearest_bucket
from pinxit.data.images.decode import ImageConfig, decode


def test_buckets_keep_to_the_area_and_the_ratio():
    assert make_buckets(256) == ((192, 320), (256, 256), (320, 192))
    assert make_buckets(256, max_ratio=1) == ((256, 256),)
    for size, ratio, step in ((512, 2.0, 64), (256, 4.0, 32), (1024, 3.0, 64)):
        buckets = make_buckets(size, max_ratio=ratio, step=step)
        assert [(high, wide) for wide, high in reversed(buckets)] == list(buckets)
        for wide, high in buckets:
            assert wide % step == high % step == 0
            assert size * size * 0.7 < wide * high <= size * size
            assert max(wide, high) <= ratio * min(wide, high)
    with pytest.raises(ValueError, match=r"size: 250 .*multiple of 64"):
        make_buckets(250)


def test_a_step_is_enough_to_ask_for_buckets():
    config = ImageConfig(size=256, bucket_step=64)
    assert config.bucketed and config.targets == make_buckets(256)
    assert ImageConfig(size=256, bucket_step=64, buckets=((8, 8),)).targets == ((8, 8),)
    assert not ImageConfig(size=256).bucketed and ImageConfig(size=8).targets == ((8, 8),)
    with pytest.raises(ValueError, match="multiple of 48"):
        _ = ImageConfig(size=256, bucket_step=48).targets


def test_a_picture_goes_to_the_bucket_of_its_shape():
    buckets = make_buckets(256)
    assert nearest_bucket((500, 500), buckets) == (256, 256)
    assert nearest_bucket((1600, 900), buckets) == (320, 192)
    assert nearest_bucket((10, 4000), buckets) == (192, 320)
    config = ImageConfig(buckets=make_buckets(64, step=16))
    for size in ((90, 90), (120, 70), (70, 120)):
        decoded = decode(encoded(scene(*size)), config)
        wide, high = nearest_bucket(size, config.buckets)
        assert decoded.image.shape == (high, wide, 3)
