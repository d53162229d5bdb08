"""Letting only plain data through: a ``.pt2`` archive is checked and rewritten before torch sees it.

torch.export.load trusts its file. It unpickles weights and example inputs, evaluates symbolic shapes as Python, looks
up operators by dotted name, writes names from the file into generated Python, imports classes that the structure of
inputs names, and loads compiled libraries. Here an archive is taken apart; each part must be of a kind that can carry
no code, and torch loads a new archive made of those parts alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from leaktight.errors import ModelError
from leaktight.models.exporting import quiet, reason

MAX_BYTES = 4 << 30  # of all parts together, unpacked
_ROOT = "archive"
_MODEL, _SAMPLE = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MARKS = (
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
    ".data/alignment",
    ".format_version",
    ".storage_alignment",
)
_PAYLOAD = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_NAME = re.compile(r"[\w.\-+]*", re.ASCII)
_TREE = re.compile(r"[\w.\-+ \[\]{}\"\\,:]*", re.ASCII)
_ATEN = re.compile(r"torch\.ops\.aten\.[a-z]\w*\.\w+", re.ASCII)
_ARITHMETIC = re.compile(r"_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|neg|eq|ne|lt|le|gt|ge|pow)")
_TREES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
_SYMBOLIC = re.compile(
    r"(?:[()+\-/,= ]|\*(?!\*)|\d+|'[a-z]\w*'|\b(?:Symbol|Integer|Add|Mul|Max|Min|Mod|FloorDiv"
    r"|PythonMod|positive|nonnegative|integer|True|False|[su]\d+)\b)*",
    re.ASCII,
)
# Kinds of arguments that are more than tensors, numbers and names.
_REFUSED_KEYS = ("as_graph", "as_operator", "as_custom_obj", "custom_obj")


def plain_archive(path: str) -> tuple[bytes, str]:
    """The bytes of an archive equivalent to the one at `path` that can carry no code, and the SHA-256 of the file.

    Raises ModelError: there is no such file, it is not an archive that torch.export.save wrote, or some part of it is
    not plain data; names the part.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file; give the path of a .pt2 archive")
    try:
        data = Path(path).read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = _parts(archive, path)
    except OSError as error:
        raise ModelError(f"{path}: the file cannot be read ({error.strerror}); check its permissions") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path}: this is not a complete .pt2 archive ({reason(error)}); save it again with torch.export.save"
        ) from error
    checked = dict(_checked(parts, path))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in checked.items():
            archive.writestr(f"{_ROOT}/{name}", content)
    return buffer.getvalue(), hashlib.sha256(data).hexdigest()


def _parts(archive: zipfile.ZipFile, path: str) -> dict[str, bytes]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    size = sum(entry.file_size for entry in entries)
    if size > MAX_BYTES:
        raise ModelError(f"{path}: the archive unpacks to {size} bytes; at most {MAX_BYTES} are allowed")
    parts: dict[str, bytes] = {}
    for entry in entries:
        name = entry.filename.partition("/")[2]
        if name in parts:
            raise _refused(path, entry.filename, "it occurs twice")
        parts[name] = archive.read(entry)
    if _MODEL not in parts:
        raise ModelError(
            f"{path}: the archive has no {_MODEL}; it was saved by an old torch or holds no exported"
            " program; save it again with torch.export.save"
        )
    return parts


def _refused(path: str, part: str, why: str) -> ModelError:
    return ModelError(
        f"{path}: part {part!r} of the archive is refused: {why}; only tensors and standard operators are"
        " allowed, because anything else could run code when loaded; export the network to ONNX"
    )


def _checked(parts: dict[str, bytes], path: str) -> Iterator[tuple[str, bytes]]:
    for name, content in parts.items():
        if name == _MODEL:
            yield name, _checked_model(content, path)
        elif name in _CONFIGS:
            yield name, _checked_config(content, name, path)
        elif name == _SAMPLE:
            _must_be_tensors(content, path)
            yield name, content
        elif name in _MARKS or _PAYLOAD.fullmatch(name):
            yield name, content
        elif not name.startswith("extra/"):  # files of the user's own are left behind
            raise _refused(path, name, "it may hold compiled or pickled code")


