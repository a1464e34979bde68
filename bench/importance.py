"""Importance matrix as llama.cpp's imatrix program makes it: for each linear, the mean of the squares of each input column."""
import numpy as np
import torch
from transformers import AutoModelForCausalLM


@torch.no_grad()
def column_importances(model_path, windows, threads):
    """Returns {name of the weight: mean square of each input} over windows [n][ctx] of token ids."""
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    model.eval()
    sums = {}

    def hook(name):
        def add(_, inputs):
            x = inputs[0].flatten(0, -2)
            sums[name] = sums.get(name, 0) + (x * x).sum(0, dtype=torch.float64)
        return add

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            module.register_forward_pre_hook(hook(name + ".weight"))
    for window in windows:
        model.model(input_ids=torch.tensor(window)[None], use_cache=False)
    n_tokens = sum(len(window) for window in windows)
    return {name: (total / n_tokens).numpy().astype(np.float32) for name, total in sums.items()}
