#!/usr/bin/env python3
"""Quantise a GGUF file with llama.cpp: tools/quantize_gguf.py IN.gguf OUT.gguf Q4_K_M. Needs llama-cpp-python."""
import ctypes
import sys

import llama_cpp


def main():
    source, target, name = sys.argv[1:]
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


main()
