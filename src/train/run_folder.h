/* A run's folder on disk:
 *
 *   RUN/config.yaml        the resolved config
 *   RUN/status.json        whether it runs, where, or how it ended (train/run_status.h)
 *   RUN/environment.json   version, processor, what carries messages, where ranks run
 *   RUN/plan.json          what a step was planned to take (train/run_plan.h)
 *   RUN/metrics.jsonl      one line a step, and one for each evaluation
 *   RUN/events.out.tfevents.*  the same for TensorBoard (train/events.h), where it is wanted
 *   RUN/ledger.json        what was sent
 *   RUN/tokenizer/         the tokenizer's files, where the shards or init_from have some
 *   RUN/checkpoints/       checkpoint/
 *   RUN/trace-*.json       with trace.steps, a file a start (train/run_trace.h)
 *   RUN/lock               held while a job works in the folder
 *
 * Rank 0 alone touches it, but for checkpoints; callers agree on the outcome. Whatever writes here
 * first makes sure that the path still leads to the folder that was locked: FAILED when it was
 * renamed or replaced. */
#ifndef TRIDENT_TRAIN_RUN_FOLDER_H
#define TRIDENT_TRAIN_RUN_FOLDER_H

#include "base/file.h"
#include "comm/comm.h"
#include "config/config.h"
#include "plan/memory.h"

/* How the names of event files begin (train/events.h). */
#define TRI_EVENTS_STEM "events.out.tfevents."
/* And those of traces. */
#define TRI_TRACE_STEM "trace-"

struct tri_run_folder;

/* Creates and locks the folder, and tries once what saving will ask of its file system. FAILED when
 * another job holds the lock; a system without locks is warned of. fresh: removes what an earlier
 * run left; links stay, what they lead to is emptied. Local to rank 0. */
enum tri_status tri_run_folder_open(const char *path, bool fresh, struct tri_run_folder **folder,
                                    struct tri_error *error) TRI_NODISCARD;
/* Whether this other rank sees the folder that rank 0 has opened, and may write files in it, as
 * each rank does when it saves. BAD_INPUT or FAILED names the rank and its node. Local. */
enum tri_status tri_run_folder_look(const char *path, int rank,
                                    struct tri_error *error) TRI_NODISCARD;
/* All ranks have looked: what they looked at goes. Local to rank 0. */
void tri_run_folder_seen(struct tri_run_folder *folder);
/* Releases the lock. What opening has made of a folder that no run was described in goes again. */
void tri_run_folder_close(struct tri_run_folder *folder);

/* Writes config.yaml and environment.json: the run begins. */
enum tri_status tri_run_folder_describe(struct tri_run_folder *folder,
                                        const struct tri_config *config, const char *environment,
                                        struct tri_error *error) TRI_NODISCARD;

/* A small file of that name, whole or as it was. */
enum tri_status tri_run_folder_save(const struct tri_run_folder *folder, const char *name,
                                    const char *text, struct tri_error *error) TRI_NODISCARD;

/* Adds to the end of a file, which begins with that. */
enum tri_status tri_run_folder_append(const struct tri_run_folder *folder, const char *name,
                                      const void *data, size_t bytes,
                                      struct tri_error *error) TRI_NODISCARD;
/* A file of that name, whole or as it was, that is written bit by bit: create it, then close it
 * with what writing has given. */
enum tri_status tri_run_folder_create_file(const struct tri_run_folder *folder, const char *name,
                                           struct tri_writer **writer,
                                           struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_run_folder_close_file(const struct tri_run_folder *folder,
                                          struct tri_writer *writer, enum tri_status written,
                                          struct tri_error *error) TRI_NODISCARD;
/* Borrowed. */
const char *tri_run_folder_path(const struct tri_run_folder *folder);

/* Drops the lines of metrics.jsonl past `step`, and what is torn: of a line behind such a rest the
 * good end stays; a warning says how many lines lost something, but for a torn last one. */
enum tri_status tri_run_folder_trim_metrics(const struct tri_run_folder *folder, int64_t step,
                                            struct tri_error *error) TRI_NODISCARD;
/* Whether metrics.jsonl has the line of this step and not that of its evaluation. */
bool tri_run_folder_lacks_evaluation(const struct tri_run_folder *folder, int64_t step);
enum tri_status tri_run_folder_add_metrics(const struct tri_run_folder *folder, const char *line,
                                           struct tri_error *error) TRI_NODISCARD;

/* ledger.json: the cells that are not empty, of so many steps; total: those of all ranks together;
 * and by category the bytes that were planned, and held at most, on this rank. */
enum tri_status tri_run_folder_save_ledger(const struct tri_run_folder *folder,
                                           const struct tri_ledger *ledger,
                                           const struct tri_ledger *total, int64_t steps,
                                           const struct tri_memory_plan *plan,
                                           struct tri_error *error) TRI_NODISCARD;

#endif
