#!/usr/bin/env python3
"""Writes src/format/testdata/quantize.bin: f32 values and what other encoders make of them.

The plain types come from the PyPI package gguf (pip install gguf), whose bytes ours must equal. Q4_K and
Q6_K come from llama.cpp's library in the package llama-cpp-python, whose squared error is what ours is
measured by. The file is committed; run this again only when a type is added.

Format, little-endian, until the file ends: u32 type number, u32 elements, f32 values, the blocks.
"""

import ctypes
import pathlib
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import quantize

PLAIN = [T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1]
SEARCHED = [T.Q4_K, T.Q6_K]


def plain_rows(rng):
    """Rows of 32: usual weights of several sizes, halves to round, one outlier, equal values, zeros."""
    rows = [rng.normal(0, scale, 32) for scale in (0.02, 1, 300, 1e-6) for _ in range(4)]
    rows.append(np.arange(-16, 16) / 2)  # the scales are powers of two: every second value is a tie
    rows.append(np.arange(-127, 129, 8) / 2 + 0.5)
    outlier = rng.normal(0, 0.01, 32)
    outlier[7] = -9.5
    rows += [outlier, -outlier, np.full(32, 0.75), np.full(32, -0.75), np.zeros(32), np.abs(outlier), -np.abs(outlier)]
    return np.array(rows, dtype=np.float32)


def searched_sets(rng, n=1536):
    """Rows of weights as they are found: normal, with long tails, with a few outliers."""
    normal = rng.normal(0, 0.02, n)
    outliers = rng.normal(0, 0.02, n)
    outliers[rng.integers(0, n, 12)] *= 8
    return [x.astype(np.float32) for x in (normal, rng.laplace(0, 0.02, n), outliers)]


def by_llama_cpp(values, kind):
    import llama_cpp

    name = "lib/libggml-base.so"
    library = ctypes.CDLL(str(pathlib.Path(llama_cpp.__file__).parent / name))
    block, size = GGML_QUANT_SIZES[kind]
    blocks = np.zeros(values.size // block * size, np.uint8)
    pointer = ctypes.c_void_p
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk(int(kind), values.ctypes.data_as(pointer), blocks.ctypes.data_as(pointer),
                                ctypes.c_int64(0), ctypes.c_int64(values.size // block), ctypes.c_int64(block), None)
    return blocks


def main():
    out = pathlib.Path(__file__).parent.parent / "src/format/testdata/quantize.bin"
    rng = np.random.default_rng(21)
    rows = plain_rows(rng)
    sets = searched_sets(rng)
    with open(out, "wb") as file, np.errstate(all="ignore"):
        for kind in PLAIN:
            blocks = quantize(rows, kind).view(np.uint8)
            file.write(struct.pack("<II", kind, rows.size) + rows.tobytes() + blocks.tobytes())
        for kind in SEARCHED:
            for values in sets:
                file.write(struct.pack("<II", kind, values.size) + values.tobytes() + by_llama_cpp(values, kind).tobytes())
    print(f"{out}: {out.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
