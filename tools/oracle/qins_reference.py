"""The original QINS codecs (section 2 of the design) restated in NumPy: the oracle of the C implementation.

Everything is computed in float64 from float32 weights; what is stored or returned as a weight is rounded to
float32 once, at the end. `rint` rounds half to even. One range (or one alpha) serves a whole tensor.

Decisions the original left open, the same in C:

- The range of the log codec is rounded to float32, because files store it so, and then used as float64.
- A weight of exactly zero (either sign) has stored code 0 and sign +1 and decodes to 0.
- A weight with 0 < |w| <= 1e-8 lies outside the range and takes the smallest magnitude (stored code 255).
- A tensor without any |w| > 1e-8 is all zeros: code 0 everywhere, range (0, 0).
- When all magnitudes above 1e-8 are equal (log_max == log_min), they take code 1 and smaller ones code 0.
- NaN and infinity are refused with their index.
"""

import numpy as np

TINY = 1e-8  # magnitudes up to here do not count for the range of the log codec
SEED_LEVELS = 255  # magnitudes of the two-byte log storage; code 0 besides is exact zero


def require_finite(weights):
    """Return weights as float64; raise ValueError naming the first NaN or infinity by its index."""
    weights = np.asarray(weights, dtype=np.float32)
    bad = np.argwhere(~np.isfinite(weights))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise ValueError(f"weight at index {index} is {weights[index]}: not a finite number")
    return weights.astype(np.float64)


def log_range(weights):
    """Return (log_min, log_max) of |w| over |w| > TINY as float32; (0, 0) when there is none."""
    magnitude = np.abs(require_finite(weights))
    counted = magnitude[magnitude > TINY]
    if counted.size == 0:
        return np.float32(0), np.float32(0)
    return np.float32(np.log(counted.min())), np.float32(np.log(counted.max()))


def log_magnitude_codes(weights, n_levels, log_min, log_max):
    """Return codes 1 (largest magnitude) .. n_levels (smallest), 0 for exact zero, as int64."""
    magnitude = np.abs(require_finite(weights))
    if not np.any(magnitude > TINY):
        return np.zeros(magnitude.shape, np.int64)
    lo, hi = np.float64(log_min), np.float64(log_max)
    nonzero = magnitude > (0 if hi != lo else TINY)
    log_w = np.log(np.where(nonzero, magnitude, 1.0))
    norm = (log_w - lo) / (hi - lo) if hi != lo else np.ones_like(log_w)
    codes = np.clip(np.rint(n_levels - (n_levels - 1) * norm), 1, n_levels).astype(np.int64)
    return np.where(nonzero, codes, 0)


def log_magnitudes(codes, n_levels, log_min, log_max):
    """Return the float64 magnitudes that codes 0..n_levels stand for."""
    lo, hi = np.float64(log_min), np.float64(log_max)
    codes = np.asarray(codes, np.float64)
    return np.where(codes == 0, 0.0, np.exp(lo + (n_levels - codes) / (n_levels - 1) * (hi - lo)))


def log_seed_encode(weights):
    """Two bytes a weight: return (stored uint8, sign int8, log_min, log_max)."""
    log_min, log_max = log_range(weights)
    stored = log_magnitude_codes(weights, SEED_LEVELS, log_min, log_max).astype(np.uint8)
    sign = np.where((np.asarray(weights) < 0) & (stored > 0), -1, 1).astype(np.int8)
    return stored, sign, log_min, log_max


def log_seed_decode(stored, sign, log_min, log_max):
    """Return the float32 weights of the two-byte log storage."""
    return (sign * log_magnitudes(stored, SEED_LEVELS, log_min, log_max)).astype(np.float32)


def log_packed_encode(weights, bits):
    """One sign bit and bits - 1 magnitude bits: return (codes uint16, log_min, log_max).

    The low bits - 1 bits are the magnitude code m = 0..2^(bits-1)-1, the top bit is set for negative weights.
    With bits = 9 the magnitudes are those of the two-byte storage.
    """
    log_min, log_max = log_range(weights)
    m = log_magnitude_codes(weights, 2 ** (bits - 1) - 1, log_min, log_max)
    negative = (np.asarray(weights) < 0) & (m > 0)
    return (m | (negative.astype(np.int64) << (bits - 1))).astype(np.uint16), log_min, log_max


def log_packed_table(bits, log_min, log_max):
    """Return the float32 weight of each of the 2^bits codes; both codes with m = 0 are zero."""
    m = log_magnitudes(np.arange(2 ** (bits - 1)), 2 ** (bits - 1) - 1, log_min, log_max)
    table = np.concatenate([m, -m]).astype(np.float32)
    table[2 ** (bits - 1)] = 0.0
    return table


def rational_coordinate(weights, alpha):
    """Return z = sign(w) / (1 + alpha |w|) in float64, with sign(0) = +1: z is in [-1, 1] and never 0."""
    weights = require_finite(weights)
    return np.where(weights < 0, -1.0, 1.0) / (1.0 + np.float64(alpha) * np.abs(weights))


def rational_weight(z, alpha):
    """Return the float32 weight sign(z) (1 - |z|) / (alpha |z|) of float64 or float32 coordinates."""
    z = np.asarray(z, np.float64)
    magnitude = np.abs(z)
    return (np.sign(z) * (1.0 - magnitude) / (np.float64(alpha) * magnitude)).astype(np.float32)


def rational_f32_encode(weights, alpha):
    """Four bytes a weight, a change of coordinates only: return z as float32."""
    return rational_coordinate(weights, alpha).astype(np.float32)


def rational_encode(weights, bits, alpha):
    """Return codes 0..2^bits - 1, z quantised in equal steps over [-1, 1], as uint8."""
    top = 2**bits - 1
    z = rational_coordinate(weights, alpha)
    return np.clip(np.rint((z + 1.0) * top / 2.0), 0, top).astype(np.uint8)


def rational_table(bits, alpha):
    """Return the float32 weight of each of the 2^bits codes; 2^bits - 1 is odd, so that no code has z = 0."""
    top = 2**bits - 1
    return rational_weight(np.arange(2**bits) * 2.0 / top - 1.0, alpha)
