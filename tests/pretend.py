"""A device that is not there: tensors that say they are elsewhere, hold ordinary numbers, and refuse what a GPU would.

Torch on the processor has no second device, so `Pretend` makes one. Its tensors report the device ``meta`` (the only
label that torch takes without a library behind it) and wrap a tensor of the processor. Every operator is computed on
what they wrap, and refused where CUDA refuses it: operands on two devices, but for single numbers where operators take
these from the processor; index tensors elsewhere; random numbers from a generator of the processor; `numpy`. Divisions
by a number of the processor are products with its reciprocal, as torch's CUDA kernels have it.

`backwards` sums matrix products in another order; `shortened` makes them of fewer digits, as TF32 does.
"""

from __future__ import annotations

import math
import traceback
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from leaktight.models.placed import PROCESSOR
from leaktight.verify.device import Device

ELSEWHERE = torch.device("meta")
DEVICE = Device(ELSEWHERE)
aten = torch.ops.aten


class Elsewhere(Tensor):
    """A tensor of the pretended device, which wraps `here`."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=ELSEWHERE,
        )
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} was asked in a thread that knows no pretended device")

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Elsewhere({self.here!r})"


# single numbers may come from the processor: what torch builds with TensorIterator and scalars allowed
_WITH_NUMBERS = {
    "add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "maximum", "minimum", "where", "eq", "ne", "lt",
    "le", "gt", "ge", "logical_and", "logical_or", "bitwise_and", "bitwise_or", "bitwise_and_", "bitwise_or_", "pow",
    "fill_", "addcmul", "addcmul_", "remainder", "floor_divide", "atan2", "fmod", "copysign", "masked_fill",
    "masked_fill_",
}  # fmt: skip
_COPIES = {"_to_copy", "copy_"}
_NOTHING = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
}  # what they hold is seen to be wrong
_PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm", "mv", "dot", "addmv"}
_DATA = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)


class _MadeOfData(TorchFunctionMode):
    """Torch makes tensors of Python's numbers without the numbers where the device is ``meta``; here they come along.

    Also where they are indices. And lists of the numbers of tensors like ours, which torch does not make.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Elsewhere):
            args = (args[0], _index(args[1]), *args[2:])
        if func in _DATA:
            where = kwargs.get("device")
            if func is Tensor.new_tensor:
                like, args = args[0], args[1:]
                where, kwargs = where or like.device, {"dtype": like.dtype, **kwargs}
                func = torch.tensor
            if where is not None and torch.device(where) == ELSEWHERE:
                if args and isinstance(args[0], Tensor):
                    return args[0].to(ELSEWHERE, kwargs.get("dtype") or args[0].dtype)
                return func(*args, **{**kwargs, "device": "cpu"}).to(ELSEWHERE)
        return func(*args, **kwargs)


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_index(part) for part in index)
    return torch.tensor(index, device="cpu").to(ELSEWHERE) if isinstance(index, list) else index


