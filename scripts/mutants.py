"""Breaks one soundness rule at a time in a copy of the repository and says which test notices.

    python scripts/mutants.py [--only WORD] [--output FILE]

Relaxations, closed forms and interval rules are moved by a relative or absolute 1e-3; rounding terms are set to zero. A
mutant that its tests do not kill is a hole in the tests: the exit status is then 1. Nothing in the checkout is touched.
"""

# ruff: noqa: E501
from __future__ import annotations

from mutation import Mutant, main

RELAXED, INTERVAL = "verify/relax", "verify/bounds/interval.py"
BACKWARD, WALK, CENTRED = (f"verify/bounds/{name}.py" for name in ("backward", "walk", "centred"))
REGION, BOX, SUPPORT = (f"specs/region/{name}.py" for name in ("region", "box", "support"))
ROUNDING, OPS = "verify/rounding.py", "models/ops/affine.py"
LEAKY = "tests/test_relax.py -k enclose_the_leaky_relu"
TWO_SLOPES = "tests/test_relax.py -k enclose_every_two_slope"
RAYS = "tests/test_rays.py"
CLIPS = "tests/test_relax.py -k every_clip"
SMOOTH = "tests/test_relax.py -k smooth_activations_to_fifty"
MAXIMUM = "tests/test_relax.py -k lines_enclose_the_maximum"
PASSES = "tests/test_engines.py -k 'hand_computes or contains_the_truth'"
REFERENCES, SINGLE = "verify/bounds/references.py", "verify/bounds/single.py"
SHORT = "tests/test_single.py"
MINIMA = "tests/test_regions.py -k minimum"
CANCELS = "tests/test_rounding.py -k cancel"
LONG = "tests/test_rounding.py -k long_sums"
UNDERFLOW = "tests/test_rounding.py -k underflow"
ERRORS = "tests/test_soundness.py -k error_of_one_parameter"
LIPSCHITZ, ANCHORED = "verify/lipschitz", "tests/test_lipschitz_jacobian.py"
PARABOLAS, CONCAVE, FIRST_LAYER = (f"verify/bounds/{name}.py" for name in ("parabolas", "concave", "first_layer"))
CURVED = "tests/test_curved.py"
SUMS = "tests/test_lipschitz_crude.py -k 'sums or error'"
IMPLIED, IMPLYING = "verify/search/implied.py", "tests/test_implied.py"
THEIRS = "tests/test_auto_lirpa.py -k 'sampled_outputs_for_any_slope or module_computes'"
BETWEEN = "tests/test_leak_between.py -k 'lies_below_the_curve or very_many or stay_above'"
MIXTURE = "tests/test_leak_between.py -k 'finer_grids or known_between'"
IN_SINGLE = "tests/test_leak_between.py -k in_float32"
BRANCH = "tests/test_leak_branch.py"
LOCAL, CLOSED = "tests/test_leak_local.py", "tests/test_leak_closed_form.py"
ROWS = f"{BRANCH} -k rows_over"
SPLITS = f"{BRANCH} -k 'splitting_neurons_proves or atoms_over'"
DEVICE = "tests/test_device.py"
SIGNS = f"{BRANCH} -k 'signs_are or nearly_no_slope or told or not_complete'"

