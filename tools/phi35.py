#!/usr/bin/env python3
"""Measure qins on a checkpoint with the shapes of Phi-3.5-mini and print the tables of docs/phi-3.5.md.

    python3 tools/phi35.py WORK [--qins PROGRAM] [--only NAME;...]

Makes the BF16 checkpoint in WORK/source (7.6 GB) unless it is there, then compresses it in every way below, one at a time:
audits what was written, compares with --dry-run, times and measures memory, and deletes it again (up to 14.7 GB). Figures
go to WORK/results.json; variants that are in it already are not measured again. Needs NumPy; about fifteen minutes on two cores.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
ORIGINAL = "--embed-bits keep --rotate off --scale tensor"
VARIANTS = {
    "rational f32, all": "--codec rational --storage f32 --embed-bits keep",
    "rational u8, all": f"--codec rational --bits 8 {ORIGINAL}",
    "rational u8, safe": f"--codec rational --bits 8 {ORIGINAL} --targets safe",
    "log seed, all": f"--codec log --storage seed {ORIGINAL}",
    "gauss 8": "--bits 8",
    "gauss 6": "--bits 6",
    "gauss 5": "--bits 5",
    "gauss 4": "--bits 4",
    "gauss 3": "--bits 3",
}
RUN_VARIANT, RUN_TOKENS = "gauss 4", 64


def measure(command):
    """Runs a command; its output, seconds, CPU seconds, and largest resident and anonymous memory in bytes."""
    start, peak_anonymous = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        while True:
            pid, code, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            try:
                found = re.search(r"RssAnon:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                peak_anonymous = max(peak_anonymous, int(found[1]) if found else 0)
            except OSError:
                pass
            time.sleep(0.005)
        seconds = time.monotonic() - start
        output.seek(0)
        text = output.read()
    if code != 0:
        sys.exit(f"{shlex.join(map(str, command))}: exit status {code}")
    return text, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, peak_anonymous * 1024


def kinds_of(path):
    """Dtype, shape and bytes of every kind of tensor in a safetensors file, layers taken together."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    kinds = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        kind = kinds.setdefault(re.sub(r"\.\d+\.", ".N.", name, count=1) if name.startswith("model.") else name,
                                {"tensors": 0, "dtype": t["dtype"], "shape": t["shape"], "bytes": 0})  # fmt: skip
        kind["tensors"] += 1
        kind["bytes"] += t["data_offsets"][1] - t["data_offsets"][0]
        if kind["dtype"] != t["dtype"] or kind["shape"] != t["shape"]:
            sys.exit(f"{path}: {name} differs from layer to layer")
    return dict(sorted(kinds.items()))


def summarize(audit):
    """Sums of an audit: payload (codes and plain tensors) and buffers (scales, tables, ranges) apart."""
    linears = [t for t in audit["tensors"] if t["role"] == "linear"]
    return {
        "totals": audit["totals"],
        "linear_bytes": sum(t["bytes"] for t in linears),
        "linear_code_bytes": sum(t["code_bytes"] for t in linears),
        "param_bytes": sum(t["code_bytes"] for t in audit["tensors"]),
        "buffer_bytes": sum(t["side_bytes"] for t in audit["tensors"]) + audit["totals"]["shared_bytes"],
    }


