"""Support functions of cut balls: how far a linear function can rise within a radius and walls, with error terms."""

from __future__ import annotations

import torch
from torch import Tensor


def greatest_l1(gain: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """``max sum_i gain_i s_i`` over ``0 <= s_i <= room_i`` and ``sum_i s_i <= radius``, as ``(batch, rows)``.

    Rounding. A running total of rooms, cut at the radius, is off by at most ``gamma_n radius``; as the gains fall,
    summation by parts bounds what these errors do to the sum by ``gamma_n gain_1 radius``, and the sum itself rounds
    ``n + 2`` times within ``gain_1 radius``: together less than ``gamma_(n+4) |a| . 2 radius``.
    """
    order = gain.argsort(-1, descending=True)
    used = torch.minimum(room.gather(-1, order).cumsum(-1), radius.unsqueeze(-1))
    spent = torch.diff(used, dim=-1, prepend=used.new_zeros(*used.shape[:-1], 1))
    return (gain.gather(-1, order) * spent).sum(-1)


def greatest_l2(gain: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """At least ``max sum_i gain_i s_i`` over ``0 <= s_i <= room_i``, ``|s|_2 <= radius``; to ``2^-58 |gain| radius``.

    Rounding. The plain ball's answer ``|gain|_2 radius`` is at most ``|a|_1 radius``. Of a multiplier's value, ``gain
    s`` adds up to at most ``|a|_1 radius`` (as ``s <= room <= radius``), ``lam s^2 / 2`` to half of it (as ``lam s <=
    gain``) and ``lam radius^2 / 2`` to half of it (as ``lam <= |gain|_2 / radius``): together ``|a|_1 2 radius``. That
    the computed ``s`` misses the best one by a relative ``u`` costs ``lam (u s)^2 / 2``, far less than one rounding.
    """
    whole = euclidean(gain)
    best = whole * radius
    if bool((room >= radius.unsqueeze(-1)).all()):
        return best
    for multiplier in _multipliers(gain.detach(), room, radius, whole.detach()):
        lam = multiplier.unsqueeze(-1)
        step = _steps(gain.detach(), lam, room)
        value = (gain * step - lam * step * step / 2).sum(-1) + multiplier * radius * radius / 2
        best = torch.minimum(best, torch.where(torch.isfinite(value), value, best))
    return best


def euclidean(x: Tensor) -> Tensor:
    """The Euclidean length along the last axis, scaled so that squares of small entries do not vanish."""
    largest = x.detach().abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    length: Tensor = torch.linalg.vector_norm(x / largest, dim=-1)
    return largest.squeeze(-1) * length


def _steps(gain: Tensor, lam: Tensor, room: Tensor) -> Tensor:
    return torch.minimum(torch.where(lam > 0, gain / lam, torch.inf), room)


def _multipliers(gain: Tensor, room: Tensor, radius: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Two neighbours of the multiplier whose steps ``min(gain / lam, room)`` have the length `radius`, or of zero."""
    tiny = torch.finfo(gain.dtype).tiny
    low, high = torch.zeros_like(whole), whole / radius.clamp(min=tiny)
    for _ in range(60):
        middle = (low + high) / 2
        short = euclidean(_steps(gain, middle.unsqueeze(-1), room)) < radius
        high, low = torch.where(short, middle, high), torch.where(short, low, middle)
    return low, high
