#!/usr/bin/env python3
"""Speed of qins beside llama.cpp: the same shapes, the same threads, runs A B A B, medians, a table in Markdown.

    bench/peers.py WORK [--shape tinyllama-1.1b] [--layers N] [--pairs 4:Q4_0,4:Q4_K,8:Q8_0] [--threads 2] [--rounds 3]
    bench/peers.py WORK --model FILE.gguf            # a real model instead of random weights of a shape

WORK is a folder for the models (several GB) and for what was measured, in results.json; what is there already is used
again, so that --seconds can cut a long run into pieces. Measurements of another build of qins do not count. Needs
llama-cpp-python (pip install llama-cpp-python==0.3.36, which builds its llama.cpp natively) and build/release/cli/qins.
"""

import argparse
import ctypes
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QINS = Path(os.environ.get("QINS", ROOT / "build/release/cli/qins"))
PAIRS = "16:F16,8:Q8_0,6:Q6_K,5:Q5_K,4:Q4_0,4:Q4_K,3:Q3_K"  # 16: the source, uncompressed
# llama.cpp's file types; its K types keep the head in 6 bits, so qins does the same below 8
FILE_TYPES = {"Q8_0": 7, "Q6_K": 18, "Q5_K": 17, "Q4_0": 2, "Q4_K": 15, "Q3_K": 12, "F16": 1}


def run(*command):
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)


def llama_quantize(source, target, kind):
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[kind]
    params.nthread = os.cpu_count()
    temporary = target.with_suffix(".part")
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(temporary).encode(), ctypes.byref(params))
    if status != 0:
        sys.exit(f"{target}: llama.cpp could not quantise it")
    temporary.rename(target)


def prepare(args):
    """Source, qins directories by bits and GGUF files by type."""
    work = args.work
    work.mkdir(parents=True, exist_ok=True)
    source = args.model or work / "source"
    if not source.exists():
        layers = ["--set", f"num_hidden_layers={args.layers}"] if args.layers else []
        run(sys.executable, ROOT / "tools/make_shapes.py", args.shape, source, *layers)
    f16 = work / "f16.gguf"
    if not f16.exists():
        run(QINS, "export", source, f16, "--format", "gguf", "--dtype", "f16", "--no-check")
    ours, theirs = {}, {}
    for bits, kind in args.pairs:
        ours[bits] = source if bits == 16 else work / f"qins-{bits}"
        if not ours[bits].exists():
            run(QINS, "compress", source, ours[bits], "--bits", bits, "--embed-bits", 8 if bits == 8 else 6)
        theirs[kind] = work / ("f16.gguf" if kind == "F16" else f"{kind}.gguf")
        if not theirs[kind].exists():
            llama_quantize(f16, theirs[kind], kind)
    return ours, theirs


def measure_qins(model, args):
    command = [QINS, "bench", model, "--json", "--no-check", "--threads", args.threads, "--prompt", args.prompt, "--gen",
               args.gen, "--quick"]  # fmt: skip
    result = json.loads(subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout)
    return result["prefill_tps"], result["decode_tps"]


def measure_llama(model, args):
    command = [sys.executable, __file__, "--child", str(model), str(args.threads), str(args.prompt), str(args.gen)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return result["prefill_tps"], result["decode_tps"]


def child(model, threads, prompt, gen):
    """One measurement of llama.cpp, alone in a process."""
    import llama_cpp

    llm = llama_cpp.Llama(model, n_ctx=prompt + gen + 8, n_batch=512, n_threads=threads, n_threads_batch=threads,
                          use_mmap=True, verbose=False)  # fmt: skip
    llm.eval([1] * 16)  # touches every page
    llm.reset()
    ids = [3 + i * 7919 % 20000 for i in range(prompt)]
    start = time.perf_counter()
    llm.eval(ids)
    prefill = prompt / (time.perf_counter() - start)
    times = []
    for i in range(gen):
        start = time.perf_counter()
        llm.eval([100 + i])
        times.append(time.perf_counter() - start)
    print(json.dumps({"prefill_tps": prefill, "decode_tps": 1 / statistics.median(times)}))


def cpu_name():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return f"{fields.get('model name')} (family {fields.get('cpu family')}, model {fields.get('model')})"


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], *(int(a) for a in sys.argv[3:6]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shape", default="tinyllama-1.1b")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has, to save time")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pairs", default=PAIRS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--gen", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="begin nothing new after so long")
    parser.add_argument("--prepare-only", action="store_true")
    args = parser.parse_args()
    args.pairs = [(int(bits), kind) for bits, kind in (pair.split(":") for pair in args.pairs.split(","))]
    ours, theirs = prepare(args)
    if args.prepare_only:
        return None
    import llama_cpp

    start = time.perf_counter()
    store = args.work / "results.json"
    results = json.loads(store.read_text()) if store.exists() else {}
    version = hashlib.sha256(QINS.read_bytes()).hexdigest()[:12]
    setting = f"{args.threads} threads, prompt {args.prompt}, generated {args.gen}"

    def runs(who, name):
        return results.setdefault(f"{who}, {name}, {setting}", [])

    for i in range(args.rounds):
        for bits, kind in args.pairs:
            sides = [(f"qins {version}", bits, measure_qins, ours[bits]),
                     (f"llama.cpp {llama_cpp.__version__}", kind, measure_llama, theirs[kind])]  # fmt: skip
            if all(len(runs(who, name)) > i for who, name, _, _ in sides):
                continue
            if args.seconds and time.perf_counter() - start > args.seconds:
                continue
            for who, name, measure, model in sides:
                runs(who, name).append(measure(model, args))
            store.write_text(json.dumps(results, indent=1))
    print(f"{cpu_name()}, {args.threads} threads, Linux {platform.release()}; qins {version} at "
          f"{subprocess.run(['git', '-C', ROOT, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True).stdout.strip()}"
          f", llama-cpp-python {llama_cpp.__version__}")  # fmt: skip
    print(f"Prompt of {args.prompt} tokens, then {args.gen} tokens one by one; medians of interleaved runs.\n")
    print("| qins, bits | llama.cpp | runs | generation, tokens/s | | ratio | prompt, tokens/s | | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for bits, kind in args.pairs:
        a, b = runs(f"qins {version}", bits), runs(f"llama.cpp {llama_cpp.__version__}", kind)
        if not a or not b:
            continue
        prompt_a, decode_a = (statistics.median(values) for values in zip(*a))
        prompt_b, decode_b = (statistics.median(values) for values in zip(*b))
        print(f"| {bits} | {kind} | {len(a)}, {len(b)} | {decode_a:.1f} | {decode_b:.1f} | {decode_a / decode_b:.2f} | {prompt_a:.0f} | "
              f"{prompt_b:.0f} | {prompt_a / prompt_b:.2f} |")  # fmt: skip
    return None


if __name__ == "__main__":
    main()