MUTANTS = (
    Mutant("chord of a Leaky ReLU", f"{RELAXED}/leaky.py", "offset = torch.maximum((slope - chord)", "offset = 0.999 * torch.maximum((slope - chord)", LEAKY),
    Mutant("ray of a Leaky ReLU", f"{RELAXED}/leaky.py", "ray = torch.lerp(", "ray = 1.001 * torch.lerp(", LEAKY),
    Mutant("ray turned by a tilt", f"{RELAXED}/two_slopes.py", ".clamp(torch.minimum(left, right), torch.maximum(left, right))\n", ".clamp(torch.minimum(left, right), torch.maximum(left, right)) + 1e-3\n", LEAKY),
    Mutant("where a neuron counts as active", f"{RELAXED}/leaky.py", "    low, high = lower.clamp(max=0), upper", "    low, high = (lower + 1e-3).clamp(max=0), upper", LEAKY),
    Mutant("rounding of the chord's offset", f"{RELAXED}/leaky.py", "offset = torch.add(offset * (1 + 8 * U), torch.minimum(-low, high).clamp_(max=4 * TINY))\n", "pass\n", LEAKY),
    Mutant("image of a Leaky ReLU", f"{RELAXED}/leaky.py", "lower * kept.high -", "lower * kept.high * 0.999 -", LEAKY),
    Mutant("rounding of that image", f"{RELAXED}/leaky.py", "(slope * (1 + 8 * U)).clamp(max=1)", "slope", "tests/test_relax.py -k images_of_the_leaky_relu"),
    Mutant("slopes that have lost digits", f"{RELAXED}/leaky.py", "_LEAST = 2.0**-900", "_LEAST = 0.0", "tests/test_relax.py -k lost_digits"),
    Mutant("offset of any line", f"{RELAXED}/lines.py", "toward(low, dtype, -torch.inf), high_slope", "toward(low + 1e-3, dtype, -torch.inf), high_slope", TWO_SLOPES),
    Mutant("rounding of any line's offset", f"{RELAXED}/lines.py", "slack = error + 4 * U * (value.abs() + product.abs()) + tiny", "slack = error", "tests/test_relax.py -k 'every_clip or enclose_the_maximum'"),
    Mutant("line of two slopes at the kink (Abs)", f"{RELAXED}/two_slopes.py", "_value_and_error(op, x)) for x in (lower, upper, middle)], dtype)", "_value_and_error(op, x)) for x in (lower, upper)], dtype)", TWO_SLOPES),
    Mutant("image of two slopes at the kink (Abs)", f"{RELAXED}/two_slopes.py", "ends = [_value_and_error(op, x) for x in (lower, upper, middle)]", "ends = [_value_and_error(op, x) for x in (lower, upper)]", "tests/test_relax.py -k reaches_its_kink"),
    Mutant("line around a Clip", f"{RELAXED}/clip.py", "for kink in (floor, ceiling)]", "for kink in (floor,)]", CLIPS),
    Mutant("image of a Clip", f"{RELAXED}/clip.py", "return op(lower), op(upper)\n", "return op(lower), op(upper) - 1e-3\n", CLIPS),
    Mutant("image of Sigmoid and Tanh", f"{RELAXED}/smooth.py", "(op(upper) + _SMOOTH).clamp(max=1.0)", "(op(upper) - 1e-3).clamp(max=1.0)", SMOOTH),
    Mutant("lines of Sigmoid and Tanh", f"{RELAXED}/smooth.py", "for stationary in (x, -x):", "for stationary in (x,):", SMOOTH),
    Mutant("error of Sigmoid and Tanh", f"{RELAXED}/smooth.py", "error = torch.full_like(lower, _SMOOTH)", "error = torch.full_like(lower, 0.0)", SMOOTH),
    Mutant("line over a Maximum", f"{RELAXED}/maximum.py", "torch.where(rest > bottom, lines.upper_offset, 0.0)", "torch.where(rest > bottom, lines.upper_offset - 1e-3, 0.0)", MAXIMUM),
    Mutant("second largest of a Maximum", f"{RELAXED}/maximum.py", "-torch.inf).amax(-1)\n", "-torch.inf).amax(-1) - 1e-3\n", MAXIMUM),
    Mutant("rounding to float32", REGION, "return torch.where(wrong, step, near)", "return near", "tests/test_regions.py -k rounding_toward"),
    Mutant("minimum over a box", BOX, "coefficients.abs() @ radius", "coefficients.abs() @ (0.999 * radius)", MINIMA),
    Mutant("minimum over a plain L2 ball", SUPPORT, "best = whole * radius\n", "best = 0.999 * whole * radius\n", MINIMA),
    Mutant("minimum over a cut L2 ball", SUPPORT, "multiplier * radius * radius / 2\n", "multiplier * radius * radius / 2.002\n", MINIMA),
    Mutant("minimum over an L1 ball", SUPPORT, "(gain.gather(-1, order) * spent).sum(-1)", "0.999 * (gain.gather(-1, order) * spent).sum(-1)", MINIMA),
    Mutant("interval of an affine map", INTERVAL, "radius = op.magnitude(*radii) + slack", "radius = 0.999 * op.magnitude(*radii) + slack", "tests/test_engines.py -k one_affine_layer"),
    Mutant("rounding of that interval", INTERVAL, "radius = op.magnitude(*radii) + slack", "radius = op.magnitude(*radii)", CANCELS),
    Mutant("interval of a Maximum", INTERVAL, "node.op(inputs[0].upper))\n", "node.op(inputs[0].upper) - 1e-3)\n", "tests/test_rounding.py -k interval_of_a_maximum"),
    Mutant("rounding of objectives on intervals", INTERVAL, "value - gamma(y.lower.shape[1], value.dtype) * slack", "value", "tests/test_rounding.py -k long_objective"),
    Mutant("gamma", ROUNDING, "return 2 * share / (1 - share)", "return 0.0", CANCELS),
    Mutant("down", ROUNDING, "return x - (x.abs()", "return x - 0 * (x.abs()", "tests/test_rounding.py -k down_and_up"),
    Mutant("underflow", ROUNDING, "return float(torch.finfo(dtype).smallest_normal)", "return 0.0", UNDERFLOW),
    Mutant("error of rounded weights", OPS, "if not off.any():", "if True:", "tests/test_rounding.py -k keep_what_was_rounded"),
    Mutant("half of the lines' distance", WALK, ".addcmul_(size, lines.half_slope)", ".addcmul_(size, lines.half_slope, value=0.999)", PASSES),
    Mutant("the lines' offsets", WALK, "self.shift(sink)", "self.shift(0.999 * sink)", PASSES),
    Mutant("rounding of halved offsets", CENTRED, "/ 2 - reach.detach()", "/ 2", "tests/test_rounding.py -k halved"),
    Mutant("rounding in front of an activation", BACKWARD, "each = each + vector.reshape(-1, *source.shape)", "pass", LONG),
    Mutant("rounding of an activation's rows", BACKWARD, "torch.add(steep * each, reach, alpha=gamma(node.size, self.dtype))", "steep * each", LONG),
    Mutant("how far a ray may turn", BACKWARD, "((1 - op.left) * free)", "((1.001 - op.left) * free)", RAYS),
    Mutant("where a ray turns from", CENTRED, "gap.addcmul_(first, bend, value=-1)", "gap.addcmul_(first, bend, value=-0.999)", RAYS),
    Mutant("tilts of a ray beyond its ends", CENTRED, "tilt.clamp(0, 1).to(a.dtype)", "tilt.to(a.dtype)", RAYS),
    Mutant("rows that a ray adds to", CENTRED, "(positive * steeper)", "(a * steeper)", RAYS),
    Mutant("offsets of turned lines", WALK, "self.shift(whole[..., 0] - part[..., 0])", "self.shift(0.999 * (whole[..., 0] - part[..., 0]))", RAYS),
    Mutant("rounding of turned rows", WALK, "torch.sub(2 * part[..., 1], whole[..., 1])", "torch.sub(part[..., 1], part[..., 1])", LONG),
    Mutant("rounding of an adjoint", BACKWARD, "rounding(op, gamma(op.adjoint_terms, self.dtype), ", "rounding(op, 0.0, ", LONG),
    Mutant("rounding of a bias", BACKWARD, "gamma(node.size, self.dtype), inputs)", "0.0, inputs)", LONG),
    Mutant("rounding where paths join", WALK, "self._charge(rows, 2 * unit(self.b.dtype) * self.b.known", "self._charge(rows, 0 * self.b.known", LONG),
    Mutant("rounding of the minimum over a box", BACKWARD, "pad = gamma(region.size, self.dtype) * region.magnitude", "pad = 0 * region.magnitude", LONG),
    Mutant("rounding of the minimum over a ball", WALK, "self._charge(flat, gamma(region.size, self.b.dtype) * region.magnitude)", "pass", LONG),
    Mutant("uncertain weights in a pass", BACKWARD, "found = found + 2 * spread", "found = found + 0 * spread", ERRORS),
    Mutant("uncertain weights of a start", WALK, "self.slack + 2 * wide.gather(1, start.index)", "self.slack + 0 * wide.gather(1, start.index)", "tests/test_rounding.py -k uncertain_weights"),
    Mutant("lines of a Maximum in a pass", WALK, "self.shift(dot(negative, lines.upper_offset.unsqueeze(1)))", "self.shift(0.999 * dot(negative, lines.upper_offset.unsqueeze(1)))", "tests/test_soundness.py -k 'sampled_output and max_pool and not many'"),
    Mutant("which end a refined bound belongs to", "verify/bounds/crown.py", "_met(z, best, sign * wanted)", "_met(z, best, -sign * wanted)", PASSES),
    Mutant("level of a parabola", PARABOLAS, "+ ((2 * q * place - fall) * end).clamp(max=0)", "+ 0.999 * ((2 * q * place - fall) * end).clamp(max=0)", f"{CURVED} -k 'lie_below or lines_are'"),
    Mutant("where a parabola touches it", PARABOLAS, "least = -q * place * place +", "least = -0.999 * q * place * place +", f"{CURVED} -k 'lie_below'"),
    Mutant("rounding of a parabola's level", PARABOLAS, "return down(least - gamma(8, _DTYPE) * sizes - 8 * underflow(_DTYPE))", "return least", f"{CURVED} -k 'lie_below'"),
    Mutant("the side below the kink", PARABOLAS, "return torch.minimum(above, below)", "return above", f"{CURVED} -k 'lie_below'"),
    Mutant("parabolas that open upwards", PARABOLAS, "parabolas.quadratic.clamp(min=0)", "parabolas.quadratic", f"{CURVED} -k 'open_upwards'"),
    Mutant("quadratic part of a sum", CONCAVE, "(slopes.mT * q.unsqueeze(1)) @ slopes", "(slopes.mT * (0.999 * q).unsqueeze(1)) @ slopes", f"{CURVED} -k 'cube or one_square or any_parabolas'"),
    Mutant("linear part of a sum", PARABOLAS, "tilt = d - 2 * q * layer.middle", "tilt = d - 1.998 * q * layer.middle", f"{CURVED} -k 'any_parabolas or single_bend'"),
    Mutant("constant part of a sum", PARABOLAS, "- q * layer.middle**2", "- 0.999 * q * layer.middle**2", f"{CURVED} -k 'any_parabolas or single_bend'"),
    Mutant("what is lost of the neurons' inputs", PARABOLAS, "+ d.abs() @ layer.lost", "+ 0.999 * d.abs() @ layer.lost", f"{CURVED} -k 'lines_are'"),
    Mutant("rounding of a sum's parts", PARABOLAS, "lost = lost * (1 + spare) + 2 * spare * (size + sums.offset.abs())", "pass", f"{CURVED} -k 'rounding_never'"),
    Mutant("what a factor leaves of a matrix", CONCAVE, "whole + sizes + residual * (inputs + 1)", "whole + sizes", f"{CURVED} -k 'wrong_factor'"),
    Mutant("how far the corners are", CONCAVE, "residual * (inputs + 1)", "residual", f"{CURVED} -k 'wrong_factor'"),
    Mutant("what the weights cost", CONCAVE, ".clamp(min=0).sum(1) + diagonal[:, 0]", ".clamp(min=0).sum(1) + 0.999 * diagonal[:, 0]", f"{CURVED} -k 'cube or one_square or any_parabolas'"),
    Mutant("radius of the box around its centre", FIRST_LAYER, "slopes = rows * radius", "slopes = rows * (0.999 * radius)", f"{CURVED} -k 'said_to_be'"),
    Mutant("rounding of a neuron's input", FIRST_LAYER, "lost = up(lost + gamma(len(size) + 4, _DTYPE) * sizes + 4", "lost = up(0 * lost + 0 * sizes + 4", f"{CURVED} -k 'far_from'"),
    Mutant("the other end of a neuron's input", FIRST_LAYER, "top = up(gap - ceiling)", "top = up(gap - ceiling - 1e-3)", f"{CURVED} -k 'said_to_be'"),
    Mutant("bends that are left over", FIRST_LAYER, "flat.index_fill(-1, at, 0.0)", "flat.index_fill(-1, at, 1e-3)", f"{CURVED} -k 'exact_least or carried or samples'"),
    Mutant("which neurons are of the first layer", FIRST_LAYER, "and ahead and node.op.precision == 0", "and node.op.precision == 0", f"{CURVED} -k 'affine_maps_alone'"),
    Mutant("by neurons: squares of the linear part", CONCAVE, "bend + square + rest.sum(1)", "bend + 0.999 * square + rest.sum(1)", f"{CURVED} -k 'cube or one_square'"),
    Mutant("by neurons: what a matrix leaves", CONCAVE, "+ residual * room)", ")", f"{CURVED} -k 'paid_for'"),
    Mutant("by neurons: scaled weights", CONCAVE, "bend * factor, rest * factor.unsqueeze(1), centre", "bend * factor, rest, centre", f"{CURVED} -k 'cube or one_square'"),
    Mutant("by neurons: the centre's part of a matrix", CONCAVE, "matrix = -(gram / wide + outer", "matrix = -(gram / wide + 0 * outer", f"{CURVED} -k 'paid_for'"),
    Mutant("by neurons: which neurons", CONCAVE, "count = int((q > 0).sum(1).amax())", "count = int((q > 0).sum(1).amin())", f"{CURVED} -k 'each_row'"),
    Mutant("what a domain's decisions say of the first layer", "verify/search/proof.py", "up(z.upper[:, columns] - kink))", "z.upper[:, columns] - kink - 0.1)", f"{CURVED} -k 'decisions_leave_it'"),
    Mutant("float32: a sum's share", REFERENCES, "off = (terms + 2) * unit(SINGLE)", "off = 0.0", f"{SHORT} -k lose_most"),
    Mutant("float32: a row's dot product", REFERENCES, "off = 1.5 * share(vector.shape[-1]) + 4 * unit(SINGLE)", "off = 0.0", f"{SHORT} -k lose_most"),
    Mutant("float32: half of the lines' distance", REFERENCES, "torch.addcmul(gap, half, at.unsqueeze(1)).neg_()", "torch.addcmul(gap, half, at.unsqueeze(1)).mul_(-0.999)", f"{SHORT} -k same_lines"),
    Mutant("float32: rounding of an activation's rows", REFERENCES, "weight = (rho * (8 * unit(SINGLE) + 16 * _U))", "weight = (rho * (16 * _U))", f"{SHORT} -k does_not_have"),
    Mutant("float32: rounding in front of an activation", REFERENCES, "weight.add_(vector, alpha=1 + 8 * unit(SINGLE))", "pass", f"{SHORT} -k lose_most"),
    Mutant("float32: rounding of references", REFERENCES, "most = gamma(op.forward_terms, _DOUBLE)", "most = 0.0", f"{SHORT} -k references"),
    Mutant("float32: uncertain weights", REFERENCES, "total = total if spread is None else 4 * spread if total is None else total + 4 * spread", "pass", f"{SHORT} -k uncertain"),
    Mutant("float32: weights of a start", REFERENCES, "self._cost(node, op, 2 * unit(SINGLE))", "self._cost(node, op, 0.0)", f"{SHORT} -k does_not_have"),
    Mutant("float32: radii of a box", REFERENCES, "radius = torch.maximum(region.upper - at, at - region.lower)", "radius = 0.999 * torch.maximum(region.upper - at, at - region.lower)", f"{SHORT} -k same_lines"),
    Mutant("float32: rounding of the minimum over a ball", SINGLE, "gamma(region.size, SINGLE) * region", "0 * region", f"{SHORT} -k small_squares"),
    Mutant("float32: rounding where paths join", SINGLE, "2 * unit(SINGLE) * self.s.radius(name)", "0 * self.s.radius(name)", f"{SHORT} -k lose_most"),
    Mutant("float32: conversion of a row", SINGLE, "2 * unit(SINGLE) * self.s.radius(node.name)", "0 * self.s.radius(node.name)", f"{SHORT} -k does_not_have"),
    Mutant("float32: a row's value at the reference", SINGLE, "gamma(node.size, torch.float64) * dot(rows.abs()", "0 * dot(rows.abs()", f"{SHORT} -k rows_whose"),
    Mutant("float32: slopes of an activation", SINGLE, "size.mul_(lines.half)", "size.mul_(0.999 * lines.half)", f"{SHORT} -k same_lines"),
    Mutant("float32: slopes behind a start of few", SINGLE, "addcmul_(sizes, lines.half)", "addcmul_(sizes, lines.half, value=0.999)", f"{SHORT} -k same_lines"),
    Mutant("float32: slopes behind a start", SINGLE, "rows.addcmul_(units.of(size), lines.half)", "rows.addcmul_(units.of(size), lines.half, value=0.999)", f"{SHORT} -k same_lines"),
    Mutant("objectives that float32 cannot hold", "verify/bounds/engine.py", "(rest.abs() @ reach.unsqueeze(-1)).squeeze(-1) * (1 + 1e-9)", "0 * (rest.abs() @ reach.unsqueeze(-1)).squeeze(-1)", "tests/test_rounding.py -k takes_for_zero"),
    Mutant("drift of an activation with its slope", BACKWARD, "found = found + drift.reach * (1 + 8 * unit(self.dtype))", "found = found + 0.999 * drift.reach", "tests/test_leak_parametric.py -k drifts_as_far"),
    Mutant("radius beyond a constant's ball", f"{LIPSCHITZ}/anchored.py", "proven = min(radius, self._safe(constant))", "proven = self._safe(constant)", f"{ANCHORED} -k beyond_its_ball"),
    Mutant("radius of a margin and a constant", f"{LIPSCHITZ}/anchored.py", "self.margin / constant * (1 - 2.0**-48)", "1.001 * self.margin / constant", f"{ANCHORED} -k 'beyond_its_ball or no_attack_within_an'"),
    Mutant("share of a chord beyond the kink", f"{LIPSCHITZ}/chords.py", "share = np.minimum(share * (1 + 2.0**-48), 1.0)", "share = 0.99 * np.minimum(share, 1.0)", f"{ANCHORED} -k chords_from"),
    Mutant("forms of a Lipschitz certificate", f"{LIPSCHITZ}/certificate.py", "if is_positive_semidefinite(exactly(held) + rest):", "if True:", "tests/test_lipschitz.py -k too_small"),
    Mutant("rounding of a form's image", f"{LIPSCHITZ}/enlarged.py", "(gamma(terms, torch.float64) * known + uncertain)", "uncertain", "tests/test_lipschitz_enlarged.py -k images"),
    Mutant("error of a linear map", f"{LIPSCHITZ}/enlarged.py", "error @ (known + uncertain)", "0 * known.sum(-2, keepdims=True)", "tests/test_lipschitz_enlarged.py -k images"),
    Mutant("rounding of a square", f"{LIPSCHITZ}/enlarged.py", "square, lost[..., 0] * (1 + gamma", "square, 0 * lost[..., 0] * (1 + gamma", "tests/test_lipschitz_enlarged.py -k square"),
    Mutant("what rounding took of a form behind slopes", f"{LIPSCHITZ}/enlarged.py", "weight * lost + 16", "0 * lost + 16", "tests/test_lipschitz_enlarged.py -k is_added"),
    Mutant("residual of an inverse", f"{LIPSCHITZ}/enlarged.py", "return factor, share * (1 - 4 * _U)", "return factor, 0 * share + 1", "tests/test_lipschitz_enlarged.py -k wrong_inverse"),
    Mutant("an inverse that is none", f"{LIPSCHITZ}/enlarged.py", "if not (share >= 1 - _MOST).all():", "if False:", "tests/test_lipschitz_enlarged.py -k is_none_proves"),
    Mutant("forms at opposite frequencies", f"{LIPSCHITZ}/spectra.py", "found.conj(), found)", "found, found)", "tests/test_lipschitz_fourier.py -k half_of"),
    Mutant("rounding of symbols", f"{LIPSCHITZ}/hermitian.py", "error = (own + given)", "error = (0 * own + given)", "tests/test_lipschitz_fourier.py -k symbols_are"),
    Mutant("sectors of a curve's whole range", f"{LIPSCHITZ}/curve.py", 'asked.__dict__["layers"] = whole', 'asked.__dict__["centred"] = centred(whole)', "tests/test_lipschitz_enlarged.py -k range_of_slopes"),
    Mutant("error of few matrices", f"{LIPSCHITZ}/gram.py", "add_(found - error.unsqueeze(-1))", "add_(found - 0 * error.unsqueeze(-1))", "tests/test_lipschitz_fourier.py -k too_small"),
    Mutant("largest eigenvalue of few matrices", f"{LIPSCHITZ}/gram.py", "if are_positive(rest, 8", "if True or are_positive(rest, 8", "tests/test_lipschitz_fourier.py -k too_small"),
    Mutant("multipliers in front of a window", f"{LIPSCHITZ}/sweeps.py", "[mu * factor for mu in", "[mu for mu in", "tests/test_lipschitz.py -k every_window"),
    Mutant("fixed slopes of a convolution's channels", f"{LIPSCHITZ}/enlarged.py", "found = middle[:, None] * found * middle", "found = middle[:, None] * found * middle if loose.any() else found", "tests/test_lipschitz_fourier.py -k 'scale or fixed'"),
    Mutant("windows over one entry of a maximum", f"{LIPSCHITZ}/window_reader.py", "often = int(torch.bincount(index.flatten(), minlength=count).max())", "often = 1", "tests/test_lipschitz_blocks.py -k 'often_as or choice'"),
    Mutant("masks behind padding", f"{LIPSCHITZ}/torus.py", "Sector(np.where(copied, known.low, low), np.where(copied, known.high, high))", "known", "tests/test_lipschitz_fourier.py tests/test_lipschitz_blocks.py -k 'padding_masks or copies'"),
    Mutant("slopes in front of a maximum", f"{LIPSCHITZ}/window_reader.py", "sector=Sector(-wide, wide), pooled=True", "sector=Sector(0.9 * -wide, 0.9 * wide), pooled=True", "tests/test_lipschitz_blocks.py -k 'often_as or choice'"),
    Mutant("sums of weights through a maximum", f"{LIPSCHITZ}/crude.py", "add(node.inputs[0], sums[node.name].unsqueeze(-1).expand(shape))", "add(node.inputs[0], sums[node.name].unsqueeze(-1).expand(shape) / shape[-1] ** 2)", "tests/test_lipschitz_blocks.py -k choice"),
    Mutant("sums of absolute weights, forwards", f"{LIPSCHITZ}/crude.py", "_raised(op.linear(*before), op.forward_terms)", "_raised(0.999 * op.linear(*before), op.forward_terms)", SUMS),
    Mutant("sums of absolute weights, backwards", f"{LIPSCHITZ}/crude.py", "_raised(part, op.adjoint_terms)", "_raised(0.999 * part, op.adjoint_terms)", SUMS),
    Mutant("sums of weights known up to an error", f"{LIPSCHITZ}/crude.py", "weight = _raised(weight + op.weight_error.double(), 1)", "weight = _raised(weight, 1)", SUMS),
    Mutant("slope handed to auto_LiRPA", "verify/bounds/traceable.py", "return nn.LeakyReLU(slope)", "return nn.LeakyReLU(slope + 1e-3)", THEIRS),
    Mutant("leak, grid: reach of a drift", "verify/leak/charges.py", "bend / width - moved.lower) * width", "bend / width - moved.lower) * width * 0.999", "tests/test_leak_between.py -k as_far_as"),
    Mutant("leak, grid: lines beyond their intervals", "verify/leak/charges.py", "return change, size / 4, sign, noise", "return 0.5 * change, size / 8, sign, noise", BETWEEN),
    Mutant("leak, grid: dips of neurons on a segment", "verify/leak/neurons.py", "least = least - dip * ((1 + 8 * u) / 4)", "least = least - 0.999 * dip * ((1 + 8 * u) / 4)", MIXTURE),
    Mutant("leak, curves: bands of the curvature", "verify/leak/bands.py", "lost + dot(kinked.abs_(), self.kink.error)", "lost + dot(kinked.abs_(), 0.0 * self.kink.error)", BETWEEN),
    Mutant("leak, curves: the curvature where a side moves", "verify/leak/bands.py", "lost = dot(weight, self.blur) if", "lost = 0.0 * dot(weight, self.blur) if", BETWEEN),
    Mutant("leak, curves: strips around a kink", "verify/leak/bands.py", "offset = most.mul_(-0.5)", "offset = most.mul_(-0.4995)", "tests/test_leak_between.py -k strips_around"),
    Mutant("leak, curves: bands of other activations", "verify/leak/bands.py", "blur = (self.own.error + (width / 2) * self.fastest) * (1 + 16 * u)", "blur = 0.0 * self.own.error", BETWEEN),
    Mutant("leak, curves: tangents", "verify/leak/between.py", "+ 8 * u) ** 2 / 4", "+ 8 * u) ** 2 / 8", BETWEEN),
    Mutant("leak, finer grids: dips at the slopes", "verify/leak/finer.py", "value = (1 - w) * first + w * last - w * (1 - w) * dip", "value = (1 - w) * first + w * last - 0.999 * w * (1 - w) * dip", MIXTURE),
    Mutant("leak, finer grids: dips in between", "verify/leak/finer.py", "deep[:, segment[:-1]] * steps**2", "0.999 * deep[:, segment[:-1]] * steps**2", MIXTURE),
    Mutant("leak, float32: coefficients at slopes", "verify/leak/single.py", "sizes = (sizes + off * signed.abs())", "sizes = (0.999 * sizes + off * signed.abs())", IN_SINGLE),
    Mutant("leak, float32: changes of coefficients", "verify/leak/single.py", "change = exact.change.flatten(2) * (1 + off)", "change = 0.999 * exact.change.flatten(2) * (1 + off)", IN_SINGLE),
    Mutant("leak, float32: drifts of both ends", "verify/leak/single.py", "signed = torch.stack([less[0] - before, less[1] + behind], 1)", "signed = torch.stack([less[0] - 0.999 * before, less[1] + behind], 1)", IN_SINGLE),
    Mutant("leak, boxes: the slope's part of a row", "verify/leak/slope_passes.py", "fall = rate.abs() * backward.half.unsqueeze(1)", "fall = 0.999 * rate.abs() * backward.half.unsqueeze(1)", f"{BRANCH} -k fall_with"),
    Mutant("leak, boxes: the line that is asked about", "verify/leak/joint_boxes.py", "-rates.unsqueeze(1).expand", "-0.999 * rates.unsqueeze(1).expand", ROWS),
    Mutant("leak, boxes: what a line is at least", "verify/leak/joint_boxes.py", "return self.level + rise - 1e-15", "return self.level + rise + 1e-3 - 1e-15", f"{BRANCH} -k within_a_thousandth"),
    Mutant("leak, boxes: what is still open", "verify/leak/slope_boxes.py", "[*open_, *self.removed.get(stretch.region, [])]", "[*self.removed.get(stretch.region, [])]", f"{BRANCH} -k 'ctrl_c and boxes'"),
    Mutant("leak, boxes: beside a span", "verify/leak/slope_boxes.py", "walls[:, -1] = end", "walls[:, -1] = end - 1e-3", f"{BRANCH} -k beside"),
    Mutant("leak, boxes: inside a span", "verify/leak/slope_boxes.py", "inside = mine & (lo >= span.lo)", "inside = mine & (lo >= span.lo - 1e-3)", f"{BRANCH} -k beside"),
    Mutant("leak, spans: what is taken out", "verify/leak/closing.py", "at = max(at, part.hi)", "at = max(at, part.hi + 1e-3)", f"{BRANCH} -k spans"),
    Mutant("leak, spans: what meets", "verify/leak/closing.py", "lo <= whole[-1].hi:", "lo <= whole[-1].hi + 1e-3:", f"{BRANCH} -k spans"),
    Mutant("leak, neurons: atoms over a segment", "verify/leak/joint_neurons.py", "torch.maximum(by_passes, by_intervals) - case", "torch.maximum(by_passes, by_intervals) + 1e-3 - case", SPLITS),
    Mutant("leak, neurons: what is unsafe", "verify/leak/joint_neurons.py", "if upper < 0 else None", "if upper < 1e-3 else None", SPLITS),
    Mutant("leak, signs: which domains are proved", "verify/leak/signs.py", "if found.proved and found.lower > 0:", "if found.lower > -1e-3:", SIGNS),
    Mutant("leak, signs: what spans say of pieces", "verify/leak/told.py", "answers.proved if lo <= piece.lo and piece.hi <= hi]", "answers.proved if lo - 1e-3 <= piece.lo and piece.hi <= hi + 1e-3]", SIGNS),
    Mutant("leak, signs: curves between spans", "verify/leak/told.py", "lower = [segment.chord.at(a) for a in places]", "lower = [segment.chord.at(a) + 1e-3 for a in places]", SIGNS),
    Mutant("leak, curves: what inputs refute", "verify/leak/told.py", "(lo, hi, max(x for a, b, x in each", "(lo - 1e-3, hi + 1e-3, max(x for a, b, x in each", f"{BRANCH} -k refuted_before"),
    Mutant("leak, curves: segments that follow each other", "verify/leak/curve.py", "if all(left.lo < left.hi == right.lo < right.hi", "if all(left.lo < left.hi and right.lo < right.hi", "tests/test_leak_curve.py -k lowest_curve"),
    Mutant("leak, raised: the line that was proved", "verify/leak/raised.py", "low = (line.below(s.lo), line.below(s.hi))", "low = (line.below(s.lo) + 1e-3, line.below(s.hi) + 1e-3)", f"{BRANCH} -k within_a_thousandth"),
    Mutant("leak, raised: both parts of a segment", "verify/leak/raised.py", "upper, low = known[a][0], s.chord.at(a)", "upper, low = known[a][0], s.chord.at(a) + 1e-3", f"{BRANCH} -k 'keep_its_chord'"),
    Mutant("leak, rates: slopes of secants", "verify/leak/local.py", "return _best(forms, slopes, objectives, known, start)", "return _best(forms, slopes, objectives, start, start)", LOCAL),
    Mutant("leak, rates: departures over the range", "verify/leak/local.py", "Form((first, first), departures(slopes, known))", "Form((first, first), departures(slopes, start))", LOCAL),
    Mutant("leak, rates: nodes beside a cut", "verify/leak/local.py", "for node, there in ((name, rows), *others.items()):", "for node, there in ((name, rows),):", LOCAL),
    Mutant("leak, moves: secants from where the slope begins", "verify/leak/jacobian.py", "share = up(end / down(end - begin)", "share = up(0.9 * end / down(end - begin)", LOCAL),
    Mutant("leak, moves: entries of a maximum", "verify/leak/moves.py", "lower.amin(-1), upper.amax(-1)", "lower.amax(-1), upper.amax(-1)", LOCAL),
    Mutant("leak, moves: departures", "verify/leak/moves.py", "return found if own is None else Interval(down(found.lower + own.lower), up(found.upper + own.upper))", "return found", LOCAL),
    Mutant("leak, moves: no bias moves", "verify/leak/moves.py", "op=replace(node.op, bias=None, bias_error=None)", "op=node.op", LOCAL),
    Mutant("leak, rates: sums of entries", "verify/leak/local.py", "return flat.sum(-1) +", "return 0.999 * flat.sum(-1) +", LOCAL),
    Mutant("leak, rates: margins of several rows", "verify/leak/local.py", "return low.amin(-1), high.amax(-1)", "return low.amax(-1), high.amin(-1)", LOCAL),
    Mutant("leak, closed form: paths that join", "verify/leak/closed_form.py", "up(tails[name] + more)", "up(tails[name] + 0.999 * more)", CLOSED),
    Mutant("leak, closed form: lengths along a path", "verify/leak/closed_form.py", "found = up(tail * factor)", "found = up(0.999 * tail * factor)", CLOSED),
    Mutant("leak, closed form: the steepest slope of a range", "verify/leak/closed_form.py", "steepest = torch.maximum(_steepest(node), _steepest(last))", "steepest = _steepest(node)", CLOSED),
    Mutant("leak, stages: whose neurons were bounded before", "verify/leak/stages.py", "return grid.pick(place)", "return grid.pick(torch.arange(len(regions)))", "tests/test_leak_stages.py -k earlier_stage"),
    Mutant("leak, slopes: activations that are alike", "models/slopes.py", "found.setdefault((len(node.shape), op.precision, each), [])", "found.setdefault((len(node.shape), op.precision), [])", "tests/test_slopes.py"),
    Mutant("leak, rates in parts: the largest mean", "verify/leak/stepwise.py", "trusted_upper(means.amax(1)", "trusted_upper(means[:, -1]", "tests/test_leak_stepwise.py"),
    Mutant("leak, rates in parts: a part's rate", "verify/leak/stepwise.py", "return -_largest_mean(-low, ends)", "return -0.999 * _largest_mean(-low, ends)", "tests/test_leak_stepwise.py"),
    Mutant("leak, rough lines: dips", "verify/leak/rough.py", "dips = walk.dips.expand", "dips = 0 * walk.dips.expand", "tests/test_leak_between.py -k rough"),
    Mutant("what a decision implies: the gain", IMPLIED, "gain = torch.minimum(mine, theirs", "gain = 1.001 * torch.minimum(mine, theirs", IMPLYING),
    Mutant("what a decision implies: the constraint's own minimum", IMPLIED, "fall = floors[some].clamp(max=0)", "fall = 0.999 * floors[some].clamp(max=0)", IMPLYING),
    Mutant("what a decision implies: the side", IMPLIED, "self.count * (sign > 0)", "self.count * (sign < 0)", IMPLYING),
    Mutant("what a decision implies: the kink", IMPLIED, "torch.cat([kink, -kink])", "1.001 * torch.cat([kink, -kink])", IMPLYING),
    Mutant("what a decision implies: rounding of the sum", IMPLIED, "found = down(down(floors + down(best * fall)) + gain)", "found = floors + best * fall + gain", IMPLYING),
    Mutant("what a decision implies: single precision", IMPLIED, "table = torch.where(table.double() > exact", "table = torch.where(table.double() > torch.inf", IMPLYING),
    Mutant("domains that hold no input", "verify/search/batch.py", "self.within.lower > self.within.upper", "self.within.lower + 0.3 > self.within.upper", IMPLYING),
    Mutant("quotients by a number", ROUNDING, "return x / x.new_tensor(divisor)", "return x / divisor", f"{DEVICE} -k quotient"),
    Mutant("what a device computes", "verify/arithmetic.py", "    if not well:", "    if not well and not what:", f"{DEVICE} -k noticed"),
    Mutant("products in TF32 on a GPU", "verify/arithmetic.py", "if not whole_products():", "if False:", f"{DEVICE} -k tf32"),
    Mutant("emulated products on a GPU", "verify/arithmetic.py", 'SHORTENING = ("NVIDIA_TF32_OVERRIDE", ', "SHORTENING = (", f"{DEVICE} -k shorten"),
)  # fmt: skip


if __name__ == "__main__":
    main(MUTANTS)
