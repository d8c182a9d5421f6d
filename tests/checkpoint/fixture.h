/* Small models for the checkpoint tests. */
#ifndef TRIDENT_TESTS_CHECKPOINT_FIXTURE_H
#define TRIDENT_TESTS_CHECKPOINT_FIXTURE_H

#include "checkpoint/checkpoint.h"
#include "config/config.h"
#include "model/param.h"

/* Three layers, the middle one of four experts with a shared one; q and k norms, biases on q, k, v;
 * two KV heads for four; a vocabulary that two and four do not divide. */
struct tri_config fixture_config(enum tri_precision precision);
/* Parameters with weights from seed 7; with_optimizer: masters, and moments from m and v
 * patterns that depend on name and index alone. */
struct tri_params *fixture_params(const struct tri_config *config, const struct tri_mesh *mesh,
                                  bool with_optimizer);
/* The state the tests save; config is static text, bias a static array. */
struct tri_checkpoint_state fixture_state(int64_t step);
/* The weights and moments of params equal those of another, gathered on this rank alone. */
void fixture_expect_equal(const struct tri_params *a, const struct tri_params *b,
                          bool with_optimizer);
int64_t fixture_elements(const struct tri_param *param);

/* A rank's own scratch folder under TEST_TMP, empty. */
void fixture_dir(const char *name, char dir[256]);
void fixture_remove(const char *dir);

#endif
