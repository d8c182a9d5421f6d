#!/bin/bash
# Fine-tunes a model that lies in a Hugging Face folder on chats, and writes it as such a folder
# again: tokenize, train, export. Takes two minutes on two cores, once all is built.
#
#   scripts/finetune_demo.sh
#
# Nothing is fetched: the model is a tiny one, trained on Shakespeare for some seconds first, and
# the chats are what his people say to each other. What an earlier call left in runs/finetune is
# replaced. TRIDENT=FILE is the program (without it, it is built), OUT=DIR another place for all
# that is written, STEPS=N how long is trained (200).
set -eu

ranks=2
steps=${STEPS:-200}
program=${TRIDENT:-}
[ -z "$program" ] || program=$(realpath -- "$program")
[ -z "${OUT:-}" ] || OUT=$(realpath -m -- "$OUT")
cd "$(dirname "$0")/.."
out=${OUT:-runs/finetune}
text=examples/data/tinyshakespeare.txt
base=$out/models/base
tuned=$out/models/tuned

say() {
    printf '\n== %s\n' "$*"
}

# Shows a command and runs it.
run() {
    printf '$ trident %s\n' "$*"
    "$program" "$@"
}

# One chat a line: speeches that follow each other, by turns the user's and the assistant's.
write_chats() {
    awk '
        function finish() {
            if (turns > 1) {
                print "{\"messages\": [" chat "]}"
            }
            chat = ""
            turns = 0
        }
        BEGIN { RS = ""; FS = "\n" }
        {
            speech = $2
            for (i = 3; i <= NF; i++) {
                speech = speech "\\n" $i
            }
            gsub(/"/, "\\\"", speech)
            if (speech == "" || length(speech) > 300) {
                finish()
                next
            }
            chat = chat (turns ? ", " : "") "{\"role\": \"" (turns % 2 ? "assistant" : "user") \
                "\", \"content\": \"" speech "\"}"
            if (++turns == 4) {
                finish()
            }
        }
        END { finish() }' "$text"
}

# The first and the last validation in the run's metrics.
print_validations() {
    sed -n 's/.*"step": *\([0-9]*\).*"valid_loss": *\([0-9.eE+-]*\).*/\1 \2/p' \
        "$out/sft/metrics.jsonl" |
        awk 'function line(when, step, loss) {
                 printf "%s fine-tuning (step %d): loss %.4f, perplexity %.1f\n",
                        when, step, loss, exp(loss)
             }
             NR == 1 { line("before", $1, $2) }
             { step = $1; loss = $2 }
             END { if (NR < 2) exit 1; line("after", step, loss) }'
}

if [ -z "$program" ]; then
    scripts/setup.sh
    say "building"
    log=$(cmake --preset release 2>&1) || { printf '%s\n' "$log" >&2; exit 3; }
    cmake --build --preset release --target trident
    program=build/release/bin/trident
fi
rm -rf "$out"
mkdir -p "$out"

say "a model to begin with: $((2 * steps)) steps on plain text, as a Hugging Face folder"
run tokenize --train-vocab 512 --out "$out/text" --valid 0.05 "$text"
run train examples/finetune/base.yaml --ranks "$ranks" --fresh "run_dir=$out/base" \
    "data.train=$out/text/train_*.bin" "data.valid=$out/text/valid_*.bin" \
    "train.steps=$((2 * steps))" "train.warmup_steps=$((steps / 5))"
run export "$out/base" "$base"

say "1. chats to tokens: what the assistant says counts"
write_chats >"$out/chats.jsonl"
head -n 1 "$out/chats.jsonl"
run tokenize --tokenizer "$base" --format chat --template olmo --out "$out/chats" --valid 0.05 \
    "$out/chats.jsonl"

say "2. fine-tuning on $ranks ranks, from the folder's weights"
run train examples/finetune/sft.yaml "init_from=$base" --ranks "$ranks" --fresh \
    "run_dir=$out/sft" "data.train=$out/chats/train_*.bin" "data.valid=$out/chats/valid_*.bin" \
    "train.steps=$steps" "train.warmup_steps=$((steps / 10))" "eval.every=$steps"

say "3. a Hugging Face folder again"
run export "$out/sft" "$tuned"
ls "$tuned"

say "answers: a line of yours, one of the model's"
questions='What news, my lord?
Who are you?'
printf '%s\n' "$questions"
printf '%s\n' "$questions" |
    run generate "$out/sft" --chat --tokens 60 --temperature 0.7 --seed 1

say "validation on chats that were not trained on"
print_validations
