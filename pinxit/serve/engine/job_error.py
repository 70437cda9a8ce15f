"""The error that a failed job keeps."""

from __future__ import annotations

import logging

from pinxit.config import UsageError

log = logging.getLogger(__name__)


def job_error(error: BaseException) -> Exception:
    """Returns the error of a job that failed, as an exception without a traceback.

    The frames of a traceback would keep the arrays of the failed picture in memory for as long as
    the job is remembered, so a traceback is logged here instead. Mistakes of the user have none.
    """
    if not isinstance(error, UsageError):
        log.error("a job failed", exc_info=error)
    if not isinstance(error, Exception):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
