from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorimotor.policies.remote import wire
from sensorimotor.policies.remote.wire import DTYPES, WireError, decode, encode

OPENPI_ARRAY = bytes.fromhex(
    "84c40b5f5f6e6461727261795f5fc3c40464617461c4080000803f00000040c4056474797065a33c6634c40573686170659102"
)


def pack(value: Any) -> bytes:
    return msgpack.Packer().pack(value)


def array_frame(**changes: Any) -> bytes:
    array = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}
    return pack({"x": array | {key.encode(): value for key, value in changes.items()}})


def test_an_array_has_the_bytes_of_openpis_client() -> None:
    frame = encode({"x": np.array([1, 2], np.float32)})
    assert len(OPENPI_ARRAY) == 51
    assert frame == b"\x81\xa1x" + OPENPI_ARRAY


def test_a_picture_costs_69_bytes_beyond_its_pixels() -> None:
    frame = encode({"observation/image": np.zeros((224, 224, 3), np.uint8)})
    assert len(frame) == 150_597
    assert 224 * 224 * 3 == 150_528


def test_an_array_comes_back_as_a_read_only_view() -> None:
    array = decode(encode({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}))["x"]
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array += 1


def test_the_shape_travels_as_a_list() -> None:
    inside = msgpack.unpackb(encode({"x": np.zeros((2, 3))}), strict_map_key=False)["x"]
    assert inside[b"shape"] == [2, 3]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_survive_the_round_trip(dtype: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    y = decode(encode({"x": x}))["x"]
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    np.testing.assert_array_equal(x, y)


def test_layout_and_byte_order_are_ironed_out() -> None:
    x = np.arange(6, dtype=">f8").reshape(2, 3).T
    np.testing.assert_array_equal(decode(encode({"x": x}))["x"], x)


def test_scalars_survive_the_round_trip() -> None:
    y = decode(encode({"x": np.float32(0.1), "n": np.int8(-3)}))
    assert type(y["x"]) is np.float32
    assert y["x"] == np.float32(0.1)
    assert y["n"] == -3


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), plain, max_size=5))
def test_plain_values_survive_the_round_trip(message: dict[str, Any]) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("value", [np.array([None]), np.zeros(2, "c8"), np.zeros(1, "V4"), np.array(["a"])])
def test_arrays_of_objects_voids_text_and_complex_numbers_are_not_sent(value: np.ndarray) -> None:
    with pytest.raises(WireError, match="no place on the wire; allowed are"):
        encode({"x": value})


@pytest.mark.parametrize("value", ["\ud800", 2**64])
def test_text_and_numbers_that_msgpack_does_not_know_are_not_sent(value: Any) -> None:
    with pytest.raises(WireError, match=r"cannot be written as msgpack|no place on the wire"):
        encode({"x": value})


@pytest.mark.parametrize("value", [object(), {1, 2}])
def test_other_things_are_not_sent(value: object) -> None:
    with pytest.raises(WireError, match="no place on the wire"):
        encode({"x": value})


@pytest.mark.parametrize(
    "dtype", ["|O", "<c8", "|V4", "<U3", ">f4", "float32", "<M8[s]", 3, None, "x" * 1000]
)
def test_arrays_of_other_types_are_refused(dtype: Any) -> None:
    with pytest.raises(WireError, match="are refused; allowed are"):
        decode(array_frame(dtype=dtype))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"shape": [3]}, "does not have 8 bytes"),
        ({"shape": [2**31, 2**33]}, "must hold sizes"),
        ({"shape": [2**26] * 8}, "does not have 8 bytes"),
        ({"shape": [-1, -2]}, "must hold sizes"),
        ({"shape": [2.0]}, "must hold sizes"),
        ({"shape": [True, 2]}, "must hold sizes"),
        ({"shape": [1] * 9}, "at most 8 sizes"),
        ({"shape": "2"}, "must be a list"),
        ({"data": "\0" * 8}, "must be bytes"),
        ({"data": None}, "must be bytes"),
        ({"data": b""}, "does not have 0 bytes"),
    ],
)
def test_an_array_must_have_the_bytes_its_shape_needs(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(WireError, match=match):
        decode(array_frame(**changes))


def test_a_scalar_must_fit_its_type() -> None:
    frame = pack({"x": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}})
    with pytest.raises(WireError, match="300 does not fit"):
        decode(frame)


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (b"", "ends where a value should begin"),
        (b"\x81", "ends where a value should begin"),
        (b"\x90", "must hold a map"),
        (b"\xc0\xc0", "ends at byte 1"),
        (b"\x81\xa1x\xc7\x01\x05\x00", "an extension, which is refused"),
        (b"\xd6\xff\0\0\0\0", "an extension, which is refused"),
        (b"\xdf\xff\xff\xff\xff", "ends where a value should begin"),
        (b"\xdd\xff\xff\xff\xff" + b"\xc0" * 30_000, "more than 20000 values"),
        (b"\xc6\xff\xff\xff\xff", "ends inside a value"),
        (b"\xdc\x01", "ends inside a length"),
        (b"\x91" * 40, "nests deeper than 16"),
        (b"\x81\xa1\xff\xc0", "not msgpack"),
        (b"\x81\x01\xc0", "not msgpack"),
        (b"\x81\x90\xc0", "not msgpack"),
        (b"\xc1", "an extension, which is refused"),
    ],
)
def test_a_frame_that_lies_is_refused(frame: bytes, match: str) -> None:
    with pytest.raises(WireError, match=match):
        decode(frame)


def test_a_frame_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(WireError, match="101 bytes exceeds the limit of 100"):
        decode(bytes(101), limit=100)


def test_the_walk_ends_where_msgpack_ends() -> None:
    values = [
        0,
        -1,
        127,
        128,
        2**16,
        2**40,
        -200,
        -(2**40),
        1.5,
        None,
        True,
        "a" * 40,
        "b" * 300,
        b"c" * 70_000,
    ]
    values += [list(range(20)), {str(i): i for i in range(20)}, [[[]], {}], "d" * 70_000, list(range(70))]
    for value in values:
        packed = pack(value)
        assert wire._walk(packed + b"\xc0") == len(packed)


def test_no_random_frame_does_more_than_fail() -> None:
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        try:
            decode(generator.bytes(int(generator.integers(40))))
        except WireError:
            refused += 1
    assert refused > 2900
