"""From exact conditions on inputs and outputs to cases in float64: one per input box, with the outputs unsafe there.

A box is enclosed (and its inside is kept beside it), and an unsafe set is enclosed (likewise): what is proven of the
cases is true of the conditions as the file writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import inf, nextafter
from typing import TypeAlias

import numpy as np
import torch

from leaktight.specs.formula import Atom, Bound, Condition, Conjunction, FormulaError, Number, both
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.specs.unsafe import Unsafe

NUMBERS = 100_000_000
"""The most float64 numbers that all boxes, or all output conditions, of one property may take."""

Limit: TypeAlias = tuple[Number, bool]  # the bound, and whether it is strict
Limits: TypeAlias = dict[tuple[int, bool], Limit]  # by input entry and whether it is the upper bound
Groups: TypeAlias = dict[frozenset[tuple[tuple[int, bool], Limit]], list[list[Atom]]]
"""Output conjunctions by box: the limits in which it differs from those of all boxes."""
Rows: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def cases(asserted: Iterable[Condition], inputs: Sequence[str], outputs: int) -> tuple[Case, ...]:
    """The cases of the conjunction of `asserted`: boxes over the entries named `inputs`, conditions on `outputs` many.

    A disjunct whose box is empty denotes nothing and is left out. A disjunct without output conditions says that its
    whole box is unsafe: it becomes the atom ``0 <= 0``, which every output meets.

    Raises FormulaError: an input has no lower or no upper bound, every box is empty, or the property is too large
    (`NUMBERS`).
    """
    parts = list(asserted)
    common = both([part for part in parts if len(part) == 1])[0]
    alternatives = both([part for part in parts if len(part) != 1])
    base: Limits = {}
    always = _divided(common, base, {})
    groups, empty = _grouped(alternatives, base, always, inputs)
    if not groups:
        raise FormulaError(empty or "the assertions contradict each other: no input and output meets them")
    if 4 * len(inputs) * len(groups) > NUMBERS:
        raise FormulaError(
            f"the property has {len(groups)} boxes of {len(inputs)} inputs; at most {NUMBERS} numbers "
            "are allowed; split the property"
        )
    rows = _rows(base, len(inputs))
    return tuple(Case(_box(rows, dict(box)), _unsafe(found, outputs)) for box, found in groups.items())


def _grouped(
    alternatives: Condition, base: Limits, always: list[Atom], inputs: Sequence[str]
) -> tuple[Groups, str | None]:
    """The output conjunctions by box, and why the last of the empty boxes is empty."""
    groups: Groups = {}
    empty = _contradiction({index for index, _ in base}, base, {}, inputs)
    if empty:
        return groups, empty
    needed = [(i, upper) for i in range(len(inputs)) for upper in (False, True) if (i, upper) not in base]
    for conjunction in alternatives:
        own: Limits = {}
        atoms = _divided(conjunction, own, base)
        found = _contradiction({index for index, _ in own}, base, own, inputs)
        if found:
            empty = found
            continue
        for index, upper in needed:
            if (index, upper) not in own:
                raise FormulaError(
                    f"the input region is not bounded: {inputs[index]} has no "
                    f"{'upper' if upper else 'lower'} bound; give every input both bounds"
                )
        groups.setdefault(frozenset(own.items()), []).append([*always, *atoms])
    return groups, empty


def _divided(conjunction: Conjunction, own: Limits, base: Limits) -> list[Atom]:
    """The output atoms; the input atoms that are tighter than those of `base` go to `own`."""
    atoms = []
    for atom in conjunction:
        if isinstance(atom, Atom):
            atoms.append(atom)
        elif _tighter(atom, own.get(key := (atom.symbol.index, atom.upper)) or base.get(key)):
            own[key] = (atom.value, atom.strict)
    return atoms


def _tighter(bound: Bound, known: Limit | None) -> bool:
    if known is None:
        return True
    value, strict = known
    if bound.value == value:
        return bound.strict and not strict
    return bound.value < value if bound.upper else bound.value > value


def _contradiction(indices: Iterable[int], base: Limits, own: Limits, inputs: Sequence[str]) -> str | None:
    """What to say about the first of `indices` whose bounds exclude each other, if there is one."""
    for index in sorted(indices):
        low = own.get((index, False)) or base.get((index, False))
        high = own.get((index, True)) or base.get((index, True))
        if low and high and (low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1]))):
            return (
                f"the input region is empty: {inputs[index]} has lower bound {'> ' if low[1] else ''}{low[0]}, "
                f"upper bound {'< ' if high[1] else ''}{high[0]}; give a lower bound below the upper one"
            )
    return None


def enclosing(value: Number) -> tuple[float, float]:
    """The largest float64 ``<= value`` and the smallest ``>= value``: the same where float64 holds the value."""
    try:
        near = float(value)
    except OverflowError:
        near = inf if value > 0 else -inf
    held = (
        Decimal(near) if isinstance(value, Decimal) else near
    )  # exactly; a float would be converted for each comparison
    if held == value:
        return near, near
    return (near, nextafter(near, inf)) if held < value else (nextafter(near, -inf), near)


def _write(rows: Rows, limits: Mapping[tuple[int, bool], Limit]) -> None:
    lower, upper, inner_lower, inner_upper = rows
    for (index, is_upper), (value, strict) in limits.items():
        below, above = enclosing(value)
        exact = below == above
        if is_upper:
            upper[index] = above
            inner_upper[index] = nextafter(below, -inf) if strict and exact else below
        else:
            lower[index] = below
            inner_lower[index] = nextafter(above, inf) if strict and exact else above


def _rows(base: Limits, size: int) -> Rows:
    rows = (np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    _write(rows, base)
    return rows


def _box(base: Rows, own: Mapping[tuple[int, bool], Limit]) -> Box:
    rows = (base[0].copy(), base[1].copy(), base[2].copy(), base[3].copy())
    _write(rows, own)
    lower, upper, inner_lower, inner_upper = (torch.from_numpy(row).unsqueeze(0) for row in rows)
    if bool((lower == inner_lower).all() and (upper == inner_upper).all()):
        return Box(lower, upper)
    return Box(lower, upper, inner_lower, inner_upper)


def _unsafe(conjunctions: Sequence[list[Atom]], outputs: int) -> Unsafe:
    always = Atom((), Fraction(0), False)
    filled = [conjunction or [always] for conjunction in conjunctions]
    atoms = [atom for conjunction in filled for atom in conjunction]
    if len(atoms) * outputs > NUMBERS:
        raise FormulaError(
            f"the property has {len(atoms)} conditions on {outputs} outputs; at most {NUMBERS} numbers "
            "are allowed; split the property"
        )
    weights = np.zeros((1, len(atoms), outputs))
    for row, atom in enumerate(atoms):
        for index, weight in atom.weights:
            weights[0, row, index] = weight
    ends = np.array([enclosing(atom.bound) for atom in atoms])
    disjunct = np.repeat(np.arange(len(filled)), [len(conjunction) for conjunction in filled])
    return Unsafe(
        torch.from_numpy(weights),
        torch.from_numpy(ends[None, :, 1].copy()),
        torch.from_numpy(disjunct),
        torch.tensor([atom.strict for atom in atoms]),
        torch.from_numpy(ends[None, :, 0].copy()),
    )