def _document(content: bytes, part: str, path: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused(path, part, f"it is not JSON ({reason(error)})") from error
    if not isinstance(found, dict):
        raise _refused(path, part, "it is not a JSON object")
    return found


def _checked_config(content: bytes, part: str, path: str) -> bytes:
    found = _document(content, part, path)
    entries = found.get("config")
    if not isinstance(entries, dict):
        raise _refused(path, part, "it has no table of tensors")
    for name, entry in entries.items():
        plain = isinstance(entry, dict) and entry.get("use_pickle") is False and entry.get("tensor_meta") is not None
        if not plain or not _PAYLOAD.fullmatch(f"{part.rpartition('/')[0]}/{entry.get('path_name')}"):
            raise _refused(path, part, f"entry {name!r} is not a plain tensor")
    _check_names(found, part, path)
    return json.dumps(found).encode()


def _must_be_tensors(content: bytes, path: str) -> None:
    try:
        with quiet():
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise _refused(path, _SAMPLE, "the example inputs are not plain tensors") from error


def _checked_model(content: bytes, path: str) -> bytes:
    """The program without the metadata that its meaning does not need, with nothing in it but names and numbers."""
    model = _document(content, _MODEL, path)
    try:
        graph_module = model["graph_module"]
        nodes = graph_module["graph"]["nodes"]
        for node in nodes:
            node["metadata"], name = {}, node["target"]
            if not (_ATEN.fullmatch(name) or _ARITHMETIC.fullmatch(name)) or "from_file" in name:
                raise _refused(path, _MODEL, f"operator {name!r} is not a standard one")
        graph_module["metadata"] = {}
        calls = [call for call in graph_module["module_call_graph"] if call["fqn"] == ""]
        graph_module["module_call_graph"] = calls
        for call in calls:
            _check_call(call["signature"], path)
        if graph_module.get("treespec_namedtuple_fields"):
            raise _refused(path, _MODEL, "its inputs or outputs are named tuples")
        if graph_module["graph"].get("custom_obj_values"):
            raise _refused(path, _MODEL, "it has objects of its own")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _refused(path, _MODEL, f"it is not an exported program ({reason(error)})") from error
    model["guards_code"] = []  # they only guard the shapes that the program was exported for
    _check_names(model, _MODEL, path)
    return json.dumps(model).encode()


def _check_call(signature: dict[str, Any], path: str) -> None:
    for name in signature.get("forward_arg_names") or ():
        if not name.isidentifier():
            raise _refused(path, _MODEL, f"argument name {name!r} is not an identifier")
    for key in ("in_spec", "out_spec"):
        if signature.get(key):
            version, tree = json.loads(signature[key])
            _check_tree(tree, path)
            signature[key] = json.dumps([version, tree])


def _check_tree(tree: dict[str, Any], path: str) -> None:
    context = json.loads(tree["context"]) if tree["context"] is not None else None
    keys = context if isinstance(context, list) else []
    if tree["type"] not in _TREES or not (context is None or isinstance(context, list)):
        raise _refused(path, _MODEL, f"its inputs or outputs are {tree['type']!r}")
    if not all(isinstance(key, str) and _NAME.fullmatch(key) for key in keys):
        raise _refused(path, _MODEL, "its inputs or outputs have keys that are not plain names")
    for child in tree["children_spec"]:
        _check_tree(child, path)


def _check_names(value: Any, part: str, path: str, key: str = "") -> None:
    """Every string is a plain name, or a symbolic shape made of numbers and known words."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _REFUSED_KEYS and inner is not None:
                raise _refused(path, part, f"it has an entry {name!r}")
            _check_names(name, part, path)
            _check_names(inner, part, path, name)
    elif isinstance(value, list):
        for inner in value:
            _check_names(inner, part, path, key)
    elif isinstance(value, str):
        allowed = _SYMBOLIC if key == "expr_str" else _TREE if key in ("in_spec", "out_spec") else _NAME
        if not allowed.fullmatch(value):
            raise _refused(path, part, f"{value[:80]!r} is not a plain name")
