#!/usr/bin/env python3
"""Write conversations as transformers' apply_chat_template renders them: tests/golden/chat/conversations.json.

    python3 tools/make_chat_goldens.py

Templates are those of the published models; those of llama.cpp's Python package are taken from there, and of long ones the branches
that only tools reach are left out. Expected texts are what transformers makes of them, tokenize=False.
"""

import json
from pathlib import Path

import llama_cpp
import transformers
from llama_cpp import llama_chat_format
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

OUT = Path(__file__).resolve().parent.parent / "tests/golden/chat/conversations.json"

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful "
    "AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN25 = r"""{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}"
    "{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
    "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == "
    "'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + "
    "content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_V1 = r"""{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- endif %}
{%- endfor %}
"""
# Without the branches for tools, but for the sign of them. The system message goes into the last of the user's
# messages; a conversation that grows can only have it in the first, which is the same for one message.
MISTRAL_V3 = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and false %}
            {{- "[AVAILABLE_TOOLS] [" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- endif %}
{%- endfor %}
"""
MISTRAL_TEKKEN = MISTRAL_V3.replace("[INST] ", "[INST]").replace('" " + message', "message").replace("TOOLS] [", "TOOLS][")
MISTRAL_V7 = r"""{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '[INST]' + message['content'] + '[/INST]' }}
    {%- elif message['role'] == 'system' %}
        {{- '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' }}
    {%- elif message['role'] == 'assistant' %}
        {{- message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}
"""
PHI3 = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + message['content'] + "
    "'<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + "
    "'\n'}}{% endif %}{% endfor %}"
)
PHI35 = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == "
    "'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI4 = (
    "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + message['content'] + "
    "'<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif "
    "(message['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for "
    "message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if "
    "add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
GEMMA3 = r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {{ message['content'] | trim }}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""".replace("}}\n    {{ message", "}}{{ message").replace("trim }}\n    {{", "trim }}{{")
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == "
    "'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and "
    "add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)

# Name of the model, format, template, BOS, EOS, whether it takes a system message.
MODELS = [
    ("chatml", "chatml", llama_chat_format.CHATML_CHAT_TEMPLATE, "<s>", "<|im_end|>", True),
    ("SmolLM2-135M-Instruct", "chatml", SMOLLM2, "<|im_start|>", "<|im_end|>", True),
    ("Qwen2.5", "chatml", QWEN25, None, "<|im_end|>", True),
    ("phi-4", "phi-4", PHI4, "<|endoftext|>", "<|im_end|>", True),
    ("Llama-3", "llama-3", llama_chat_format.LLAMA3_INSTRUCT_CHAT_TEMPLATE, "<|begin_of_text|>", "<|eot_id|>", True),
    ("Llama-2", "llama-2", LLAMA2, "<s>", "</s>", True),
    ("Mixtral", "mistral-v0", llama_chat_format.MIXTRAL_INSTRUCT_CHAT_TEMPLATE, "<s>", "</s>", False),
    ("Mistral-7B-v0.2", "mistral-v1", MISTRAL_V1, "<s>", "</s>", True),
    ("Mistral-7B-v0.3", "mistral-v3", MISTRAL_V3, "<s>", "</s>", True),
    ("Mistral-Nemo", "mistral-v3-tekken", MISTRAL_TEKKEN, "<s>", "</s>", True),
    ("Mistral-Small", "mistral-v7", MISTRAL_V7, "<s>", "</s>", True),
    ("Phi-3-mini", "phi-3", PHI3, "<s>", "<|endoftext|>", False),
    ("Phi-3.5-mini", "phi-3", PHI35, "<s>", "<|endoftext|>", True),
    ("gemma-2", "gemma", GEMMA, "<bos>", "<eos>", False),
    ("gemma-3", "gemma", GEMMA3, "<bos>", "<eos>", True),
    ("zephyr, TinyLlama", "zephyr", ZEPHYR, "<s>", "</s>", True),
]

SYSTEM = {"role": "system", "content": "You are brief."}
USER = [{"role": "user", "content": text} for text in ("Hello\nthere", "  Wer bist du?  ", "{{ 1 + 1 }} {text} {bos}")]
ANSWER = [{"role": "assistant", "content": text} for text in ("Hi.", "Ein Modell, \u4f60\u597d.")]


def conversations(name, has_system):
    """Yield lists of messages that end with the user's."""
    yield USER[:1]
    yield [USER[0], ANSWER[0], USER[1]]
    yield [USER[0], ANSWER[0], USER[1], ANSWER[1], USER[2]]
    if has_system:
        yield [SYSTEM, USER[0]]
        if name not in ("Mistral-7B-v0.3", "Mistral-Nemo"):
            yield [SYSTEM, USER[0], ANSWER[0], USER[2]]


def main():
    """Render all of them."""
    written = []
    for name, form, template, bos, eos, has_system in MODELS:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=bos, eos_token=eos)
        tokenizer.chat_template = template
        cases = [
            {"messages": m, "text": tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)}
            for m in conversations(name, has_system)
        ]
        written.append({"model": name, "format": form, "template": template, "bos": bos, "eos": eos, "cases": cases})
    made_by = f"transformers {transformers.__version__}, llama-cpp-python {llama_cpp.__version__}"
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"made_by": made_by, "models": written}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
