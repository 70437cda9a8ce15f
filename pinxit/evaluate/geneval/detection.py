"""What a detector returns for a picture, and the checks of it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np

from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.geneval.classes import CLASSES, COLOURS
from pinxit.evaluate.user_function import UserFunction, UserFunctionError, as_user_function

OPTION = "detector"
"""The name of the option that names the user's file, for messages."""
DETECT = ("image", "classes")
"""The arguments of the user's ``detect``."""
COLOUR_OF = ("image", "detection")
"""The arguments of the user's ``colour_of``."""


@dataclass(frozen=True, eq=False)
class Detection:
    """An object that a detector sees in a picture."""

    name: str
    """The class, one of the names that the detector was called with."""
    score: SupportsFloat
    """The confidence, from 0 to 1."""
    box: Any
    """The left, top, right and bottom edge in pixels, as a tuple or an array."""
    mask: Any = None
    """The object's pixels, a bool array of the picture's height and width, or None."""
    colour: str | None = None
    """The object's colour, or None if the file's ``colour_of`` is to say it."""


class Detector:
    """A user's detector, whose results are checked."""

    def __init__(self, detect: Any) -> None:
        """Wraps the user's ``detect(image, classes)``.

        Where it is in a file that also has ``colour_of(image, detection)``, that function is asked
        for colours. Raises `UsageError` if one of them has other parameters.
        """
        self.detect: UserFunction = as_user_function(detect, option=OPTION, parameters=DETECT)
        self._colour_of = self.detect.beside("colour_of", COLOUR_OF)

    def about(self) -> dict[str, Any]:
        """Returns the identity of the user's functions, as JSON."""
        colour_of = self._colour_of is not None
        return {"detect": dict(self.detect.about()), "colour_of": colour_of}

    def __call__(self, image: Picture) -> list[Detection]:
        """Returns the objects in a picture. Raises `UserFunctionError` for wrong ones."""
        result = self.detect(image, CLASSES)
        if not isinstance(result, list | tuple):
            problem = f"returned a {type(result).__name__}"
            raise self.detect.wrong(problem, valid="a list of Detection objects")
        for detection in result:
            self._check(detection, image)
        return list(result)

    def colour(self, image: Picture, detection: Detection) -> str:
        """Returns the colour of an object, one of `COLOURS`."""
        colour, function = detection.colour, self.detect
        if colour is None:
            assert self._colour_of is not None  # `_check` has seen to it
            function = self._colour_of
            colour = function(image, detection)
        if colour not in COLOURS:
            raise function.wrong(f"gave the colour {colour!r}", valid=", ".join(COLOURS))
        return colour

    def _check(self, detection: Any, image: Picture) -> None:
        """Raises `UserFunctionError` unless a detection can be scored."""
        wrong = self.detect.wrong
        if not isinstance(detection, Detection):
            problem = f"returned a list with a {type(detection).__name__}"
            raise wrong(problem, valid="a list of Detection objects")
        if detection.name not in CLASSES:
            raise _unknown_class(self.detect, detection.name)
        if not _numbers(detection.score, ()) or not 0 <= float(detection.score) <= 1:
            problem = f"returned the score {detection.score!r} for a {detection.name}"
            raise wrong(problem, valid="from 0 to 1")
        box = detection.box
        if not _numbers(box, (4,)) or box[0] > box[2] or box[1] > box[3]:
            problem = f"returned the box {box!r} for a {detection.name}"
            raise wrong(problem, valid="left, top, right and bottom edge in pixels")
        mask = detection.mask
        if mask is not None and (
            np.shape(mask) != image.shape[:2] or np.asarray(mask).dtype != bool
        ):
            description = f"of shape {np.shape(mask)} and type {np.asarray(mask).dtype}"
            problem = f"returned a mask {description} for a {detection.name}"
            raise wrong(problem, valid=f"None, or a bool array of shape {image.shape[:2]}")
        if detection.colour is None and self._colour_of is None:
            problem = f"returned a {detection.name} without a colour"
            valid = (
                "a colour in each Detection, or a function colour_of(image, detection) beside it"
            )
            raise wrong(problem, valid=valid)
        if detection.colour is not None:
            self.colour(image, detection)


def _unknown_class(detect: UserFunction, name: Any) -> UserFunctionError:
    """Returns the error for a class that GenEval does not have, with a similar one."""
    last_words = {each.split()[-1]: each for each in CLASSES}
    similar = last_words.get(name) or next(
        iter(difflib.get_close_matches(str(name), CLASSES, n=1)), None
    )
    hint = f" (perhaps {similar!r})" if similar else ""
    return detect.wrong(
        f"returned an object of the class {name!r}{hint}",
        valid="the names in its argument `classes`",
    )


def _numbers(value: Any, shape: tuple[int, ...]) -> bool:
    """Returns whether a value is finite numbers of this shape."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())
