"""The seam between a run and its data: a `Feed`, whatever the data are.

Three classes implement it: `InMemoryFeed` (rows drawn by code), `PreparedFeed` (a folder made by
``pinxit prepare``) and `StreamedFeed` (images fetched while training). `open.py` chooses.

A row has one name at each stage of its way into a step::

    Row         a row of a source, before anything is spent on it         pinxit.data.row
    Attempt     a row whose image a stream wants, with its serial number  attempt_order
    RowImage    an attempt with its decoded image                         image_stream
    EncodedRow  an attempt with its columns                               streamed_loader
    columns     arrays by name: one column of images, those of the text, and "index"
    Batch       latents and conditioning, inside the step                 pinxit.arrays

Rows in memory and prepared rows begin at the columns. The images of a batch are one of two columns,
"latents" or "images": `pinxit.data.image_column` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from pinxit.arrays import Example
from pinxit.encoders.text_columns import TextColumns
from pinxit.train.loop import Batches


@runtime_checkable
class Feed(Protocol):
    """A run's data: its batches, its held-out rows, and its position in the data.

    Classes inherit from this one; what they do not override does nothing or returns nothing.
    """

    loader: Batches
    """The batches, addressed by step."""
    text: TextColumns
    """The reader of the batches' text columns inside the step."""
    text_columns: Mapping[str, Any]
    """The text columns of one or more rows; their lengths determine those of the empty prompt."""

    def begin(self) -> None:
        """Is called once before the first batch, when the run's folder exists."""
        return

    def watch(self, interrupted: Callable[[], bool]) -> None:
        """Receives a callback that returns True once the run should stop, so that waiting for data
        can be cancelled."""
        return

    def held_out(self) -> Sequence[Example]:
        """Returns the rows for the validation loss, which are never trained on."""
        ...

    def position(self, step: int) -> Any:
        """Returns the position in the data after `step` steps, as JSON for a checkpoint."""
        ...

    def figures(self) -> dict[str, float]:
        """Returns values about the data for a row of metrics."""
        return {}

    def results(self) -> dict[str, Any]:
        """Returns statistics about the data for the report."""
        return {}

    def ended(self) -> str:
        """Returns why there are no more batches, or "" if the data have not ended early."""
        return ""
