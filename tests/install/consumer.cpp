// A C++ program, in a project without C, that uses an installed Trident.
#include <trident/trident.h>

#include <cstdint>
#include <cstdio>
#include <vector>

int main()
{
    trident_error error;
    trident_runtime *runtime = nullptr;
    trident_model *model = nullptr;
    trident_options options{};
    options.threads = 1;
    const char *config = "model: {vocab_size: 32, num_layers: 1, hidden_size: 8, num_heads: 2}";
    std::vector<std::int32_t> tokens{1, 2, 3};
    std::vector<float> logits(3 * 32);
    trident_status status = trident_runtime_create(&options, &runtime, &error);
    if (status == TRIDENT_OK) {
        status = trident_model_create(runtime, config, &model, &error);
    }
    if (status == TRIDENT_OK) {
        status = trident_model_forward(model, tokens.data(), 1, 3, logits.data(), &error);
    }
    if (status != TRIDENT_OK) {
        std::printf("%s\n", error.message);
    }
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
    return status;
}
