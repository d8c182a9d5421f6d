/* The rules of the source tree, as functions of a root folder, so that they can be run on the real
 * tree and on planted ones that break them. A rule appends one line to findings for each breach. */
#ifndef TESTS_META_RULES_H
#define TESTS_META_RULES_H

struct findings {
    int count;
    char text[16384]; /* lines that no longer fit are counted, not kept */
};

/* src/X may include headers of src/X, of lower folders and of include/ only; kernel and comm never
 * each other; and the CMakeLists.txt of src/X may name only lower folders' libraries, oneDNN's only
 * that of kernel. */
void rules_check_includes(const char *root, struct findings *findings);
void rules_check_links(const char *root, struct findings *findings);
/* mpi.h only in src/comm, oneDNN's headers and names only in src/kernel/x86/onednn.c. */
void rules_check_foreign_headers(const char *root, struct findings *findings);
/* Every folder of src/ is known to the order above and has a README.md that says something. */
void rules_check_folders(const char *root, struct findings *findings);
/* No .c or .h file of ours is longer than lines. */
void rules_check_lengths(const char *root, int lines, struct findings *findings);
/* No line of a source, script or CMake file of ours has more columns, counted in code points. */
void rules_check_columns(const char *root, int columns, struct findings *findings);
/* A struct tri_… of src/ is defined once; a function tri_… that a header of src/ declares is used
 * in src/. `allowed` (ended by NULL, or NULL): functions that may wait for their users. */
void rules_check_names(const char *root, const char *const *allowed, struct findings *findings);
/* No strategy of src/moe/strategies.h is named in src/ outside of src/moe: what others ask of one
 * is a field. */
void rules_check_strategies(const char *root, struct findings *findings);
/* Where weights and gradients lie in the buffers is asked by those who work on the buffers; whoever
 * computes with the model opens rows (model/param_open.h). */
void rules_check_weights(const char *root, struct findings *findings);
/* Links in the Markdown files of the root and of docs/ lead to files and headings that exist, no
 * such file is longer than lines, and docs/README.md leads to every other one of docs/. */
void rules_check_docs(const char *root, int lines, struct findings *findings);
/* Each error, warning and note of src/ is explained in the page: a pattern of it is in the first
 * cell of a table whose head is "| message |", with "…" for what varies and "[…]" for words left
 * out. Each such pattern is of some message, and of few. Returns how many messages there are. */
int rules_check_messages(const char *root, const char *page, struct findings *findings);
/* Every symbol that a library exports begins with tri_ or, what include/ declares, with trident_;
 * main may be there too. nm is the program's
 * path. Names that begin with two underscores are the compiler's own. */
void rules_check_symbols(const char *nm, const char *library, struct findings *findings);
/* Every variable of the libraries that outlives its calls and is not constant is in a table of
 * document, with a reason, and the other way round: | `base/signals.c` | `started`, `noted` | why |
 * objdump is the program's path; libraries are called libtrident_FOLDER.a. */
void rules_check_state(const char *objdump, int count, char *const *libraries, const char *document,
                       struct findings *findings);

#endif