def read_json(command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_variant(name, options, qins, source, work):
    out = work / "model"
    shutil.rmtree(out, ignore_errors=True)
    options = options.split()
    preview_start = time.monotonic()
    preview = read_json([qins, "compress", source, *options, "--dry-run", "--json"])
    preview_seconds = time.monotonic() - preview_start
    text, seconds, cpu, resident, anonymous = measure([qins, "compress", source, out, *options, "--json"])
    result = json.loads(text)
    audit = read_json([qins, "audit", out, "--json", "--no-check"])
    if any(preview[key] != audit[key] for key in ("totals", "tensors")):
        sys.exit(f"{name}: --dry-run and the file disagree")
    on_disk = (out / "model.safetensors").stat().st_size
    if on_disk != audit["totals"]["weight_file_bytes"]:
        sys.exit(f"{name}: the audit says {audit['totals']['weight_file_bytes']}, the file has {on_disk} bytes")
    entry = {
        "options": " ".join(options), "compress": result, "dry_run_seconds": preview_seconds, "seconds": seconds,
        "cpu_seconds": cpu, "resident_bytes": resident, "anonymous_bytes": anonymous, **summarize(audit),
        "kinds": kinds_of(out / "model.safetensors"),
    }  # fmt: skip
    if name == RUN_VARIANT:
        command = [qins, "run", out, "-p", "Once upon a time", "-n", str(RUN_TOKENS), "--seed", "1", "--ignore-eos", "--json"]
        text, seconds, _, resident, anonymous = measure(command)
        ran = json.loads(text)
        entry["run"] = {key: ran[key] for key in ("prompt_tokens", "generated_tokens", "prefill_tps", "decode_tps")}
        entry["run"] |= {"resident_bytes": resident, "anonymous_bytes": anonymous, "seconds": seconds}
        bench = read_json([qins, "bench", out, "--prompt", "10", "-n", str(RUN_TOKENS), "--no-check", "--json"])
        entry["run"] |= {key: bench[key] for key in ("read_gbps", "bytes_per_token", "decode_limit_tps")}
    shutil.rmtree(out)
    return entry


def mib(n):
    return f"{n / MIB:,.2f}"


def print_tables(results):
    print("| variant | linears, MiB of codes | linears, bytes | all weights, bytes | parameters | buffers "
          "| FP32 / it | BF16 / it | rel. MSE |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name in VARIANTS:
        if name in results:
            r, t = results[name], results[name]["totals"]
            print(f"| {name} | {mib(r['linear_code_bytes'])} | {r['linear_bytes']:,} | {t['stored_bytes']:,} | {r['param_bytes']:,} "
                  f"| {r['buffer_bytes']:,} | {t['ratio_fp32']:.3f} | {t['ratio_source']:.3f} "
                  f"| {r['compress']['rel_mse']:.3g} |")  # fmt: skip
    print("\n| variant | seconds | CPU seconds | source MB/s | peak resident MiB | of it anonymous | --dry-run, seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in VARIANTS:
        if name in results:
            r = results[name]
            rate = r["totals"]["source_bytes"] / 1e6 / r["seconds"]
            print(f"| {name} | {r['seconds']:.0f} | {r['cpu_seconds']:.0f} | {rate:.0f} | {r['resident_bytes'] / MIB:.0f} "
                  f"| {r['anonymous_bytes'] / MIB:.0f} | {r['dry_run_seconds']:.2f} |")  # fmt: skip
    for name in VARIANTS:
        if name in results:
            print(f"\n{name}: {results[name]['options']}")
            for kind, k in results[name]["kinds"].items():
                shape = "x".join(map(str, k["shape"]))
                print(f"  {kind:50} {k['tensors']:3} x {shape:14} {k['dtype']:5} {k['bytes']:>14,}")
    run = results.get(RUN_VARIANT, {}).get("run")
    if run:
        print(f"\nrun, {RUN_VARIANT}, {run['generated_tokens']} tokens: {run['decode_tps']:.2f} tokens/s, prompt of "
              f"{run['prompt_tokens']} at {run['prefill_tps']:.2f}/s, peak resident {mib(run['resident_bytes'])} MiB, "
              f"of it anonymous {mib(run['anonymous_bytes'])}; memory limit {run['decode_limit_tps']:.2f} tokens/s "
              f"({run['bytes_per_token']:,.0f} bytes a token, read at {run['read_gbps']:.2f} GB/s)")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", metavar="WORK", type=Path)
    parser.add_argument("--qins", default=str(ROOT / "build/release/cli/qins"))
    parser.add_argument("--only", help="names of variants, separated by semicolons")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    source, results_path = args.work / "source", args.work / "results.json"
    if not (source / "config.json").exists():
        subprocess.run([sys.executable, ROOT / "tools/make_shapes.py", "phi-3.5-mini", source], check=True)
    results = json.loads(results_path.read_text()) if results_path.exists() else {}
    names = args.only.split(";") if args.only else list(VARIANTS)
    for name in names:
        if name not in results:
            print(f"{name} ...", file=sys.stderr, flush=True)
            results[name] = measure_variant(name, VARIANTS[name], args.qins, str(source), args.work)
            results_path.write_text(json.dumps(results, indent=1) + "\n")
    print_tables(results)


if __name__ == "__main__":
    main()
