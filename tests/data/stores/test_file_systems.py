"""URLs of stores: the ones that are refused, and the packages that each needs."""

from __future__ import annotations

import pytest

from pinxit.config import UsageError
from pinxit.data.stores.file_systems import masked, open_file_system
from pinxit.data.stores.remote_store import RemoteStore


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "names no bucket"),
        ("gs:///", "names no bucket"),
        ("https://me:secret@host/set", r"https://…@host/set is refused: it holds a password"),
        ("https://host/set?X-Amz-Signature=secret", r"https://host/set\?… is refused"),
        ("pipe:cat /etc/passwd", "is refused"),
        ("simplecache::s3://bucket/a", "is refused"),
        ("nonsense://bucket/a", "no file system for nonsense://"),
    ],
)
def test_a_url_that_cannot_be_a_root_is_refused(url: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        RemoteStore(url).exists("a")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "package", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs")]
)
def test_a_missing_package_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, protocol: str, package: str, extra: str
):
    def missing(name: str) -> type:
        raise ImportError(f"Install {package} to access {name}")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(UsageError, match=rf"{protocol}://bucket.*pip install.*\[{extra}\]"):
        open_file_system(f"{protocol}://bucket/set", parallel=1)


def test_secrets_of_urls_are_masked_in_texts():
    text = "GET https://me:word@host/a?sig=1 failed, s3://bucket/b did not"
    assert masked(text) == "GET https://…@host/a?… failed, s3://bucket/b did not"
