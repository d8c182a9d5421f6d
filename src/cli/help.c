#include "cli/active.h"
#include "cli/command.h"
#include "cli/manual.h"
#include "config/text.h"
#include "moe/strategies.h"

#include <stdio.h>
#include <string.h>

#define OPTIONS(...)                                                                               \
    (const struct tri_option[])                                                                    \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

const struct tri_command tri_commands[] = {
    {"train",
     "train a model, or go on where its run stopped",
     "trident train CONFIG.yaml [--ranks N] [--fresh] [--accept-data] [--json] [key=value …]\n"
     "mpiexec -n 8 trident train CONFIG.yaml …    for 8 ranks, of several machines too\n\n"
     "Trains the model that the config describes into its run_dir. When the run folder holds\n"
     "checkpoints it continues from the last good one; a finished run says so.\n\n"
     "  --ranks N      so many ranks, threads of this process, without mpiexec\n"
     "  --fresh        start over: what the run folder holds is removed\n"
     "  --accept-data  go on though data.train holds other tokens than the run began with\n"
     "  --json         one JSON object at the end: step, loss, valid_loss, …\n"
     "  key=value      replaces a value of the config, as in train.steps=100; lists as in YAML:\n"
     "                 \"data.train=[{path: a.bin, weight: 2}, {path: b.bin}]\"\n\n"
     "SIGTERM and SIGUSR1 save a checkpoint and exit with status 85: start the same command\n"
     "again, without --fresh. `trident help config` lists every key.\n",
     OPTIONS({"--ranks", true}, {"--fresh", false}, {"--accept-data", false}, {"--json", false},
             {NULL, false}),
     1,
     {"CONFIG.yaml"},
     TRI_TAKES_OVERRIDES | TRI_READS_CONFIG | TRI_WRITES | TRI_STARTS_RANKS,
     tri_command_train},
    {"eval",
     "loss, perplexity, bits per byte, expert load",
     "trident eval RUN|CHECKPOINT [--data SHARDS | --choices FILE] [options] [key=value …]\n"
     "\n"
     "Evaluates the last good checkpoint of a run, or one checkpoint, on all of the shards, or on\n"
     "questions of multiple choice.\n\n"
     "  --ranks N       so many ranks, threads of this process, without mpiexec\n"
     "  --data SHARDS   a glob of token shards; without it the run's data.valid: where that names\n"
     "                  several sets, each by itself and by its name\n"
     "  --choices FILE  questions in llm.c's format (HellaSwag, MMLU): how often the right\n"
     "                  completion is the likeliest\n"
     "  --bytes N       bytes of the text behind the tokens, for bits per byte where tokens are\n"
     "                  no bytes and there is no tokenizer; of one set alone\n"
     "  --active [N]    of a model of moe.router dense: of each token only the N most probable\n"
     "                  experts work (moe.top_k); prints the part of their work that is done\n"
     "  --active-threshold EPS  those whose probability x num_experts is above EPS\n"
     "  --active-average EPS    as many of the most probable as that is on average over a row\n"
     "                  (over moe.aux_window)\n"
     "  --json          one JSON object: loss, perplexity, bits_per_byte, tokens, …; of several\n"
     "                  sets these by name in \"sets\"; of --choices questions, accuracy,\n"
     "                  accuracy_by_sum\n"
     "  key=value       replaces a value of the run's config, as in parallel.expert=2\n",
     OPTIONS({"--ranks", true}, {"--data", true}, {"--choices", true}, {"--bytes", true},
             TRI_ACTIVE_OPTIONS, {"--json", false}, {NULL, false}),
     1,
     {"RUN|CHECKPOINT"},
     TRI_TAKES_OVERRIDES | TRI_STARTS_RANKS,
     tri_command_eval},
    {"generate",
     "write text with a trained model, or talk to it",
     "trident generate RUN|CHECKPOINT [--prompt TEXT | --prompts FILE] [--chat] [options]\n"
     "                 [key=value …]\n\n"
     "  --ranks N           so many ranks, threads of this process, without mpiexec\n"
     "  --prompt TEXT       what to go on from; without it what the tokenizer puts before a text,\n"
     "                      or a newline; an empty one is refused\n"
     "  --prompts FILE      several: one a line; of a .jsonl file objects with prompt, text or\n"
     "                      messages\n"
     "  --batch N           so many of them at once (8)\n"
     "  --chat              a prompt is a user's turn, and an answer is written; without prompts\n"
     "                      turn by turn, a line of standard input each\n"
     "  --template NAME     of the chat: chatml, llama3, mistral, olmo or plain; without it the\n"
     "                      one of the tokenizer's folder\n"
     "  --system TEXT       what the chat begins with\n"
     "  --tokens N          how many tokens to write (200)\n"
     "  --context N         how many the model sees at most (model.max_position)\n"
     "  --temperature X     0: always the likeliest (1)\n"
     "  --top-k N           choose among the N likeliest (0: all)\n"
     "  --top-p X           choose among the likeliest that together reach X (1: all)\n"
     "  --seed N            of the random choices (1)\n"
     "  --active [N]        of a model of moe.router dense: of each token only the N most\n"
     "                      probable experts work (moe.top_k)\n"
     "  --active-threshold EPS  those whose probability x num_experts is above EPS\n"
     "  --active-average EPS    as many of the most probable as that is on average over\n"
     "                      moe.aux_window: the tokens of a text that are read at once\n"
     "  --no-cache          works out the whole context for every token: the same text, slowly\n"
     "  --ids               the prompt, which must be given, is token ids, and ids are written;\n"
     "                      needed when tokens are not bytes and there is no tokenizer\n"
     "  --json              one JSON object: tokens, text, ended, seconds; of --prompts texts, a\n"
     "                      list of such\n"
     "  key=value           replaces a value of the run's config, as in parallel.expert=2\n\n"
     "The tokens that end a text, data.separator's or those that the tokenizer's folder names, "
     "end\n"
     "the writing.\n",
     OPTIONS({"--ranks", true}, {"--prompt", true}, {"--prompts", true}, {"--batch", true},
             {"--chat", false}, {"--template", true}, {"--system", true}, {"--tokens", true},
             {"--context", true}, {"--temperature", true}, {"--top-k", true}, {"--top-p", true},
             {"--seed", true}, TRI_ACTIVE_OPTIONS, {"--no-cache", false}, {"--ids", false},
             {"--json", false}, {NULL, false}),
     1,
     {"RUN|CHECKPOINT"},
     TRI_TAKES_OVERRIDES | TRI_STARTS_RANKS,
     tri_command_generate},
    {"verify",
     "this layout against one rank, parameter by parameter",
     "trident verify CONFIG.yaml [--ranks N] [--steps N] [--compare N] [--plant P=F] [--json]\n"
     "               [key=value …]\n"
     "mpiexec -n 8 trident verify CONFIG.yaml …\n\n"
     "Runs the config on this layout and, on rank 0, alone; compares loss and every gradient\n"
     "from the same weights, then follows training: steps from equal weights and moments. Runs\n"
     "in f32, writes nothing; exits 1 when they differ.\n\n"
     "  --ranks N       so many ranks, threads of this process, without mpiexec\n"
     "  --steps N       steps that are followed (50)\n"
     "  --compare N     steps whose gradients are compared (2)\n"
     "  --plant P=F     scales the gradient of parameter P by F on the layout's side: must fail\n"
     "  --json          one JSON object: passed, worst, near_ties, wrong_routes, …\n"
     "  key=value       replaces a value of the config, as in parallel.expert=2\n",
     OPTIONS({"--ranks", true}, {"--steps", true}, {"--compare", true}, {"--plant", true},
             {"--json", false}, {NULL, false}),
     1,
     {"CONFIG.yaml"},
     TRI_TAKES_OVERRIDES | TRI_READS_CONFIG | TRI_STARTS_RANKS,
     tri_command_verify},
    {"plan",
     "memory, traffic and time of each layout, before a run",
     "trident plan CONFIG.yaml [--ranks N] [--layouts] [--cluster FILE] [--json] [key=value …]\n\n"
     "Bytes that a rank will take, by category, and send in a step, for the rank that takes\n"
     "most: a step's own code is run without data or arithmetic, so nothing of that size is\n"
     "needed here. A run counts the same bytes when routing is balanced; the plan of one layout\n"
     "also says what it takes when a rank's experts receive moe.headroom times their share, and\n"
     "all there is.\n\n"
     "  --ranks N    for this many ranks; without it those of this job or, alone, tensor x expert\n"
     "  --layouts    every layout of these ranks, the least memory first, and why not the others\n"
     "  --cluster FILE  a machine, as `trident calibrate` writes it (or you): milliseconds of a "
     "step\n"
     "               and where they go; with --layouts the fastest first, of the best layouts "
     "also\n"
     "               with other grids, moe.schedule, moe.chunks, train.recompute and\n"
     "               train.micro_batch, and why the others lose; what is `auto` in the config is\n"
     "               chosen with it (without it with plan.cluster)\n"
     "  --json       one JSON object: bytes, sent, …; or layouts and refused\n"
     "  key=value    replaces a value of the config, as in parallel.expert=2\n",
     OPTIONS({"--ranks", true}, {"--layouts", false}, {"--cluster", true}, {"--json", false},
             {NULL, false}),
     1,
     {"CONFIG.yaml"},
     TRI_TAKES_OVERRIDES | TRI_READS_CONFIG,
     tri_command_plan},
    {"calibrate",
     "what this machine does in a second, for plan --cluster",
     "trident calibrate [--out FILE] [--ranks N] [--threads N] [--kernels FILE] [--quick] "
     "[--reproducible] [--json]\n"
     "mpiexec -n 8 trident calibrate --out cluster.yaml    on the ranks that a run will have\n\n"
     "Measures, all ranks at once, kernels by kind and precision in steps of small models, and\n"
     "each collective inside a host and between hosts; fits a time for each call and rates of\n"
     "operations and bytes, and prints how far the fits are off. A minute; two where ranks share\n"
     "processors or links are slow.\n\n"
     "  --out FILE   YAML that `trident plan --cluster FILE` reads, and people too; without it it\n"
     "               is printed\n"
     "  --ranks N    so many ranks, threads of this process, without mpiexec\n"
     "  --threads N  of each rank, as the config's key threads\n"
     "  --kernels FILE  has the kernels' rates: only the links are measured\n"
     "  --quick      in a tenth of the time, less exactly\n"
     "  --reproducible  also the kernels of runs with reproducible: true, in twice the time\n"
     "  --json       one JSON object: what the file has\n",
     OPTIONS({"--out", true}, {"--ranks", true}, {"--threads", true}, {"--kernels", true},
             {"--quick", false}, {"--reproducible", false}, {"--json", false}, {NULL, false}),
     0,
     {NULL},
     TRI_WRITES | TRI_STARTS_RANKS,
     tri_command_calibrate},
    {"tokenize",
     "texts, documents and chats into token shards",
     "trident tokenize --tokenizer T --out DIR [options] FILES…\n\n"
     "Joins the files and writes DIR/train_000000.bin … and, from the last part,\n"
     "DIR/valid_000000.bin … in llm.c's format, and beside them .docs (where documents begin) and\n"
     ".mask (which tokens count); all that are there of such names are replaced. Files may be\n"
     "packed by gzip or zstd.\n\n"
     "  --tokenizer T       byte: a token for each byte; or a tokenizer.json (byte-pair\n"
     "                      encodings), or a folder that holds one\n"
     "  --train-vocab N     instead: a byte-level tokenizer of N ids, learned from the files\n"
     "  --format F          text: a file is a document; jsonl: a line is one, {\"text\"} or\n"
     "                      {\"prompt\", \"completion\"}; chat: {\"messages\"}, of which what the\n"
     "                      assistant says counts. Without it: jsonl for names in .json, .jsonl,\n"
     "                      .ndjson, chat where the first line has messages, else text\n"
     "  --template NAME     how chats are laid out: chatml, llama3, mistral, olmo, plain;\n"
     "                      without it as the tokenizer's folder says\n"
     "  --valid FRACTION    the part of the tokens held out (0); of lines, whole ones\n"
     "  --separator N       token N between documents\n"
     "  --shard-tokens N    tokens in a shard (100000000)\n"
     "  --json              one JSON object: bytes, vocab_size, train_tokens, valid_tokens, …\n",
     OPTIONS({"--tokenizer", true}, {"--train-vocab", true}, {"--out", true}, {"--format", true},
             {"--template", true}, {"--valid", true}, {"--separator", true},
             {"--shard-tokens", true}, {"--json", false}, {NULL, false}),
     TRI_WORDS_ANY,
     {"FILES…"},
     TRI_WRITES,
     tri_command_tokenize},
    {"import",
     "a Hugging Face folder into a checkpoint",
     "trident import DIR CHECKPOINT [--adapter ADAPTER] [--ranks N] [--json]\n\n"
     "Reads config.json and the safetensors of DIR (Mixtral, OLMoE, Qwen2-MoE, Qwen3-MoE, GPT-2,\n"
     "Llama, Qwen3, Mistral) and writes a checkpoint without optimizer states, where nothing is\n"
     "yet. Each rank holds and writes its share of the model: CHECKPOINT must be the same folder\n"
     "on all nodes.\n\n"
     "  --adapter ADAPTER  a folder of PEFT's: its low-rank pairs beside the weights\n"
     "  --ranks N          so many ranks, threads of this process, without mpiexec\n"
     "  --json             one JSON object: family, parameters, checkpoint\n",
     OPTIONS({"--ranks", true}, {"--adapter", true}, {"--json", false}, {NULL, false}),
     2,
     {"DIR", "CHECKPOINT"},
     TRI_WRITES | TRI_STARTS_RANKS,
     tri_command_import},
    {"export",
     "a checkpoint into a Hugging Face folder, or a GGUF file",
     "trident export RUN|CHECKPOINT TO [--format hf|gguf] [--dtype f32|bf16|f16|q8_0]\n"
     "               [--merge] [--fused] [--ranks N] [--json]\n\n"
     "Writes config.json and safetensors that transformers reads, when one of the families that\n"
     "`import` knows can hold the model; else says what stands in the way. Nothing may be at\n"
     "TO yet. Tokenizer, chat template and generation_config.json are copied from the folder "
     "that\n"
     "the model began with, if it is still there. Each rank holds and writes its share of the\n"
     "model: TO must be the same folder on all nodes.\n\n"
     "  --format F   hf (the default), a folder; or gguf, one file that llama.cpp reads, with the\n"
     "               tokenizer in it\n"
     "  --dtype D    of the tensors: f32 (the default), bf16, f16, or of gguf q8_0\n"
     "  --merge      the whole model, low-rank pairs merged into its weights; without it a run "
     "with\n"
     "               train.lora is written as PEFT's adapter\n"
     "  --fused      in an adapter, pairs of experts as transformers 5 has them: a layer's at "
     "once\n"
     "  --ranks N    so many ranks, threads of this process, without mpiexec\n"
     "  --json       one JSON object: family, parameters, folder or file\n",
     OPTIONS({"--ranks", true}, {"--format", true}, {"--dtype", true}, {"--merge", false},
             {"--fused", false}, {"--json", false}, {NULL, false}),
     2,
     {"RUN|CHECKPOINT", "TO"},
     TRI_WRITES | TRI_STARTS_RANKS,
     tri_command_export},
    {"inspect",
     "what is in a config, checkpoint, run or token shard, checked",
     "trident inspect CONFIG|CHECKPOINT|RUN|TOKENS [--format F] [--json] [key=value …]\n\n"
     "A config: its parameters. A checkpoint or a run's last good one: every size and hash is\n"
     "checked, tensors and digest are listed. Token shards (a file or a glob): counts and the\n"
     "largest token.\n\n"
     "  --format F   of the shards: llmc (the default), without headers u16 or u32, or megatron\n"
     "  --json       one JSON object: kind, parameters, digest, …; of shards kind, tokens, …\n"
     "  key=value    replaces a value of the config\n",
     OPTIONS({"--format", true}, {"--json", false}, {NULL, false}),
     1,
     {"CONFIG|CHECKPOINT|RUN|TOKENS"},
     TRI_TAKES_OVERRIDES,
     tri_command_inspect},
    {"runs",
     "which runs are in a folder, and how they stand",
     "trident runs DIR… [--by-name] [--json]\n\n"
     "Lists the run folders at and below each DIR: parameters (and those that a token meets),\n"
     "experts, layout (T, E, D: tensor, expert, data ranks), step, last loss, tokens/s, and the\n"
     "state: running on which host, finished, stopped by a signal, failed and why, or died, when\n"
     "nobody works in a run that says it runs on this host (of another host's that is not known\n"
     "where locks are not seen from here). Changes nothing, and disturbs no run.\n\n"
     "  --by-name    in the order of their names; without it the newest first\n"
     "  --json       one JSON object: runs, a list of path, state, step, loss, …\n",
     OPTIONS({"--by-name", false}, {"--json", false}, {NULL, false}),
     TRI_WORDS_ANY,
     {"DIR…"},
     0,
     tri_command_runs},
    {"report",
     "runs as one page: curves, experts, time, bytes, memory, config",
     "trident report RUN… [--out FILE.html] [--json]\n\n"
     "Writes one HTML page, which needs no network, of at most 8 runs: loss, rate, gradient norm\n"
     "and tokens/s of all of them over each other; of each the experts' load by layer and time,\n"
     "where a step's time, bytes and memory went, the ledger, the mesh, config and environment.\n"
     "A million steps are thinned: least, most and mean of each part of a curve.\n\n"
     "  --out FILE.html  where it goes (report.html); what is there is replaced\n"
     "  --json           one JSON object: page, runs\n",
     OPTIONS({"--out", true}, {"--json", false}, {NULL, false}),
     TRI_WORDS_ANY,
     {"RUN…"},
     TRI_WRITES,
     tri_command_report},
    {.name = NULL},
};

