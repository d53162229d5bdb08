"""Labelled data: what comes out of each format, and what is refused, with its place."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from leaktight.errors import DataError
from leaktight.specs.data import LabelledData, fit, read_data

BENCH = Path(__file__).resolve().parents[1].parent / "shared" / "bench" / "datasets"

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3) * 10
LABELS = np.array([3, 0, 2, 1], dtype=np.uint8)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, *, packed: bool = False, labels: bytes | None = None) -> Path:
    suffix, pack = (".gz", gzip.compress) if packed else ("", bytes)
    images = folder / f"few-images-idx3-ubyte{suffix}"
    images.write_bytes(pack(idx(IMAGES)))
    (folder / f"few-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(LABELS) if labels is None else labels))
    return images


@pytest.mark.parametrize("packed", [False, True])
def test_idx_images_find_their_labels_by_name(tmp_path: Path, packed: bool) -> None:
    path = write_idx(tmp_path, packed=packed)
    data = read_data(path)
    assert data.inputs.dtype == torch.float64
    assert data.labels.dtype == torch.int64
    assert data.inputs.tolist() == IMAGES.tolist()
    assert data.labels.tolist() == LABELS.tolist()
    assert (data.path, data.sha256) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def test_idx_labels_can_be_named_and_inputs_limited(tmp_path: Path) -> None:
    path = write_idx(tmp_path)
    other = tmp_path / "other"
    other.write_bytes(idx(LABELS[::-1].copy()))
    data = read_data(path, labels=other, limit=2, shape=(1, 3, 2))
    assert data.inputs.shape == (2, 1, 3, 2)
    assert data.labels.tolist() == [1, 2]


def test_idx_holds_big_endian_numbers_of_several_types(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.25], [300.0, 0.1]])
    (tmp_path / "images").write_bytes(idx(values.astype(">f8"), 14))
    (tmp_path / "labels").write_bytes(idx(np.array([7, 260], dtype=">i4"), 12))
    data = read_data(tmp_path / "images")
    assert data.inputs.tolist() == values.tolist()
    assert data.labels.tolist() == [7, 260]


@pytest.mark.parametrize("names", [("x", "y"), ("X", "y"), ("inputs", "labels"), ("data", "target")], ids="-".join)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_arrays_go_by_several_names(tmp_path: Path, names: tuple[str, str], save: object) -> None:
    x = np.random.default_rng(0).normal(size=(5, 2, 2)).astype(np.float32)
    arrays = {names[0]: x, names[1]: np.arange(5.0)[:, None]}
    save(tmp_path / "d.npz", **arrays)  # type: ignore[operator]
    data = read_data(tmp_path / "d.npz", limit=3)
    assert np.array_equal(data.inputs.numpy(), x[:3].astype(np.float64))
    assert data.labels.tolist() == [0, 1, 2]


def test_npz_in_column_major_order_keeps_its_entries(tmp_path: Path) -> None:
    x = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    np.savez(tmp_path / "d.npz", x=x, y=[0, 1, 2])
    assert read_data(tmp_path / "d.npz", limit=2).inputs.tolist() == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("1,0.5,2\n0,1e-3,-4\n", None),
        ("label,a,b\n# a comment\n1,0.5,2\n\n0,.001,-4.0", None),
        ("1;0.5;2\r\n0;0.001;-4\r\n", 0),
        ("\ufeff1\t0.5\t2\n0\t0.001\t-4", None),
        ("  1 0.5   2\n0 0.001 -4\n", None),
        ("0.5,2,1\n0.001,-4,0", -1),
        ("0.5,1,2\n0.001,0,-4", 1),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_tables_are_read_whatever_their_separator(tmp_path: Path, text: str, column: int | None, packed: bool) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    data = read_data(path, labels=column)
    assert data.inputs.tolist() == [[0.5, 2.0], [0.001, -4.0]]
    assert data.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "d.csv: the table has no rows"),
        ("label,a\n", "d.csv: the table has no rows below its titles"),
        ("0,1\n1,x\n", "d.csv:2: cell 2 is 'x'; expected a number"),
        ("3,oops,1\n", "d.csv:1: cell 2 is 'oops'"),
        ("0,1\n1,2,3\n", "d.csv:2: this row has 3 cells, the first one 2"),
        ("0,1\n1,nan\n", "d.csv: input 1 has NaN or infinite values"),
        ("0,1\n-1,2\n", r"d.csv: input 1 has label -1.0; labels are class numbers"),
        ("0.5,1\n", "d.csv: input 0 has label 0.5"),
        ("nan,1\n", "d.csv: input 0 has"),
        ("5\n", r"d.csv:1: the row has 1 cells; expected a label \(column 0\)"),
        ("0,1\0\n", "d.csv:1: the file is not text"),
    ],
)
def test_wrong_tables_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_data(tmp_path / "d.csv")


def npz(**arrays: object) -> object:
    return lambda folder: np.savez(folder / "d.npz", **arrays)  # type: ignore[arg-type]


def huge(folder: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
    with zipfile.ZipFile(folder / "d.npz", "w") as archive:
        for name in "xy":
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (npz(x=np.zeros((2, 3))), "the file has none of y, Y, labels.* \\(it has x\\)"),
        (npz(x=np.zeros((2, 3)), X=np.zeros((2, 3)), y=[0, 1]), "the file has both x and X"),
        (npz(x=np.zeros((2, 3)), y=[0]), "there are 2 inputs, but 1 labels"),
        (npz(x=np.zeros((2, 3)), y=np.zeros((2, 10))), r"2 inputs, but the labels have the shape \[2, 10\]"),
        (npz(x=np.zeros(2), y=[0, 1]), r"the inputs have the shape \[2\]; expected \(N, entries"),
        (npz(x=np.zeros((0, 2)), y=np.zeros(0)), r"the inputs have the shape \[0, 2\]"),
        (npz(x=np.array([["a"]]), y=[0]), "the inputs are of type <U1"),
        (npz(x=np.array([[None]]), y=[0]), r"array 'x' holds objects \(pickled\)"),
        (npz(x=np.zeros((1, 2)), y=[2**64 - 1]), "input 0 has label 18446744073709551615"),
        (npz(x=np.full((2, 2), np.inf), y=[0, 1]), "input 0 has NaN or infinite values"),
        (huge, r"array 'x' holds 1000000000000 numbers \(shape \[1000000, 1000000\]\); at most"),
        (lambda folder: (folder / "d.npz").write_bytes(b"PK\x03\x04 nothing more"), "the npz file cannot be read"),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        read_data(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (idx(LABELS)[:-1], "few-labels-idx1-ubyte: the file is truncated: 4 bytes are announced and 3 came"),
        (idx(LABELS[:3].copy()), "there are 4 inputs, but 3 labels"),
        (idx(LABELS)[:6], "truncated in its header"),
        (b"hello", "this is not an idx file"),
    ],
)
def test_wrong_idx_labels_are_refused(tmp_path: Path, labels: bytes, message: str) -> None:
    path = write_idx(tmp_path, labels=labels)
    with pytest.raises(DataError, match=message):
        read_data(path)


def test_idx_without_labels_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write_idx(tmp_path)
    (tmp_path / "few-labels-idx1-ubyte").unlink()
    for message, arguments in (
        ("no file of labels was found beside it .looked for few-labels-idx1-ubyte", {}),
        ("there is no such file", {"labels": tmp_path / "absent"}),
        ("labels of idx files are in a second file", {"labels": 0}),
        ("limit 0 takes no input", {"limit": 0}),
    ):
        with pytest.raises(DataError, match=message):
            read_data(path, **arguments)  # type: ignore[arg-type]
    path.write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**15, 2**15))
    with pytest.raises(DataError, match="the file holds 2305843009213693952 numbers"):
        read_data(path, labels=path)
    packed = tmp_path / "d.gz"
    packed.write_bytes(gzip.compress(idx(IMAGES))[:-5])
    with pytest.raises(DataError, match="the gzip data is damaged"):
        read_data(packed, labels=packed)


def test_missing_files_folders_and_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: there is no such file"):
        read_data(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="this is a folder"):
        read_data(tmp_path)
    (tmp_path / "d.csv").write_text("0,1,2\n")
    for message, arguments in (
        ("labels of a table are in one of its columns", {"labels": "labels.csv"}),
        (r"each input has the shape \[2\], which is not \[3\]", {"shape": (3,)}),
        (r"expected a label \(column 7\)", {"labels": 7}),
    ):
        with pytest.raises(DataError, match=message):
            read_data(tmp_path / "d.csv", **arguments)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Port:
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Classifier:
    """What `fit` asks of a network."""

    shape: tuple[int, ...]
    output_size: int = 10

    @property
    def inputs(self) -> list[Port]:
        return [Port(self.shape)]

    @property
    def input_size(self) -> int:
        return int(np.prod(self.shape))


def labelled(*shape: int, label: int = 9) -> LabelledData:
    entries = torch.arange(2 * int(np.prod(shape)), dtype=torch.float64)
    return LabelledData(entries.reshape(2, *shape), torch.tensor([0, label]), "d.npz", "")


@pytest.mark.parametrize(("given", "wanted"), [((28, 28), (1, 784)), ((12,), (1, 3, 2, 2)), ((2, 3), (1, 1, 2, 3))])
def test_data_fits_a_network_with_the_same_entries_in_order(given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    data = labelled(*given)
    assert torch.equal(fit(data, Classifier(wanted)).inputs, data.inputs)


@pytest.mark.parametrize("shape", [(4, 5, 3), (60,)])
def test_channels_last_is_turned_only_when_asked(shape: tuple[int, ...]) -> None:
    data, network = labelled(*shape), Classifier((1, 3, 4, 5))
    turned = fit(data, network, channels_last=True).inputs
    assert turned.shape == (2, 3, 4, 5)
    for row, column, channel in ((0, 0, 0), (3, 4, 2), (1, 2, 1)):
        assert turned[1, channel, row, column] == data.inputs[1].flatten()[(row * 5 + column) * 3 + channel]


@pytest.mark.parametrize(
    ("data", "network", "last", "message"),
    [
        (labelled(5), Classifier((1, 4)), False, "each input has 5 entries .* but the network has 4 inputs"),
        (labelled(4, 4, 3), Classifier((1, 3, 4, 4)), False, r"shape \[4, 4, 3\], but the network takes \[3, 4, 4\]"),
        (
            labelled(4, label=10),
            Classifier((1, 4)),
            False,
            "input 1 has label 10, but the network has the classes 0 to 9",
        ),
        (labelled(4), Classifier((1, 4)), True, "channels_last needs a network whose only input is"),
        (labelled(3, 4, 4), Classifier((1, 3, 4, 4)), True, r"\[3, 4, 4\]; with channels_last .* needs \[4, 4, 3\]"),
    ],
)
def test_data_that_does_not_fit_is_refused(data: LabelledData, network: Classifier, last: bool, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(data, network, channels_last=last)


@pytest.mark.skipif(not BENCH.is_dir(), reason="the public data sets are not beside the repository")
def test_public_data_sets_are_read_as_they_are_published() -> None:
    mnist = read_data(BENCH / "t10k-images-idx3-ubyte.gz")
    assert mnist.inputs.shape == (10_000, 28, 28)
    assert torch.bincount(mnist.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (float(mnist.inputs.min()), float(mnist.inputs.max())) == (0, 255)
    cifar = read_data(BENCH / "cifar10_test_200.csv", limit=50)
    assert cifar.inputs.shape == (50, 3072)
    assert set(cifar.labels.tolist()) <= set(range(10))
