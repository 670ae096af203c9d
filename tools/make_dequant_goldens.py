#!/usr/bin/env python3
"""Writes src/format/testdata/dequantize.bin: blocks of every weight type and their f32 values.

The values come from the PyPI package gguf (pip install gguf), the independent judge of ours. The file
is committed; run this again only when a type is added.

Format, little-endian, until the file ends: u32 type number, u32 elements, the blocks, f32 values.
"""

import pathlib
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Where a block keeps its f16 scales.
SCALES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0],
}
# Smallest subnormal, largest subnormal, largest finite, zero, -0, infinities, NaN.
EXTREME = [0x0001, 0x83FF, 0x7BFF, 0x0000, 0x8000, 0x7C00, 0xFC00, 0x7E00]


def quantized_blocks(rng, kind, n_random):
    """Random blocks with usual scales, one per extreme scale (K blocks: every second), two of equal bits."""
    size = GGML_QUANT_SIZES[kind][1]
    extremes = EXTREME if size < 64 else EXTREME[::2]
    blocks = rng.integers(0, 256, (n_random + len(extremes) + 2, size), dtype=np.uint8)
    blocks[-2], blocks[-1] = 0x00, 0xFF  # every field at its ends, but the scales
    for i, block in enumerate(blocks):
        for j, offset in enumerate(SCALES[kind]):
            scale = np.float16(rng.normal()).view(np.uint16)
            if n_random <= i < n_random + len(extremes):
                scale = np.uint16(extremes[(i - n_random + j) % len(extremes)])
            block[offset : offset + 2] = np.array([scale]).view(np.uint8)
    return blocks


def plain_values(rng, kind):
    if kind == T.F32:
        bits = [0, 1 << 31, 1, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x3F800001]
        return np.array(bits + list(rng.integers(0, 1 << 32, 8)), dtype=np.uint32).view(np.uint8)
    top = [0x0080, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0] if kind == T.BF16 else []
    return np.array(EXTREME + top + list(rng.integers(0, 1 << 16, 32)), dtype=np.uint16).view(np.uint8)


def main():
    out = pathlib.Path(__file__).parent.parent / "src/format/testdata/dequantize.bin"
    rng = np.random.default_rng(20)
    with open(out, "wb") as file, np.errstate(all="ignore"):
        for kind in [T.F32, T.F16, T.BF16, *SCALES]:
            if kind in SCALES:
                blocks = quantized_blocks(rng, kind, n_random=2).reshape(-1)
            else:
                blocks = plain_values(rng, kind)
            values = dequantize(blocks.reshape(1, -1), kind).astype(np.float32).reshape(-1)
            file.write(struct.pack("<II", kind, values.size) + blocks.tobytes() + values.tobytes())
    print(f"{out}: {out.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
