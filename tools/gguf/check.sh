#!/bin/bash
# GGUF files of small models, read by the `gguf` package and run by llama.cpp: check.sh [DIR]. Their
# perplexities are those of `trident eval` and their tokens those of `trident tokenize`. Makes a
# virtual environment in $TRIDENT_VENV (/tmp/trident-venv); DIR (/tmp/trident-gguf) is made anew.
set -eu
folder=$(realpath -m "${1:-/tmp/trident-gguf}")
cd "$(dirname "$0")/../.."
if [ -e "$folder" ] && [ ! -e "$folder/made_by_gguf_check" ] && [ -n "$(ls -A "$folder")" ]; then
    echo "tools/gguf/check.sh: $folder is not empty and was not made by it: not removed" >&2
    exit 2
fi
venv=${TRIDENT_VENV:-/tmp/trident-venv}
if ! "$venv/bin/python" -c 'import gguf, cffi' 2>/dev/null ||
    ! ls "$venv"/lib/python3*/site-packages/llama/_llama_cpp_cpu.* >/dev/null 2>&1; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q 'gguf==0.19.0' 'cffi==2.1.1'
    "$venv/bin/pip" install -q --no-deps 'llama-cpp-cffi==0.4.42'
fi
cmake --preset release >/dev/null
cmake --build --preset release --target trident >/dev/null
exec "$venv/bin/python" tools/gguf/check.py build/release/bin/trident "$folder"
