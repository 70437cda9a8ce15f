"""All caches are below one folder, which a variable of the desktop's standard moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from pinxit.cli import cpu_products
from pinxit.data.sources.tables import machine_cache
from pinxit.evaluate import feature_cache
from pinxit.plan import compile_cache, vendor_compilers
from pinxit.user_cache import user_cache


def test_all_caches_are_below_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in ("PINXIT_FEATURES", "PINXIT_PLANS", "PINXIT_COMPILERS", "PINXIT_TABLES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tables = machine_cache.machine_cache()
    assert tables is not None
    found = {
        *(feature_cache.feature_cache(), compile_cache.cache_folder(), tables.folder),
        *(cpu_products.products_file(), vendor_compilers.compiler_folder("tpu").parent),
    }
    names = ("features", "plans", "tables", "products.json", "compilers")
    assert found == {tmp_path / "pinxit" / name for name in names}
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache("xla") == Path.home() / ".cache" / "pinxit" / "xla"