const struct tri_command *tri_command_find(const char *name)
{
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        if (strcmp(command->name, name) == 0) {
            return command;
        }
    }
    return NULL;
}

void tri_command_hint(const char *written, char hint[TRI_HINT_BYTES])
{
    struct tri_nearest nearest = {0};
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        tri_nearest_consider(&nearest, written, command->name);
    }
    tri_nearest_consider(&nearest, written, "help");
    tri_nearest_consider(&nearest, written, "--version");
    if (tri_text_is_slip(nearest.distance, written)) {
        (void)snprintf(hint, TRI_HINT_BYTES, "did you mean '%s'?", nearest.name);
    } else {
        (void)snprintf(hint, TRI_HINT_BYTES, "`trident help` lists them");
    }
}

void tri_help_list(FILE *out)
{
    (void)fputs("usage: trident COMMAND …\n\n", out);
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        (void)fprintf(out, "  %-9s  %s\n", command->name, command->summary);
    }
    (void)fputs(
        "  help       this, `help COMMAND`, or `help config [--markdown]`: every key; with --man\n"
        "             each as a manual page; `help --completion bash|zsh|fish`\n\n"
        "`trident help COMMAND` and `trident COMMAND --help` say more; `trident --version`\n"
        "tells the version and the processor's kernels. Exit status: 0; 1, a check says no; 2,\n"
        "wrong input; 3, it failed; 85, saved and stopped by a signal: start the same again.\n",
        out);
}

