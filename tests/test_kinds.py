"""Public functions refuse what is of another kind, in words and before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import leaktight as lt
from leaktight import demo

PATH, SPEC = str(demo.NETWORK), str(demo.PROVED)
NETWORK, PROPERTY = lt.load(PATH), lt.read_property(SPEC)
MISTAKEN: dict[str, tuple[Callable[..., object], tuple[Any, ...], str]] = {
    "a path as the network": (lt.prove, (PATH, PROPERTY), "network: str was given; give a Network: leaktight.load"),
    "a path as the property": (lt.prove, (NETWORK, SPEC), "property: str was given; give a Property"),
    "the wrong way round": (lt.prove, (PROPERTY, NETWORK), "network: Property was given"),
    "a property as the region": (lt.bound, (NETWORK, PROPERTY), "region: Property was given; give a Region"),
    "a path to certify": (lt.certify, (PATH, [], [], 0.1), "network: str was given"),
    "a path whose leak moves": (lt.leak, (PATH, PROPERTY, (0, 0.3)), "network: str was given"),
    "a path for data": (lt.leak_of_data, (PATH, [], [], 0.1, (0, 1)), "network: str was given"),
    "a path for a constant": (lt.lipschitz, (PATH,), "network: str was given"),
    "slopes as text": (lt.leak, (NETWORK, PROPERTY, "0:0.3"), "'0:0.3' is no pair of numbers"),
    "one slope": (lt.leak, (NETWORK, PROPERTY, 0.3), "0.3 is no pair of numbers"),
    "an epsilon as text": (lt.robust, ([0.0], 0, "8/255"), "x and epsilon are not all numbers"),
    "an input of words": (lt.robust, (["a"], 0, 0.1), "x and epsilon are not all numbers"),
}


@pytest.mark.parametrize(("function", "given", "says"), MISTAKEN.values(), ids=MISTAKEN.keys())
def test_what_is_given_for_something_else_is_refused_in_words(
    function: Callable[..., object], given: tuple[Any, ...], says: str
) -> None:
    with pytest.raises(lt.InputError, match=re.escape(says)):
        function(*given)
