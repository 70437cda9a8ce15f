"""Prompts of composition are held out, distinct, deterministic and in the grammar of captions."""

from __future__ import annotations

from collections import Counter

import pytest

from pinxit.config import UsageError
from pinxit.data.scenes.attributes import BACKDROPS, COLOURS, KINDS, TIMES, sample_scene
from pinxit.data.scenes.captions import caption
from pinxit.evaluate.composition.facts import NamedFacts, NamedThing
from pinxit.evaluate.composition.prompts import Wording, most_prompts, task_prompts
from pinxit.evaluate.composition.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_all_prompts_are_held_out_and_distinct(task: str):
    prompts = task_prompts(task, most_prompts()["single_object"])
    assert all(prompt.facts.held_out for prompt in prompts)
    assert len({(frozenset(p.facts.things), p.facts.landscape) for p in prompts}) == len(prompts)
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    assert prompts == task_prompts(task, len(prompts))
    assert prompts[:7] == task_prompts(task, 7), "the first prompts depend on the number"
    for prompt in prompts:
        assert all(thing.colour in prompt.text for thing in prompt.facts.things)


def test_a_prompt_without_a_held_out_combination_is_recognised():
    """Otherwise the test above could not fail."""
    for facts in (
        NamedFacts((NamedThing("castle", "red"),)),
        NamedFacts((NamedThing("castle", "red"),), ("day", "sea")),
    ):
        assert not facts.held_out
    assert NamedFacts((NamedThing("castle", "purple"),)).held_out
    assert NamedFacts((NamedThing("house", "red"),), ("dawn", "hills")).held_out


@pytest.mark.parametrize("wording", ["usual", "short"])
def test_tasks_name_what_they_need(wording: Wording):
    for task in TASKS:
        for prompt in task_prompts(task, 30, wording=wording):
            things = prompt.facts.things
            assert len(things) == (1 if task in ("single_object", "colors") else 2)
            assert len({thing.kind for thing in things}) == len(things)
            if task == "color_attr":
                assert things[0].colour != things[1].colour
            named = wording == "usual"
            assert all((thing.size is not None) == named for thing in things)
            assert all(
                (thing.place is not None) == (named or task == "position") for thing in things
            )
            assert len({thing.place for thing in things}) == (len(things) if things[0].place else 1)
            assert any(
                f"{words} {thing.colour}" in prompt.text for thing in things for words in SIZES
            )


SIZES = ("small", "little", "tiny", "large", "big", "huge", "a")
"""The words before a colour."""


def test_both_wordings_ask_for_the_same_and_the_comparison_for_nothing_held_out():
    for task in TASKS:
        usual, short = (task_prompts(task, 20, wording=w) for w in ("usual", "short"))
        of = [[(t.kind, t.colour) for t in p.facts.things] for p in usual]
        assert of == [[(t.kind, t.colour) for t in p.facts.things] for p in short]
    for task in ("single_object", "color_attr"):
        shown = task_prompts(task, 20, held_out=False)
        assert not any(prompt.facts.held_out for prompt in shown)
        assert [p.facts.landscape is None for p in shown] == [True, False] * 10


def test_pairs_and_triples_take_turns():
    named = [prompt.facts.landscape is not None for prompt in task_prompts("two_object", 20)]
    assert named == [False, True] * 10
    single = task_prompts("single_object", 78)
    assert sum(prompt.facts.landscape is None for prompt in single) == 6


@pytest.mark.parametrize("count", [-1, 1, 79])
def test_other_numbers_of_prompts_are_refused(count: int):
    message = f"composition_prompts: {count} is not possible.*single_object 78.*0, or 2 to 78"
    with pytest.raises(UsageError, match=message):
        task_prompts("position", count)


def test_no_words_are_new_to_the_model():
    """Prompts are made of the words of training captions; held-out ones combine them."""
    scenes = (sample_scene(0, i) for i in range(800))
    known = Counter(
        word
        for i, scene in enumerate(scenes)
        for word in caption(scene, seed=0, index=i).lower().replace(",", "").strip(".").split()
    )
    for task in TASKS:
        for prompt in (*task_prompts(task, 20), *task_prompts(task, 20, wording="short")):
            for word in prompt.text.replace(",", "").split():
                assert known[word] >= 5, (word, prompt.text)


@pytest.mark.parametrize("task", TASKS)
def test_real_scenes_have_all_facts_of_their_prompt(task: str):
    for prompt in task_prompts(task, 10):
        scene = prompt.facts.scene(seed=4, index=prompt.number)
        named = {(t.kind, t.colour, t.size, t.place) for t in prompt.facts.things}
        assert {(t.kind, t.colour, t.size, t.place) for t in scene.things} == named
        if prompt.facts.landscape:
            assert (scene.time, scene.backdrop) == prompt.facts.landscape


def test_facts_that_no_scene_has_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pinxit.evaluate.composition.facts.ATTEMPTS", 50)
    tree, tent = NamedThing("tree", "red", "left", "large"), NamedThing("tent", "red", "middle")
    with pytest.raises(ValueError, match="no scene has the named facts"):
        NamedFacts((tree, tent)).scene(seed=0, index=0)


def test_scenes_have_the_named_facts_and_vary_in_the_others():
    facts = NamedFacts(
        (NamedThing("tree", "red", "right"), NamedThing("tent", "blue", "middle")),
        ("night", "sea"),
    )
    scenes = [facts.scene(seed=0, index=i) for i in range(60)]
    assert scenes[5] == facts.scene(seed=0, index=5)
    for scene in scenes:
        assert (scene.time, scene.backdrop, scene.held_out) == ("night", "sea", True)
        shown = {(thing.kind, thing.colour, thing.place) for thing in scene.things}
        assert shown == {("tree", "red", "right"), ("tent", "blue", "middle")}
        assert {thing.size for thing in scene.things} == {"small"}, "neighbours are both small"
        assert scene.celestial != "sun"
    assert {scene.weather for scene in scenes} == {"clear", "cloudy", "rain", "snow", "fog"}


def test_free_facts_have_the_distribution_of_all_scenes():
    facts = NamedFacts((NamedThing("castle", "purple"),))
    scenes = [facts.scene(seed=1, index=i) for i in range(400)]
    shares = Counter(scene.weather for scene in scenes)
    assert abs(shares["clear"] / 400 - 0.4) < 0.08
    for values, free in (
        (TIMES, [scene.time for scene in scenes]),
        (BACKDROPS, [scene.backdrop for scene in scenes]),
        (("left", "middle", "right"), [scene.things[0].place for scene in scenes]),
        (("small", "large"), [scene.things[0].size for scene in scenes]),
    ):
        assert all(abs(free.count(value) / 400 - 1 / len(values)) < 0.1 for value in values)
    assert all((s.things[0].kind, s.things[0].colour) == ("castle", "purple") for s in scenes)
    assert "castle" in KINDS and "purple" in COLOURS
