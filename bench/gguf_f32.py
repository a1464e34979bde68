"""An FP32 GGUF of a Hugging Face model: metadata and tensor order of a GGUF of the same model, weights of the other."""
import gguf
import numpy as np

SKIPPED = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")


def _names(reader):
    arch = reader.get_field("general.architecture").contents()
    known = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    return arch, gguf.get_tensor_name_map(known, reader.get_field(f"{arch}.block_count").contents())


def gguf_name_of(gguf_path, name):
    """Returns the GGUF name of a Hugging Face weight."""
    return _names(gguf.GGUFReader(gguf_path))[1].get_name(name, try_suffixes=(".weight", ".bias"))


def _permute(rows, n_heads):
    """Rows of a llama's q or k in the order of GGUF: rotary pairs adjacent."""
    shape = rows.shape
    return rows.reshape(n_heads, 2, shape[0] // n_heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)


def write_gguf(like_path, weights, target):
    """Writes {Hugging Face name: FP32 weights} to a GGUF file that otherwise equals the one at like_path."""
    reader = gguf.GGUFReader(like_path)
    arch, names = _names(reader)
    heads = {"attn_q": reader.get_field(f"{arch}.attention.head_count").contents(),
             "attn_k": reader.get_field(f"{arch}.attention.head_count_kv").contents()}
    by_name = {names.get_name(name, try_suffixes=(".weight", ".bias")): value for name, value in weights.items()}
    writer = gguf.GGUFWriter(target, arch)
    for key, field in reader.fields.items():
        if not key.startswith(SKIPPED):
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=field.types[-1] if is_array else None)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        value = by_name[tensor.name]
        n_heads = heads.get(tensor.name.split(".")[-2]) if arch == "llama" and value.ndim == 2 else None
        writer.add_tensor(tensor.name, np.ascontiguousarray(_permute(value, n_heads) if n_heads else value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