bool tri_help_asked(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static const char help_usage[] = "trident help [COMMAND|config] [--man], "
                                 "trident help config --markdown, "
                                 "trident help --completion bash|zsh|fish";

static enum tri_status refuse_word(const char *word, struct tri_error *error)
{
    return tri_fail(error, TRI_BAD_INPUT, "command line: did not expect '%s'; usage: %s", word,
                    help_usage);
}

static enum tri_status print_completion(int argc, char **argv, struct tri_error *error)
{
    if (argc == 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: option '--completion' needs a value; usage: %s", help_usage);
    }
    if (argc > 1) {
        return refuse_word(argv[1], error);
    }
    return tri_completion_print(argv[0], stdout)
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "command line: --completion is '%s', expected bash, zsh or fish",
                          argv[0]);
}

/* Of all keys. */
static void print_keys(const char *form)
{
    if (!form) {
        tri_config_print_help(&tri_strategies, stdout);
    } else if (strcmp(form, "--man") == 0) {
        tri_manual_print_config(stdout);
    } else {
        tri_config_print_markdown(&tri_strategies, stdout);
    }
}

enum tri_status tri_help(int argc, char **argv, struct tri_error *error)
{
    if (argc == 0 || (argc == 1 && tri_help_asked(argv[0]))) {
        tri_help_list(stdout);
        return TRI_OK;
    }
    if (strcmp(argv[0], "--completion") == 0) {
        return print_completion(argc - 1, argv + 1, error);
    }
    if (strcmp(argv[0], "--man") == 0) {
        if (argc > 1) {
            return refuse_word(argv[1], error);
        }
        tri_manual_print_all(stdout);
        return TRI_OK;
    }
    bool config = strcmp(argv[0], "config") == 0;
    const struct tri_command *command = tri_command_find(argv[0]);
    if (!config && !command) {
        char hint[TRI_HINT_BYTES];
        tri_command_hint(argv[0], hint);
        return tri_fail(error, TRI_BAD_INPUT, "no help for '%s': there is no such command; %s",
                        argv[0], hint);
    }
    const char *form = argc > 1 ? argv[1] : NULL;
    bool manual = form && strcmp(form, "--man") == 0;
    if (form && !manual && !(config && strcmp(form, "--markdown") == 0)) {
        return refuse_word(form, error);
    }
    if (argc > 2) {
        return refuse_word(argv[2], error);
    }
    if (config) {
        print_keys(form);
    } else if (manual) {
        tri_manual_print(command, stdout);
    } else {
        (void)fputs(command->help, stdout);
    }
    return TRI_OK;
}
