"""llama.cpp's own quantisation routines, out of the shared library of the llama-cpp-python package.

Rows of a matrix are quantised as one long row of `tile` rows when their length is not a multiple of the type's block (576 columns
against 256): the importances of the columns are repeated as often. That is kinder than llama.cpp itself, which falls back to a larger type.
"""
import ctypes
import math
import os
from concurrent.futures import ThreadPoolExecutor

import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType

_base = ctypes.CDLL(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))
_floats = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
_bytes = np.ctypeslib.ndpointer(np.uint8, flags="C_CONTIGUOUS")
_base.ggml_quantize_chunk.restype = ctypes.c_size_t
_base.ggml_quantize_chunk.argtypes = [ctypes.c_int, _floats, _bytes, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
_base.ggml_quantize_init.argtypes = [ctypes.c_int]
_base.ggml_row_size.restype = ctypes.c_size_t
_base.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
_base.ggml_blck_size.restype = ctypes.c_int64
_base.ggml_blck_size.argtypes = [ctypes.c_int]


def bits_per_weight(kind):
    """Returns the bits a weight of a type, by name."""
    block, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return 8 * size / block


def quantise(weight, kind, importance, threads):
    """Returns (the weights a matrix has after quantisation to a type and back, bytes it took)."""
    kind = GGMLQuantizationType[kind]
    n_rows, n_cols = weight.shape
    block = _base.ggml_blck_size(kind)
    tile = block // math.gcd(n_cols, block)
    if n_rows % tile != 0:
        raise ValueError(f"{n_rows} rows of {n_cols} do not tile to blocks of {block}")
    wide = np.ascontiguousarray(weight, np.float32).reshape(n_rows // tile, n_cols * tile)
    tiled = None if importance is None else np.ascontiguousarray(np.tile(importance, tile), np.float32)
    _base.ggml_quantize_init(kind)
    row_bytes = _base.ggml_row_size(kind, wide.shape[1])

    def part(rows):
        coded = np.empty((len(rows), row_bytes), np.uint8)
        _base.ggml_quantize_chunk(kind, np.ascontiguousarray(rows), coded, 0, len(rows), wide.shape[1],
                                  None if tiled is None else tiled.ctypes.data)
        return gguf.quants.dequantize(coded, kind)

    with ThreadPoolExecutor(threads) as pool:
        decoded = np.concatenate(list(pool.map(part, np.array_split(wide, min(len(wide), 4 * threads)))))
    return decoded.reshape(weight.shape), len(wide) * row_bytes


def quantise_file(source, target, ftype, importances, threads):
    """Runs llama.cpp's quantiser on a GGUF file: what its own program writes, fallbacks included."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype = threads, getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{ftype}")
    keep = [(name.encode(), np.ascontiguousarray(values, np.float32)) for name, values in importances.items()]
    table = (llama_cpp.llama_model_imatrix_data * (len(keep) + 1))()  # the last entry, without a name, ends it
    for entry, (name, values) in zip(table, keep):
        entry.name, entry.size = name, len(values)
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if keep:
        params.imatrix = ctypes.cast(table, type(params.imatrix))
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama_model_quantize to {ftype} failed")
