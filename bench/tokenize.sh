#!/bin/bash
# How fast texts become tokens: text, JSON Lines and chats, as they are and packed, in MB of
# unpacked input a second.
#
#   bench/tokenize.sh [MB] [TOKENIZER]     megabytes of each (default 200), tokenizer (byte)
#
# The text is examples/data's, over and over. BUILD=DIR has bin/trident (default build/release),
# OMP_NUM_THREADS the threads; WORK=DIR is for the files (default a new one in /tmp, removed).
set -eu
cd "$(dirname "$0")/.."

megabytes=${1:-200}
tokenizer=${2:-byte}
program=${BUILD:-build/release}/bin/trident
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -r "$work"' EXIT
mkdir -p "$work"

# Lines of about 400 characters, as text or in JSON: {"text"}, or {"messages"} of two turns.
write() {
    awk -v kind="$1" -v most="$((megabytes * 1000000))" '
        function finish(text) {
            if (kind == "jsonl") {
                text = "{\"id\": " number++ ", \"text\": \"" text "\"}"
            } else if (kind == "chat") {
                text = "{\"messages\": [{\"role\": \"user\", \"content\": \"" substr(text, 1, 150) \
                    "\"}, {\"role\": \"assistant\", \"content\": \"" substr(text, 151) "\"}]}"
            }
            bytes += length(text) + 1
            print text
        }
        { gsub(/["\\]/, ""); all[NR] = $0 }
        END {
            while (bytes < most) {
                for (i = 1; i <= NR && bytes < most; i++) {
                    text = text " " all[i]
                    if (length(text) > 400) {
                        finish(text)
                        text = ""
                    }
                }
            }
        }' examples/data/tinyshakespeare.txt
}

measure() {
    local file=$1 format=$2 start end result
    start=$(date +%s.%N)
    result=$("$program" tokenize --tokenizer "$tokenizer" --out "$work/shards" --format "$format" \
        --template plain --json "$file")
    end=$(date +%s.%N)
    awk -v name="$(basename "$file")" -v start="$start" -v end="$end" -v result="$result" 'BEGIN {
        match(result, /"bytes": *[0-9]+/)
        bytes = substr(result, RSTART, RLENGTH)
        sub(/.*: */, "", bytes)
        printf "| %-14s | %7.1f | %6.2f | %7.1f |\n", name, bytes / 1e6, end - start,
            bytes / 1e6 / (end - start)
    }'
    rm -r "$work/shards"
}

printf '| %-14s | %7s | %6s | %7s |\n| --- | --- | --- | --- |\n' input MB s MB/s
for format in text jsonl chat; do
    ending=$format
    [ "$format" = text ] && ending=txt
    write "$format" >"$work/data.$ending"
    measure "$work/data.$ending" "$format"
    gzip -1 -k "$work/data.$ending"
    measure "$work/data.$ending.gz" "$format"
    if command -v zstd >/dev/null; then
        zstd -q "$work/data.$ending"
        measure "$work/data.$ending.zst" "$format"
    fi
    rm "$work"/data.*
done
