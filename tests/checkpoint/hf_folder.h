/* Hugging Face folders rewritten: a family's tensors in memory, changed and written to a scratch
 * folder. */
#ifndef TRIDENT_TESTS_HF_FOLDER_H
#define TRIDENT_TESTS_HF_FOLDER_H

#include "checkpoint/safetensors.h"
#include "model/param.h"

/* The scratch folder, and the mesh of one rank that models are read on. */
extern char hf_dir[256];
extern struct tri_mesh *hf_mesh;
void hf_begin(const char *name);
void hf_end(void);

/* One tensor of a file to be. */
struct hf_item {
    struct tri_safetensors_spec spec;
    char name[160];
    void *data;
    size_t bytes;
};

struct hf_items {
    int count;
    struct hf_item item[512];
};

/* The folder of a family of tests/data/golden. */
const char *hf_golden(const char *family);
/* A file of hf_dir. */
void hf_put(const char *name, const void *data, size_t bytes);
/* What the config.json of a folder asks for, and the same filled from its weights. */
struct tri_params *hf_params_of(const char *from);
struct tri_params *hf_import(const char *from);
/* Adds a tensor; its data are the caller's to fill. */
struct hf_item *hf_add(struct hf_items *items, const char *name, enum tri_safetensors_dtype dtype,
                       int dims, const int64_t *shape, size_t bytes);
/* A family's tensors as they are. hf_free them. */
struct hf_items *hf_items_of(const char *family);
/* By name. */
struct hf_item *hf_item(struct hf_items *items, const char *name);
void hf_drop(struct hf_items *items, const char *name);
/* Tensors [first, end) into a file of hf_dir. */
void hf_write(struct hf_items *items, const char *name, int first, int end);
void hf_free(struct hf_items *items);
void hf_copy_config(const char *family);
/* hf_dir holds the model of the family's golden files. */
void hf_expect_same(const char *family);
/* Its weights are refused with these words. */
void hf_refuse(const char *words);

#endif
