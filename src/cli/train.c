#include "cli/command.h"
#include "train/run.h"

enum tri_status tri_command_train(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct tri_config config;
    struct tri_run_options run = {tri_arguments_has(arguments, "--fresh"),
                                  tri_arguments_has(arguments, "--accept-data"),
                                  tri_arguments_has(arguments, "--json")};
    enum tri_status status =
        tri_arguments_config(arguments, !run.fresh, tri_comm_size(arguments->comm), &config, error);
    TRI_TRY(tri_agree_on_config(arguments, status, &config, error));
    return tri_run(arguments->comm, &config, &run, error);
}
