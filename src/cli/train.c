#include "cli/command.h"
#include "train/run.h"

enum tri_status tri_command_train(int argc, char **argv, struct tri_error *error)
{
    struct tri_option options[] = {
        {"--fresh", false, NULL}, {"--json", false, NULL}, {NULL, false, NULL}};
    struct tri_arguments arguments;
    struct tri_config config;
    enum tri_status status = tri_arguments_parse(argc, argv, options, true, &arguments, error);
    if (status == TRI_OK) {
        status =
            tri_arguments_words(&arguments, 1, "trident train CONFIG.yaml [key=value …]", error);
        if (status == TRI_OK) {
            status = tri_config_load(arguments.words[0], arguments.num_overrides,
                                     arguments.overrides, &config, error);
        }
        struct tri_run_options run = {tri_arguments_has(&arguments, "--fresh"),
                                      tri_arguments_has(&arguments, "--json")};
        tri_arguments_fini(&arguments);
        TRI_TRY(tri_agree_everywhere(status, error));
        return tri_run(&config, &run, error);
    }
    return tri_agree_everywhere(status, error);
}
