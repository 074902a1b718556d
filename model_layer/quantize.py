"""Symmetric int8: a table of embeddings by row, a matrix by output channel.

Signed, because onnxruntime's u8×s8 products are 1.5 to 2 times as fast as its u8×u8 ones. Their trap: without VNNI a
processor adds two neighbouring products in 16 bits (vpmaddubsw), and 255·127·2 does not fit. So a matrix's scale also
keeps every pair of neighbouring inputs to a sum of 128 in either sign, which the largest activation cannot overflow:
255·128 = 32,640. That costs a quarter of a bit on the whole, where 7-bit weights would cost one, and the integers are
then the same on every processor.
"""

import math

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]
Array = npt.NDArray[np.float32]
Scale = tuple[np.float32, np.uint8]  # and zero point

BLOCK = 32  # inputs that share a scale in `blocks`: of all sizes the one that every kernel of MatMulNBits takes
_ROWS = 4096  # at a time: a table of 250,002 needs no second gigabyte


def table(array: Array) -> tuple[Int8, Array]:
    """int8 [rows, columns] and float32 scales [rows, 1], with array ≈ values · scales.

    scale = max|x| / 127 of the row, so that −128 never occurs; 1 for a row of zeros.
    """
    values = np.empty(array.shape, np.int8)
    scales = np.empty((len(array), 1), np.float32)
    for start in range(0, len(array), _ROWS):
        block = array[start : start + _ROWS]
        widest = np.abs(block).max(axis=1, keepdims=True)
        values[start : start + _ROWS], scales[start : start + _ROWS] = _round(block, widest)
    return values, scales


def matrix(array: Array) -> tuple[Int8, Array]:
    """As `table`, of [outputs, inputs], and no pair of inputs 2k, 2k + 1 sums to more than 128 in either sign.

    The scale is the largest such sum / 127: rounding adds at most a half to each of the two.
    """
    padded = np.pad(array, ((0, 0), (0, array.shape[1] % 2)))
    positive, negative = np.maximum(padded, 0), np.maximum(-padded, 0)
    sums = [(part[:, ::2] + part[:, 1::2]).max(axis=1, keepdims=True) for part in (positive, negative)]
    return _round(array, np.maximum(*sums))


def blocks(array: Array) -> tuple[Bytes, Halves]:
    """Of [outputs, inputs] what MatMulNBits takes: uint8 [outputs, inputs / BLOCK, BLOCK] around 128, and float16
    scales [outputs, inputs / BLOCK]; array ≈ (values - 128) · scales.

    Rounded by the scale as float16 has it; where that is 0 or nearly so, the weights are nothing.
    """
    cut = array.reshape(len(array), -1, BLOCK)
    scales = (np.abs(cut).max(axis=2) / 127).astype(np.float16)
    steps = scales.astype(np.float32)[..., None]
    steps[steps == 0] = 1
    values = np.rint(cut / steps).clip(-127, 127)
    return (values + 128).astype(np.uint8), scales


def activations(low: Array, high: Array) -> Scale:
    """The scale and zero point of all that lies between the least low and the greatest high of its channels.

    x ≈ (value - zero) · scale, values 0 … 255, and 0 is exact. The scale is rounded up to eight bits, so that a last
    bit which another processor's kernels round otherwise changes none of this.
    """
    least, most = min(0.0, float(low.min())), max(0.0, float(high.max()))
    mantissa, exponent = math.frexp((most - least) / 255 or 1.0)
    scale = math.ldexp(math.ceil(mantissa * 256), exponent - 8)
    return np.float32(scale), np.uint8(round(-least / scale))


def _round(array: Array, widest: Array) -> tuple[Int8, Array]:
    scales = (widest / 127).astype(np.float32)
    scales[scales == 0] = 1
    return np.rint(array / scales).astype(np.int8), scales
