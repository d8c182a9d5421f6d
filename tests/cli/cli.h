/* What the tests of the program share: a scratch folder with a small config, tokens, a trained run
 * and a Hugging Face model; runs of trident on so many ranks; what must be true of its errors. */
#ifndef TRIDENT_TESTS_CLI_H
#define TRIDENT_TESTS_CLI_H

#include "support/process.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { CLI_PATH = 512, CLI_WORDS = 32 };

/* Words of a command line, or changes "NAME=value" of the environment. */
#define CLI_WORDS_OF(...)                                                                          \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

/* Makes TEST_TMP/NAME.PID the working folder and puts in it c.yaml, the text t.txt and its shards
 * tok/. argv is that of a test: "--ranks N" (see cli_ranks), then mpiexec's flags, or "--threads N"
 * for ranks that are threads of the program. */
void cli_begin(const char *name, int argc, char **argv);
/* How long mpiexec lets the other ranks be when one has failed. At first 0: where the ranks have
 * agreed on a failure they have all said what they say when the first of them ends. Whoever looks
 * at ranks that fail alone sets what users have, "1". MPICH's knows nothing of it. */
void cli_set_grace(const char *seconds);
/* Removes the scratch folder. */
void cli_end(void);
/* What the test was started with; 0, without mpiexec, by default. */
int cli_ranks(void);
/* Whether those are threads: what takes no --ranks of its own then runs alone. */
bool cli_over_threads(void);

/* Starts trident with these words on so many ranks; 0: on one, without mpiexec. The program that
 * users get has no hook to make files fail. A change of a variable whose name ends in _FAULT, for
 * one "TRIDENT_FILE_FAULT=write:ENOSPC:model-" (support/file_fault.c), starts its twin that has. */
void cli_start(struct process *process, int ranks, const char *const *changes,
               const char *const *words);
/* Runs trident through a program that is given its command line; NULL: no longer. */
void cli_set_wrapper(const char *program);
/* Runs `first` on rank 0 and `rest`, another command line, on the others; both begin with the
 * program. */
struct process_result cli_run_apart(int ranks, const char *const *first, const char *const *rest);
/* Runs it to its end, at most 60 seconds. */
struct process_result cli_run(int ranks, const char *const *words);
struct process_result cli_run_with(int ranks, const char *const *changes, const char *const *words);
/* Runs it; it must exit with 0. */
void cli_run_well(int ranks, const char *const *words);
/* Any other command; it must exit with 0. */
void cli_tool(const char *const *words);

/* One error line, which says `text`; nothing of a crash; this exit status; at an end of its own.
 * Frees the result. */
void cli_expect_error(struct process_result *result, int ranks, int status, const char *text);
/* The exit status, then frees the result. */
void cli_expect_status(struct process_result *result, int status);
/* How often text holds what. */
int cli_count(const char *text, const char *what);

/* A whole file with a NUL behind it; NULL when there is none. */
char *cli_read(const char *path, size_t *bytes);
void cli_write(const char *path, const char *text);
/* A file for `eval --choices`: one question of two completions, whose context has so many tokens,
 * at most 200. */
void cli_write_question(const char *path, int context);
/* The one JSON object that is all of the standard output. Frees the result, whose status must be
 * `status`. */
json_t *cli_expect_json(struct process_result *result, int status);
/* `inspect --json` of a run or checkpoint: its digest. */
void cli_digest(const char *path, char digest[32]);

/* The lines of RUN/metrics.jsonl as an array of objects without the members that tell of time; the
 * file must hold whole lines only. */
json_t *cli_metrics(const char *run);
/* The step lines alone must be those of 1, 2, …, steps. */
void cli_expect_each_step(const json_t *metrics, int64_t steps);

/* Names and hashes of all files below a folder. */
struct cli_snapshot;
struct cli_snapshot *cli_snapshot_take(const char *folder);
/* All are there as they were; when `continues`, files of a run that goes on may differ:
 * metrics.jsonl by lines at its end, config.yaml and environment.json at all. Frees the
 * snapshot. */
void cli_snapshot_expect_kept(struct cli_snapshot *snapshot, bool continues);

#endif
