#!/usr/bin/env python3
"""Write tests/golden/codec: inputs of the original QINS codecs and what the NumPy restatement makes of them.

    python3 tools/make_codec_goldens.py
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "oracle"))
import qins_reference as ref  # noqa: E402

SHAPE = (16, 40)
LOG_BITS = (3, 4, 6, 7, 8, 9)
RATIONAL_BITS = (3, 4, 6, 8)
ALPHAS = (1, 32)


def make_inputs(rng):
    """Return the named input matrices."""
    normal = rng.standard_normal(SHAPE)
    tiny_mix = normal * 0.05
    tiny_mix.flat[::7] = rng.standard_normal(tiny_mix.flat[::7].shape) * 1e-9
    with_zeros = normal * 0.02
    with_zeros.flat[::5] = 0.0
    with_zeros.flat[::15] = -0.0
    denormal_mix = normal * 0.1
    denormal_mix.flat[::3] = rng.standard_normal(denormal_mix.flat[::3].shape) * 1e-40
    one_outlier = normal * 1e-3
    one_outlier[3, 5] = 1000.0
    return {
        "random": normal * 0.02,
        "heavy_tailed": rng.standard_t(1.5, SHAPE) * 0.01,
        "constant": np.full(SHAPE, -0.37),
        "constant_both_signs": np.where(normal < 0, -0.125, 0.125),
        "constant_with_zeros": np.where(normal < 0.5, 0.25, 0.0),
        "all_zero": np.zeros(SHAPE),
        "all_tiny": normal * 1e-10,
        "with_zeros": with_zeros,
        "tiny_mix": tiny_mix,
        "all_denormal": normal * 1e-41,
        "denormal_mix": denormal_mix,
        "huge_range": np.sign(normal) * 10.0 ** rng.uniform(-37, 37, SHAPE),
        "one_outlier": one_outlier,
    }


def make_outputs(inputs):
    """Return {file stem: array}; every array has one entry a case along its first axis."""
    out = {"input": inputs}
    seed = [ref.log_seed_encode(w) for w in inputs]
    out["log_range"] = np.array([s[2:] for s in seed], np.float32)
    out["log_seed_codes"] = np.stack([s[0] for s in seed])
    out["log_seed_signs"] = np.stack([s[1] for s in seed])
    out["log_seed_decoded"] = np.stack([ref.log_seed_decode(*s) for s in seed])
    for bits in LOG_BITS:
        packed = [ref.log_packed_encode(w, bits) for w in inputs]
        dtype = np.uint8 if bits <= 8 else np.uint16
        out[f"log_packed_{bits}_codes"] = np.stack([p[0] for p in packed]).astype(dtype)
        out[f"log_packed_{bits}_table"] = np.stack([ref.log_packed_table(bits, *p[1:]) for p in packed])
    for alpha in ALPHAS:
        z = ref.rational_f32_encode(inputs, alpha)
        out[f"rational_f32_alpha_{alpha}_z"] = z
        out[f"rational_f32_alpha_{alpha}_decoded"] = ref.rational_weight(z, alpha)
        for bits in RATIONAL_BITS:
            out[f"rational_{bits}_alpha_{alpha}_codes"] = ref.rational_encode(inputs, bits, alpha)
            out[f"rational_{bits}_alpha_{alpha}_table"] = ref.rational_table(bits, alpha)
    return out


class LibmNumpy:
    """NumPy with log and exp of the C library: NumPy's own may differ in the last bit."""

    log = staticmethod(np.vectorize(math.log, otypes=[np.float64]))
    exp = staticmethod(np.vectorize(math.exp, otypes=[np.float64]))

    def __getattr__(self, name):
        return getattr(np, name)


def check_independent_of_libm(inputs, outputs):
    """Fail unless the C library's log and exp give the very same goldens."""
    ref.np = LibmNumpy()
    again = make_outputs(inputs)
    ref.np = np
    for stem, array in outputs.items():
        if not np.array_equal(array, again[stem]):
            raise SystemExit(f"{stem} depends on the last bit of log or exp; change the seed")


README = """# Goldens of the original QINS codecs

Written by `tools/make_codec_goldens.py` with NumPy {numpy} from `tools/oracle/qins_reference.py`, which says what is
computed. Little-endian .npy files. The first axis is the case, in the order of `cases.txt`; matrices are {rows} x {cols}.

| file | dtype, shape of one case | what |
|---|---|---|
| `input` | f32 [{rows},{cols}] | the weights |
| `log_range` | f32 [2] | log_min, log_max |
| `log_seed_codes`, `log_seed_signs`, `log_seed_decoded` | u8, i8, f32 [{rows},{cols}] | two-byte log storage and the weights it decodes to |
| `log_packed_B_codes`, `log_packed_B_table` | u8 (u16 for B = 9) [{rows},{cols}], f32 [2^B] | sign + (B-1) bits; code -> weight |
| `rational_f32_alpha_A_z`, `..._decoded` | f32 [{rows},{cols}] | coordinates kept as FP32 and the weights they decode to |
| `rational_B_alpha_A_codes` | u8 [{rows},{cols}] | B-bit codes |
| `rational_B_alpha_A_table` | f32 [2^B], one for all cases | code -> weight |

Compare values with ==: zero has either sign. The goldens were checked to be the same with the C library's `log` and `exp` as with NumPy's own.
"""


def main():
    """Write the goldens."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "golden" / "codec")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    cases = make_inputs(np.random.default_rng(args.seed))
    inputs = np.stack(list(cases.values())).astype(np.float32)
    outputs = make_outputs(inputs)
    check_independent_of_libm(inputs, outputs)
    args.out.mkdir(parents=True, exist_ok=True)
    for stem, array in outputs.items():
        np.save(args.out / f"{stem}.npy", array.astype(array.dtype.newbyteorder("<")))
    (args.out / "cases.txt").write_text("".join(name + "\n" for name in cases))
    rows, cols = SHAPE
    (args.out / "README.md").write_text(README.format(numpy=np.__version__, rows=rows, cols=cols))


if __name__ == "__main__":
    main()
