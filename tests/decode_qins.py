"""A decoder of qins directories in NumPy, written from docs/format.md alone.

decode_qins.py DIR EXPORT: compares every matrix of the qins directory DIR with the plain FP32 directory EXPORT that
`qins export` made of it. Prints the largest relative difference; exits 1 when it is above 2e-6 of the matrix's largest weight.
"""
import json
import subprocess
import sys

import numpy as np


def read_safetensors(path):
    """Tensors by name and the metadata of a safetensors file."""
    data = np.fromfile(path, np.uint8)
    n = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8 : 8 + n]))
    dtypes = {"F32": "<f4", "U8": "u1", "I8": "i1", "F16": "<f2"}
    metadata, tensors = header.pop("__metadata__"), {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        raw = data[8 + n + begin : 8 + n + end]
        if t["dtype"] == "BF16":
            raw = (raw.view("<u2").astype("<u4") << 16).view("<f4").reshape(t["shape"])
        tensors[name] = raw.view(dtypes[t["dtype"]]).reshape(t["shape"]) if t["dtype"] in dtypes else raw
    return tensors, metadata


def unpack(codes, bits):
    """[P, T, 128*bits] bytes -> [16 P, 64 T] codes."""
    panels, tiles, _ = codes.shape
    lanes, at, shift = np.zeros((panels, tiles, 16, 64), np.uint16), 0, 0
    for width, widths in ((8, (8, 9)), (4, (4, 5, 6, 7)), (2, (2, 3, 6, 7)), (1, (3, 5, 7, 9))):
        if bits not in widths:
            continue
        plane = codes[:, :, at : at + 128 * width]
        if width == 1:
            values = np.unpackbits(plane, axis=2, bitorder="little").reshape(panels, tiles, 16, 64)
        else:
            per_byte = 8 // width
            values = plane.reshape(panels, tiles, 16 // per_byte, 1, 64) >> (width * np.arange(per_byte, dtype=np.uint8))[:, None]
            values = (values & (2**width - 1)).reshape(panels, tiles, 16, 64)
        lanes |= values.astype(np.uint16) << shift
        at, shift = at + 128 * width, shift + width
    # [panel, tile, block, row, column in block] -> rows x columns
    return lanes.reshape(panels, tiles, 16, 16, 4).transpose(0, 3, 1, 2, 4).reshape(16 * panels, 64 * tiles)


def streams_of(blob, chunk_sizes, n_streams):
    """Decoded streams of every chunk. chunk_sizes: for each chunk the decoded bytes of its streams."""
    index = blob[len(blob) - len(chunk_sizes) * (4 * n_streams + 8) :].tobytes()
    at, chunks, frames = 0, [], []
    for c, sizes in enumerate(chunk_sizes):
        record = index[c * (4 * n_streams + 8) :]
        lengths = [int.from_bytes(record[4 * s : 4 * s + 4], "little") for s in range(n_streams)]
        chunks.append([])
        for length, size in zip(lengths, sizes):
            chunks[-1].append((at, length, size))
            if length != size:
                frames.append(blob[at : at + length].tobytes())
            at += length
    # frames one after another decode to their contents one after another
    plain = subprocess.run(["zstd", "-dcq"], input=b"".join(frames), capture_output=True, check=True).stdout if frames else b""
    plain, done = np.frombuffer(plain, np.uint8), 0
    for streams in chunks:
        for i, (begin, length, size) in enumerate(streams):
            if length == size:
                streams[i] = blob[begin : begin + size]
            else:
                streams[i], done = plain[done : done + size], done + size
    return chunks


def trellis_places(codes):
    """[16 P, K] codes -> places in the table."""
    ring = [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]
    in_ring = codes.reshape(-1, 16, codes.shape[1])[:, ring]
    lowest = in_ring & 1
    places = np.empty_like(in_ring)
    places[:, ring] = 2 * (in_ring ^ np.roll(lowest, 2, axis=1)) + np.roll(lowest, 1, axis=1)
    return places.reshape(codes.shape)


def pack_symbols(symbols, bits):
    """[tiles, 512 or 1024] symbols -> [tiles, 128*min(bits, 8)] bytes of planes."""
    if bits <= 4:
        two = symbols.reshape(-1, 8, 1, 64)
        codes = np.concatenate([two & 15, two >> 4], 2).reshape(-1, 16, 64)
    else:
        codes = symbols.reshape(-1, 16, 64)
    planes, shift = [], 0
    for width, widths in ((8, (8, 9)), (4, (4, 5, 6, 7)), (2, (2, 3, 6, 7)), (1, (3, 5, 7))):
        if bits not in widths:
            continue
        values = codes >> shift & (2**width - 1)
        if width == 1:
            planes.append(np.packbits(values.reshape(-1, 1024), axis=1, bitorder="little"))
        else:
            per_byte = 8 // width
            shifted = values.reshape(-1, 16 // per_byte, per_byte, 64) << (width * np.arange(per_byte, dtype=np.uint8))[:, None]
            planes.append(shifted.sum(2).astype(np.uint8).reshape(len(codes), -1))
        shift += width
    return np.concatenate(planes, 1)


def decode_rows(blob, shape, chunk, upper):
    """Packed codes whose rows are in four classes of streams."""
    (panels, tiles, _), bits = shape, shape[2] // 128
    lines = 8 if bits <= 4 or upper else 16
    classes = np.stack([blob[len(blob) - 4 * panels :] >> shift & 3 for shift in (0, 2, 4, 6)], 1).reshape(panels, 16)
    steps = [classes[first : first + chunk // tiles] for first in range(0, panels, chunk // tiles)]
    sizes = [[int((rows == c).sum()) * tiles * lines * 4 for c in range(4)] + [len(rows) * tiles * 128] * upper for rows in steps]
    parts = []
    for rows, streams in zip(steps, streams_of(blob[: len(blob) - 4 * panels], sizes, 4 + upper)):
        symbols = np.empty((len(rows), tiles, lines, 16, 4), np.uint8)
        for c in range(4):
            symbols[np.broadcast_to((rows == c)[:, None, None, :], symbols.shape[:-1])] = streams[c].reshape(-1, 4)
        symbols = symbols.reshape(-1, lines * 64)
        if upper:
            two = symbols.reshape(-1, 8, 1, 64)
            low = np.unpackbits(streams[4], bitorder="little").reshape(-1, 16, 64)
            symbols = np.concatenate([two & 15, two >> 4], 2).reshape(-1, 16, 64) * np.uint8(2) + low
        parts.append(pack_symbols(symbols.reshape(-1, 1024 if upper else lines * 64), bits).reshape(-1))
    return np.concatenate(parts).reshape(shape)


def decode_entropy(blob, entry):
    """An entropy-coded tensor as it was."""
    dtypes = {"F32": "<f4", "U8": "u1", "I8": "i1", "F16": "<u2", "BF16": "<u2"}
    shape, chunk, form = entry["shape"], entry["chunk"], entry["form"]
    width = np.dtype(dtypes[entry["dtype"]]).itemsize
    n_units, per_unit, bits = int(np.prod(shape)), [1], 0
    if form in ("rows", "upper"):
        return decode_rows(blob, shape, chunk, form == "upper")
    if form == "planes":
        bits = shape[2] // 128
        n_units, per_unit = shape[0] * shape[1], [512 if bits <= 4 else 1024] + [128] * (bits == 9)
    elif form == "numbers":
        per_unit = [1] * width
    sizes = [[min(chunk, n_units - first) * n for n in per_unit] for first in range(0, n_units, chunk)]
    parts = []
    for streams in streams_of(blob, sizes, len(per_unit)):
        if form == "planes":
            part = pack_symbols(streams[0].reshape(-1, per_unit[0]), bits)
            if bits == 9:
                part = np.concatenate([part, streams[1].reshape(-1, 128)], 1)
        elif form == "numbers":
            unsigned = np.dtype(f"<u{width}")
            value = sum(s.astype(unsigned) << unsigned.type(8 * i) for i, s in enumerate(streams))
            r = entry.get("rotate", 0)
            part = (value >> unsigned.type(r) | value << unsigned.type((8 * width - r) % (8 * width))).astype(unsigned)
        else:
            part = streams[0]
        parts.append(part.reshape(-1))
    return np.concatenate(parts).view(dtypes[entry["dtype"]]).reshape(shape)


def signs(seed, n):
    x = np.arange(n, dtype=np.uint64) + np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.where((x ^ x >> np.uint64(31)) >> np.uint64(63), -1.0, 1.0)


def unrotate(w, seed):
    block = min(w.shape[1] & -w.shape[1], 4096)
    h = np.ones((1, 1))
    while len(h) < block:
        h = np.block([[h, h], [h, -h]])
    return (w.reshape(-1, block) @ h / np.sqrt(block)).reshape(w.shape) * signs(seed, w.shape[1])


def decode(name, entry, tensors):
    """One matrix in float64."""
    n, k = entry["shape"]
    codes = tensors[name + ".codes"]
    if entry["storage"] == "seed":
        lo, hi = tensors[name + ".log_range"].astype(np.float64)
        magnitude = np.exp(lo + (255.0 - codes) / 254 * (hi - lo))
        return np.where(codes == 0, 0, tensors[name + ".sign"] * magnitude)
    if entry["storage"] == "f32":
        z = codes.astype(np.float64)
        return np.sign(z) * (1 - abs(z)) / (float(tensors[name + ".alpha"][0]) * abs(z))
    table = tensors.get(name + ".table", tensors.get(f"qins.table.{entry['codec']}.{entry['bits']}"))
    places = unpack(codes, entry["bits"])
    if entry["codec"] in ("trellis", "uniform_trellis"):
        places = trellis_places(places)
    w = table.astype(np.float64)[places[:n, :k]]
    scales = tensors[name + ".scales"]
    if entry["scale"] == "group":
        w *= np.repeat(scales.transpose(0, 2, 1).reshape(-1, scales.shape[1]), entry["group_size"], axis=1)[:n, :k]
    else:
        w *= scales[:n, None] if entry["scale"] == "row" else scales[0]
    return unrotate(w, entry["rotation_seed"]) if "rotation_seed" in entry else w


def join(w, ranges, rest):
    """A whole matrix from its encoded rows, which the ranges place, and the others."""
    whole = np.empty((len(w) + len(rest), w.shape[1]))
    encoded = np.zeros(len(whole), bool)
    for begin, end in ranges:
        encoded[begin:end] = True
    whole[encoded], whole[~encoded] = w, rest
    return whole


def main():
    tensors, metadata = read_safetensors(sys.argv[1] + "/model.safetensors")
    expected, _ = read_safetensors(sys.argv[2] + "/model.safetensors")
    meta = json.loads(metadata["qins"])
    entries = meta["tensors"]
    for name, coded in meta.get("coded", {}).items():
        tensors[name] = decode_entropy(tensors[name + ".entropy"], coded)
    with open(sys.argv[1] + "/config.json") as f:
        transposed = json.load(f)["model_type"] == "gpt2"  # its plain files hold [inputs][outputs]
    worst = 0.0
    for name, entry in entries.items():
        ours, theirs = decode(name, entry, tensors), expected[name]
        if "rows" in entry:
            ours = join(ours, entry["rows"], tensors[name + ".rest"])
        if transposed and ".h." in name:
            ours = ours.T
        worst = max(worst, np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
    print(f"{len(entries)} matrices, largest difference {worst:.3g} of the largest weight")
    for name in set(tensors) & set(expected) - set(entries):  # plain ones, entropy-coded or not
        bits = tensors[name].view(np.uint32) if tensors[name].dtype == np.float32 else tensors[name]
        if not np.array_equal(bits, expected[name].view(bits.dtype)):
            sys.exit(f"{name} differs")
    sys.exit(0 if expected and worst <= 2e-6 else 1)


main()
