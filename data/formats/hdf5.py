"""Reading HDF5 from untrusted hands: only what is stored in the very file, never what it points to."""

import h5py
import numpy as np

from ..episodes import Array
from ..errors import DataError


def names(group: h5py.Group) -> list[str]:
    """Members of a group."""
    return [str(name) for name in group]


def is_group(parent: h5py.Group, name: str) -> bool:
    """Whether the member is a group."""
    return isinstance(_inside(parent, name), h5py.Group)


def group(parent: h5py.Group, name: str) -> h5py.Group:
    """The group of this name."""
    node = _inside(parent, name)
    if not isinstance(node, h5py.Group):
        raise DataError(f"{parent.name}/{name} must be a group")
    return node


def array(parent: h5py.Group, name: str) -> Array:
    """The dataset of this name, read whole."""
    node = dataset(parent, name)
    return (
        node[()] if h5py.check_string_dtype(node.dtype) is None else np.asarray(node.asstr()[()], dtype=str)
    )


def dataset(parent: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset of this name, not read yet."""
    node = _inside(parent, name)
    if not isinstance(node, h5py.Dataset):
        raise DataError(f"{parent.name}/{name} is a group inside a group; those are not read")
    return node


def stored(values: Array) -> Array:
    """An array as HDF5 keeps it: text as UTF-8 of one length, which compresses well."""
    if values.dtype.kind != "U":
        return values
    encoded = np.char.encode(values, "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))


def text(parent: h5py.Group, attribute: str, default: str) -> str:
    """A text attribute."""
    value = parent.attrs.get(attribute, default)
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise DataError(f"attribute {attribute!r} of {parent.name} must be text, got {type(value).__name__}")
    return value


def _inside(parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """A member by hard link: others, and external or virtual storage, can name any file on the disk."""
    if name not in parent:
        raise DataError(f"{parent.name} has no {name!r}; it holds {sorted(parent)}")
    node = parent[name] if isinstance(parent.get(name, getlink=True), h5py.HardLink) else None
    if isinstance(node, h5py.Group):
        return node
    if isinstance(node, h5py.Dataset) and not node.external and not node.is_virtual:
        return node
    raise DataError(f"{parent.name}/{name} points outside the file; copy its contents into the file first")