class Pretend(TorchDispatchMode):
    """While it is entered, there is a device called ``meta`` that computes; `calls` counts its operators.

    reciprocals: the functions of leaktight in which tensors were divided by a number that is no power of two.
    """

    def __init__(self, *, backwards: bool = False, shortened: bool = False) -> None:
        super().__init__()
        self.backwards, self.shortened, self.calls = backwards, shortened, 0
        self.reciprocals = set[str]()
        self._data = _MadeOfData()

    def __enter__(self) -> Pretend:
        self._data.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._data.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat = list[Any]()
        here = tuple(_unwrapped(x, flat) for x in args)
        named = {key: _unwrapped(x, flat) for key, x in kwargs.items()}
        target = kwargs.get("device")
        made = target is not None and torch.device(target) == ELSEWHERE
        if not made and not any(isinstance(x, Elsewhere) for x in flat):
            return func(*args, **kwargs)
        self.calls += 1
        name = func.overloadpacket.__name__
        _check(func, name, args, flat, made)
        if made:
            named["device"] = PROCESSOR
        found = self._computed(func, name, here, named, flat)
        if name in _NOTHING:
            found.fill_(torch.nan if found.is_floating_point() else True if found.dtype == torch.bool else 99)
        if name in _COPIES and target is not None and not made:
            return found
        return _back(found, flat)

    def _computed(self, func: Any, name: str, args: Any, kwargs: Any, flat: list[Any]) -> Any:
        if name in ("div", "div_") and len(args) > 1 and not kwargs.get("rounding_mode"):
            number = args[1]
            alone = all(not isinstance(x, Elsewhere) or x.here is not number for x in flat)
            if alone and args[0].is_floating_point():
                if isinstance(number, Tensor) and number.dim() == 0:
                    number = number.to(args[0].dtype) if number.is_floating_point() else number.double()
                if math.frexp(float(number))[0] != 0.5:  # a power of two loses nothing
                    self.reciprocals.add(_place())
                inverse = 1 / torch.as_tensor(float(number), dtype=args[0].dtype)
                return (args[0].mul_ if name == "div_" else args[0].mul)(inverse)
        if name in _PRODUCTS and (self.backwards or self.shortened):
            args = self._other(name, args)
        return func(*args, **kwargs)

    def _other(self, name: str, args: Any) -> Any:
        """The factors of a product, in another order or with fewer digits."""
        at = 1 if name.startswith(("add", "badd")) else 0
        first, second = args[at], args[at + 1]
        if self.backwards and first.is_floating_point():
            first, second = first.flip(-1), second.flip(-2 if second.dim() > 1 else -1)
        if self.shortened and first.dtype == torch.float32:
            first, second = (_few_digits(x) for x in (first, second))
        return (*args[:at], first, second, *args[at + 2 :])


def _unwrapped(value: Any, flat: list[Any]) -> Any:
    """What is computed with; `flat` gets all the tensors and generators that are met on the way."""
    if isinstance(value, Elsewhere):
        flat.append(value)
        return value.here
    if isinstance(value, (Tensor, torch.Generator)):
        flat.append(value)
    elif isinstance(value, (list, tuple)):
        return [_unwrapped(part, flat) for part in value]
    return value


def _back(found: Any, flat: list[Any]) -> Any:
    """Results as tensors of the device; where an operand was changed in place, that operand."""
    if isinstance(found, (list, tuple)):
        return [_back(part, flat) for part in found]
    if not isinstance(found, Tensor) or isinstance(found, Elsewhere):
        return found
    for x in flat:
        if x is found:
            return x
        if isinstance(x, Elsewhere) and x.here is found:
            return x
    return Elsewhere(found)


def _place() -> str:
    """The function of leaktight that is at work, as ``room/module.function``."""
    frames = [frame for frame in traceback.extract_stack() if "/leaktight/" in frame.filename]
    return f"{frames[-1].filename.rpartition('/leaktight/')[2].removesuffix('.py')}.{frames[-1].name}" if frames else ""


def _few_digits(x: Tensor) -> Tensor:
    """float32 with the ten digits behind the point that TF32 keeps."""
    return (x.contiguous().view(torch.int32) & -(1 << 13)).view(torch.float32)


def _check(func: Any, name: str, args: Any, flat: list[Any], made: bool) -> None:
    """Raises RuntimeError: CUDA refuses these operands."""
    strangers = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, Elsewhere)]
    if made and any(isinstance(x, torch.Generator) for x in flat):
        raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
    if name in _COPIES or not strangers:
        return
    if name in ("index", "index_put", "index_put_", "_unsafe_index"):
        _check_index(func, name, args)
        return
    if name in _WITH_NUMBERS and all(x.dim() == 0 for x in strangers) and not _writes_here(name, args):
        return
    raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found cuda:0 and cpu")


def _writes_here(name: str, args: Any) -> bool:
    """Whether the operator would put a result of the device into a tensor of the processor."""
    return name.endswith("_") and isinstance(args[0], Tensor) and not isinstance(args[0], Elsewhere)


def _check_index(func: Any, name: str, args: Any) -> None:
    """Indices may come from the processor; what is indexed and what is put there may not (but for a single number)."""
    whole, value = args[0], args[2] if name.startswith("index_put") else None
    if not isinstance(whole, Elsewhere):
        raise RuntimeError(f"{func}: indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    if isinstance(value, Tensor) and not isinstance(value, Elsewhere) and value.dim():
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found cuda:0 and cpu")
