import threading

import pytest

from pinxit.train.early_work import begun


def test_work_runs_beside_its_caller_until_the_result_is_needed():
    caller_goes_on = threading.Event()

    def work() -> str:
        assert caller_goes_on.wait(10)
        return threading.current_thread().name

    result = begun(work, name="compile")
    caller_goes_on.set()
    assert result.result(10).startswith("pinxit-compile")


def test_an_error_comes_with_the_result():
    result = begun(lambda: 1 / 0, name="state")
    with pytest.raises(ZeroDivisionError):
        result.result(10)
