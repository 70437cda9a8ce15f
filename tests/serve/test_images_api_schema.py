"""The OpenAPI document describes what the server does: schemathesis makes requests from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from studio import RunningStudio

LEFT_OUT = {"positive_data_acceptance"}
"""Checks that do not hold: sizes that fit the document and not the model are refused, and
schemathesis expects other headers of methods that it makes up."""

# the server's threads use Python's random numbers meanwhile, which Hypothesis takes for the test's
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")


def drawing(path: str) -> bool:
    """Returns whether a route is one of this API."""
    return path.startswith("/v1/")


def check_operations(studio: RunningStudio, examples: int) -> int:
    """Makes requests of each operation, valid and invalid ones, and checks the answers."""
    schema = schemathesis.openapi.from_url(f"{studio.url}/openapi.json")
    chosen = [check for check in checks.CHECKS.get_all() if check.__name__ not in LEFT_OUT]
    operations = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if not drawing(operation.path):
            continue
        operations += 1
        check_operation(operation, studio.url, chosen, examples)
    return operations


def check_operation(operation: Any, url: str, chosen: list[Callable], examples: int) -> None:
    """Makes requests of one operation."""

    @given(case=operation.as_strategy())
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def request(case: Any) -> None:
        case.call_and_validate(base_url=url, checks=chosen, timeout=60)

    request()


def test_requests_made_from_the_document(studio):
    assert check_operations(studio, 2) == 10


@pytest.mark.slow
def test_many_requests_made_from_the_document(studio):
    assert check_operations(studio, 150) == 10


def test_the_document_names_every_error(studio):
    document = httpx.get(f"{studio.url}/openapi.json").json()
    for path, methods in document["paths"].items():
        if not drawing(path):
            continue
        for method, operation in methods.items():
            answers = operation["responses"]
            assert {"400", "401", "403", "500"} <= set(answers), (method, path)
            if method == "post":
                assert {"404", "413", "415", "429", "503"} <= set(answers), path
                assert operation["requestBody"]["required"] is True
            for status, answer in answers.items():
                if status >= "400":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema["$ref"].endswith("/ErrorAnswer"), (method, path, status)
