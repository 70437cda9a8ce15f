"""Writes varied captions for a `Scene` from templates and synonyms.

A *full* caption states every fact that the picture shows; evaluation uses these. Training captions
sometimes omit facts: the weather, the sun or moon, an object's size or
place, or the time and the backdrop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pinxit.data.scenes.attributes import Scene, Thing

_TIME = {
    "dawn": ("at dawn", "at sunrise", "in the early morning"),
    "day": ("by day", "at noon", "in daylight"),
    "sunset": ("at sunset", "at dusk", "in the evening"),
    "night": ("at night", "by night", "in the dark"),
}
_TIME_NOUN = {
    "dawn": ("dawn", "sunrise", "morning"),
    "day": ("day", "noon", "afternoon"),
    "sunset": ("sunset", "dusk", "evening"),
    "night": ("night", "midnight"),
}
_BACKDROP = {
    "mountains": ("the mountains", "snowy mountains", "mountains"),
    "hills": ("green hills", "rolling hills", "hills"),
    "sea": ("the sea", "the ocean", "a beach"),
    "forest": ("a forest", "the woods", "a pine forest"),
    "desert": ("the desert", "sand dunes", "a desert"),
}
_NEAR = {
    "mountains": ("before", "near", "in front of"),
    "hills": ("before", "near", "in front of"),
    "sea": ("by", "near", "beside"),
    "forest": ("by", "near", "in front of"),
    "desert": ("near", "in front of", "before"),
}
_OVER = {"mountains": "over", "hills": "over", "sea": "by", "forest": "over", "desert": "over"}
_WEATHER = {
    "clear": ("under a clear sky", "clear sky", "in clear weather"),
    "cloudy": ("with clouds", "under a cloudy sky", "with white clouds"),
    "rain": ("in the rain", "on a rainy day", "it is raining"),
    "snow": ("in the snow", "snow is falling", "in falling snow"),
    "fog": ("in the fog", "in thick fog", "in mist"),
}
_CELESTIAL = {
    "sun": ("under the sun", "with the sun in the sky", "the sun is out"),
    "full moon": ("under a full moon", "with a full moon", "the moon is full"),
    "crescent moon": ("under a crescent moon", "with a crescent moon", "with a thin moon"),
}
_SIZE = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
_KIND = {"house": ("house", "cottage"), "balloon": ("balloon", "hot air balloon")}
_PLACE = {
    "left": ("on the left", "to the left", "at the left"),
    "middle": ("in the middle", "in the centre", "in the center"),
    "right": ("on the right", "to the right", "at the right"),
}
_MOOD = ("beautiful", "calm", "quiet", "lovely", "peaceful")
_MEDIUM = ("a picture of", "a painting of", "a drawing of", "an image of", "a view of")


def caption(scene: Scene, *, seed: int, index: int = 0, full: bool = False) -> str:
    """Returns one caption of `scene`, as a pure function of the arguments."""
    return _Writer(np.random.default_rng([seed, index, 2]), full).write(scene)


def short_caption(
    things: Sequence[tuple[str | None, str, str, str | None]],
    landscape: tuple[str, str] | None,
    *,
    seed: int,
    index: int = 0,
) -> str:
    """Returns a caption that states these facts alone, in the phrases of training captions.

    `things` are sizes, colours, kinds and places, where None leaves a size or a place out.
    `landscape` is a time and a backdrop, or None.
    """
    return _Writer(np.random.default_rng([seed, index, 3]), False).short(things, landscape)


class _Writer:
    def __init__(self, rng: np.random.Generator, full: bool) -> None:
        self.rng, self.full = rng, full

    def write(self, scene: Scene) -> str:
        things = " and ".join(self._thing(thing) for thing in scene.things)
        details = self._details(scene)
        form = self.rng.integers(4)
        if not things or form == 0:
            text = self._landscape(scene, " with " + things if things else "")
        elif not self.full and self._sometimes(0.3 if "moon" in scene.celestial else 0.08):
            where = self._near(scene) if self._sometimes(0.7) else ""  # a moon implies night
            text = f"{things} {where}".rstrip()
        else:
            text = self._before(scene, things, int(form))
        if self._sometimes(0.2) and not text.startswith(("at ", "in ", "by ")):
            text = f"{self._one(_MEDIUM)} {text}"
        for detail in details:
            text += (", " if self._sometimes(0.7) else " ") + detail
        if self._sometimes(0.5):
            text = text[0].upper() + text[1:]
        return text + ("." if self._sometimes(0.3) else "")

    def short(
        self,
        things: Sequence[tuple[str | None, str, str, str | None]],
        landscape: tuple[str, str] | None,
    ) -> str:
        text = " and ".join(
            ("a " + self._one(_SIZE[size]) if size else "a")
            + f" {colour} {self._one(_KIND.get(kind, (kind,)))}"
            + (" " + self._one(_PLACE[place]) if place else "")
            for size, colour, kind, place in things
        )
        if landscape is None:
            return text
        scene = Scene(*landscape, weather="clear", celestial="none")
        form = int(self.rng.integers(4))
        return self._before(scene, text, form) if form else self._landscape(scene, " with " + text)

    def _before(self, scene: Scene, things: str, form: int) -> str:
        """Writes the things first, or after the time, and the backdrop behind them."""
        if form == 1:
            return f"{things} {self._near(scene)} {self._one(_TIME[scene.time])}"
        if form == 2:
            backdrop = self._one(_BACKDROP[scene.backdrop])
            return f"{things}, {backdrop} {self._one(_TIME[scene.time])}"
        return f"{self._one(_TIME[scene.time])}, {things} {self._near(scene)}"

    def _one(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _sometimes(self, chance: float) -> bool:
        return bool(self.rng.random() < chance)

    def _states(self, chance: float) -> bool:
        return self._sometimes(chance) or self.full

    def _thing(self, thing: Thing) -> str:
        size = self._one(_SIZE[thing.size]) + " " if self._states(0.85) else ""
        kind = self._one(_KIND.get(thing.kind, (thing.kind,)))
        place = " " + self._one(_PLACE[thing.place]) if self._states(0.92) else ""
        return f"a {size}{thing.colour} {kind}{place}"

    def _near(self, scene: Scene) -> str:
        return f"{self._one(_NEAR[scene.backdrop])} {self._one(_BACKDROP[scene.backdrop])}"

    def _landscape(self, scene: Scene, things: str) -> str:
        mood = self._one(_MOOD) + " " if self._sometimes(0.5) else ""
        if self._sometimes(0.5):
            noun = self._one(_TIME_NOUN[scene.time])
            article = "an" if not mood and noun[0] in "aeiou" else "a"
            where = f"{_OVER[scene.backdrop]} {self._one(_BACKDROP[scene.backdrop])}"
            return f"{article} {mood}{noun} {where}{things}"
        what = self._one(_BACKDROP[scene.backdrop])
        lead = f"a {mood}landscape, {what}" if mood else what
        return f"{lead} {self._one(_TIME[scene.time])}{things}"

    def _details(self, scene: Scene) -> list[str]:
        details = []
        if scene.celestial != "none" and self._states(0.85):
            details.append(self._one(_CELESTIAL[scene.celestial]))
        if self._states(0.35 if scene.weather == "clear" else 0.92):
            details.append(self._one(_WEATHER[scene.weather]))
        return [details[i] for i in self.rng.permutation(len(details))]
