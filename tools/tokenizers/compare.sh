#!/bin/bash
# Tokens and speed of Trident beside those of the `tokenizers` package: compare.sh [--megabytes N]
# [--kinds gpt2,…] [--seed N]. Makes a virtual environment in $TRIDENT_VENV (/tmp/trident-venv).
set -eu
cd "$(dirname "$0")/../.."
venv=${TRIDENT_VENV:-/tmp/trident-venv}
if ! "$venv/bin/python" -c 'import tokenizers' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q 'tokenizers==0.23.3'
fi
cmake --preset release >/dev/null
cmake --build --preset release --target bench_tokens trident >/dev/null
exec "$venv/bin/python" tools/tokenizers/compare.py "$@"
