"""Bytes of policy servers: msgpack maps with arrays inside, strictly read.

The layout is that of openpi's client (github.com/Physical-Intelligence/openpi, packages/openpi-client): an array is a
map with the bytes keys `__ndarray__`, `data`, `dtype` and `shape`, a numpy scalar one with `__npgeneric__`. Nothing is
ever unpickled. A frame is walked before anything of it is built: it is as long as it says, holds no extension types,
and neither nests nor counts beyond the limits.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...data.errors import ConfigError, TransportError

PROTOCOL = 1
MAX_BYTES = 64 * 2**20  # of one frame
MAX_VALUES = 20_000  # in one frame; an array counts as one map, whatever its size
MAX_DEPTH = 16

DTYPES = ("|b1", "|u1", "|i1", "<u2", "<u4", "<u8", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
_MAX_AXES = 8


class WireError(TransportError):
    """A frame is not what both sides agreed on."""


def require_serving() -> None:
    """Raise unless the packages of the `serve` extra are there."""
    try:  # with what connecting needs, so that no call's deadline has to pay for the import
        import msgpack  # noqa: F401
        import websockets.asyncio.client  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"policy servers need {error.name}; install it with: pip install 'sensorimotor[serve]'"
        ) from error


def encode(message: Mapping[str, Any]) -> bytes:
    """One frame.

    Args:
        message: str, bytes, bool, int, float and None in maps and lists, and numpy arrays and scalars.

    Raises:
        WireError: for what has no place on the wire.
    """
    import msgpack

    try:
        return msgpack.Packer(default=_pack_array).pack(message)
    except (ValueError, OverflowError) as error:  # text that is no Unicode, too deep a nesting
        raise WireError(f"a message cannot be written as msgpack: {error}") from error


def decode(frame: bytes, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The message in a frame; arrays are read-only views of it.

    Raises:
        WireError: unless the frame is one map within the limits.
    """
    import msgpack

    if len(frame) > limit:
        raise WireError(f"a frame of {len(frame)} bytes exceeds the limit of {limit}")
    if (end := _walk(frame)) != len(frame):
        raise WireError(f"a frame of {len(frame)} bytes holds a value that ends at byte {end}")
    try:
        message = msgpack.unpackb(frame, raw=False, strict_map_key=True, object_hook=_unpack_array)
    except WireError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"a frame is not msgpack: {error}") from error
    if not isinstance(message, dict):
        raise WireError(f"a frame must hold a map, got {type(message).__name__}")
    return message


def _pack_array(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray | np.generic):
        raise WireError(
            f"{type(value).__name__} has no place on the wire; send numbers, text and numpy arrays"
        )
    dtype = value.dtype.newbyteorder("<")
    if dtype.str not in DTYPES:
        raise WireError(f"arrays of {value.dtype} have no place on the wire; allowed are {', '.join(DTYPES)}")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": dtype.str}
    data = np.ascontiguousarray(value, dtype=dtype).tobytes()
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype.str, b"shape": list(value.shape)}


def _unpack_array(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return _array(value)
    if b"__npgeneric__" in value:
        return _scalar(value)
    return value


def _array(value: Mapping[Any, Any]) -> np.ndarray[Any, Any]:
    dtype, shape, data = _dtype(value), value.get(b"shape"), value.get(b"data")
    if not isinstance(shape, list) or len(shape) > _MAX_AXES:
        raise WireError(f"an array's shape must be a list of at most {_MAX_AXES} sizes, got {_short(shape)}")
    if any(type(n) is not int or not 0 <= n <= MAX_BYTES for n in shape):
        raise WireError(f"an array's shape must hold sizes in 0..{MAX_BYTES}, got {_short(shape)}")
    if not isinstance(data, bytes):
        raise WireError(f"an array's data must be bytes, got {type(data).__name__}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"an array of {dtype.str} and shape {shape} does not have {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _scalar(value: Mapping[Any, Any]) -> Any:
    dtype, number = _dtype(value), value.get(b"data")
    if type(number) not in (bool, int, float):
        raise WireError(f"a scalar must be a number, got {type(number).__name__}")
    try:
        return dtype.type(number)
    except OverflowError as error:
        raise WireError(f"the scalar {number} does not fit {dtype.str}") from error


def _dtype(value: Mapping[Any, Any]) -> np.dtype[Any]:
    name = value.get(b"dtype")
    if not isinstance(name, str) or name not in DTYPES:
        raise WireError(f"arrays of {_short(name)} are refused; allowed are {', '.join(DTYPES)}")
    return np.dtype(name)


def _short(value: Any) -> str:
    """What is wrong with a stranger's value, without repeating all of it."""
    text = repr(value[:_MAX_AXES] if isinstance(value, list | str | bytes) else value)
    return text if len(text) <= 80 else text[:80] + "..."


# msgpack's leading bytes: (bytes of the length, whether its unit is a byte of payload or an entry, entries per unit).
_PAYLOADS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _walk(frame: bytes) -> int:
    """Where the first value of a frame ends; the cost is bounded by `MAX_VALUES`, not by the frame."""
    at, values, open_entries = 0, 0, [1]  # values still to come, per container that is open
    while open_entries:
        if open_entries[-1] == 0:
            open_entries.pop()
            continue
        open_entries[-1] -= 1
        values += 1
        if values > MAX_VALUES:
            raise WireError(f"a frame holds more than {MAX_VALUES} values")
        at, entries = _step(frame, at)
        if at > len(frame):
            raise WireError(f"a frame of {len(frame)} bytes ends inside a value")
        if entries:
            if len(open_entries) > MAX_DEPTH:
                raise WireError(f"a frame nests deeper than {MAX_DEPTH}")
            open_entries.append(entries)
    return at


def _step(frame: bytes, at: int) -> tuple[int, int]:
    """The position behind the head (and payload) of the value at `at`, and how many values it contains."""
    if at >= len(frame):
        raise WireError(f"a frame of {len(frame)} bytes ends where a value should begin")
    head = frame[at]
    if head < 0x80 or head >= 0xE0:
        return at + 1, 0
    if head < 0x90:
        return at + 1, 2 * (head & 0x0F)
    if head < 0xA0:
        return at + 1, head & 0x0F
    if head < 0xC0:
        return at + 1 + (head & 0x1F), 0
    if head in _FIXED:
        return at + 1 + _FIXED[head], 0
    if head in _PAYLOADS:
        size = _PAYLOADS[head]
        return at + 1 + size + _length(frame, at + 1, size), 0
    if head in _CONTAINERS:
        size, per_entry = _CONTAINERS[head]
        return at + 1 + size, per_entry * _length(frame, at + 1, size)
    raise WireError(f"a frame holds the msgpack type 0x{head:02x}, an extension, which is refused")


def _length(frame: bytes, at: int, size: int) -> int:
    if at + size > len(frame):
        raise WireError(f"a frame of {len(frame)} bytes ends inside a length")
    return int.from_bytes(frame[at : at + size], "big")
