#ifndef TESTS_META_PLANTED_H
#define TESTS_META_PLANTED_H

extern int planted_variable;
int planted_function(void);
int tri_planted_get(void);

#endif
