/* The mesh's index maths and the ledger, of a rank alone. */
#include "comm/internal.h"
#include "support/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Writes the members of each distinct group over a set of axes, in order of their first rank:
 * "0,2,4,6 8,10,12,14 …". */
static void groups_text(int tensor, int cross, int depth, int expert, int data, int axes,
                        char *text, size_t size)
{
    size_t used = 0;
    int id = tri_group_id(axes);
    assert_int_equal(tri_groups[id].axes, axes);
    for (int rank = 0; rank < tensor * cross * depth * expert * data; rank++) {
        struct tri_mesh *mesh = tri_mesh_create_view(tensor, cross, depth, expert, data, rank);
        const struct tri_group *group = tri_mesh_group(mesh, axes);
        int members = tri_group_size(group);
        int first = tri_mesh_member(mesh->size, id, rank, 0);
        assert_int_equal(tri_mesh_member(mesh->size, id, rank, tri_group_rank(group)), rank);
        assert_string_equal(tri_group_name(group), tri_groups[id].name);
        for (int i = 0; first == rank && i < members; i++) {
            const char *before = i > 0 ? "," : used > 0 ? " " : "";
            used += (size_t)snprintf(text + used, size - used, "%s%d", before,
                                     tri_mesh_member(mesh->size, id, rank, i));
            assert_true(used < size);
        }
        tri_mesh_destroy(mesh);
    }
}

/* 16 ranks, tensor 2, expert 4: the groups that DeepSpeed's documentation lists for them. */
static void test_ted_groups(void **state)
{
    (void)state;
    static const struct {
        int axes;
        const char *text;
    } expected[] = {
        {TRI_ON_TENSOR, "0,1 2,3 4,5 6,7 8,9 10,11 12,13 14,15"},
        {TRI_ON_EXPERT, "0,2,4,6 1,3,5,7 8,10,12,14 9,11,13,15"},
        {TRI_ON_GRID | TRI_ON_EXPERT, "0,1,2,3,4,5,6,7 8,9,10,11,12,13,14,15"},
        {TRI_ON_DATA, "0,8 1,9 2,10 3,11 4,12 5,13 6,14 7,15"},
        {TRI_ON_EXPERT | TRI_ON_DATA, "0,2,4,6,8,10,12,14 1,3,5,7,9,11,13,15"},
        {TRI_ON_ALL, "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"},
    };
    assert_int_equal(sizeof(expected) / sizeof(*expected), TRI_GROUP_COUNT - 3); /* of grids */
    for (int i = 0; i < TRI_GROUP_COUNT - 3; i++) {
        char text[256] = "";
        groups_text(2, 1, 1, 4, 2, expected[i].axes, text, sizeof(text));
        assert_string_equal(text, expected[i].text);
    }
}

/* 16 ranks, tensor ranks a grid of 2 x 2 x 2, expert 2. */
static void test_grid_groups(void **state)
{
    (void)state;
    static const struct {
        int axes;
        const char *text;
    } expected[] = {
        {TRI_ON_TENSOR, "0,1 2,3 4,5 6,7 8,9 10,11 12,13 14,15"},
        {TRI_ON_CROSS, "0,2 1,3 4,6 5,7 8,10 9,11 12,14 13,15"},
        {TRI_ON_DEPTH, "0,4 1,5 2,6 3,7 8,12 9,13 10,14 11,15"},
        {TRI_ON_GRID, "0,1,2,3,4,5,6,7 8,9,10,11,12,13,14,15"},
        {TRI_ON_EXPERT, "0,8 1,9 2,10 3,11 4,12 5,13 6,14 7,15"},
        {TRI_ON_GRID | TRI_ON_EXPERT, "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"},
        {TRI_ON_DATA, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"},
        {TRI_ON_EXPERT | TRI_ON_DATA, "0,8 1,9 2,10 3,11 4,12 5,13 6,14 7,15"},
        {TRI_ON_ALL, "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"},
    };
    assert_int_equal(sizeof(expected) / sizeof(*expected), TRI_GROUP_COUNT);
    for (int i = 0; i < TRI_GROUP_COUNT; i++) {
        char text[256] = "";
        groups_text(2, 2, 2, 2, 1, expected[i].axes, text, sizeof(text));
        assert_string_equal(text, expected[i].text);
    }
}

/* The paper's example: 4 ranks, tensor 2, expert 2. */
static void test_paper_groups(void **state)
{
    (void)state;
    char text[256] = "";
    groups_text(2, 1, 1, 2, 1, TRI_ON_EXPERT, text, sizeof(text));
    assert_string_equal(text, "0,2 1,3");
    groups_text(2, 1, 1, 2, 1, TRI_ON_EXPERT | TRI_ON_DATA, text, sizeof(text));
    assert_string_equal(text, "0,2 1,3");
    groups_text(2, 1, 1, 2, 1, TRI_ON_DATA, text, sizeof(text));
    assert_string_equal(text, "0 1 2 3");
}

static void test_equation(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 1, 1}, {6, 2, 3}, {2, 4, 8}, {8, 16, 1}, {1, 5, 2}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        int t = shapes[s][0];
        int e = shapes[s][1];
        int d = shapes[s][2];
        for (int rank = 0; rank < t * e * d; rank++) {
            struct tri_mesh *mesh = tri_mesh_create_view(t, 1, 1, e, d, rank);
            int coord[TRI_AXIS_COUNT];
            tri_mesh_coords(mesh, rank, coord);
            assert_memory_equal(coord, mesh->coord, sizeof(coord));
            assert_int_equal(rank, coord[TRI_AXIS_TENSOR] +
                                       t * (coord[TRI_AXIS_EXPERT] + e * coord[TRI_AXIS_DATA]));
            assert_int_equal(mesh->rank, rank);
            assert_int_equal(mesh->ranks,
                             t * tri_group_size(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA)));
            assert_int_equal(mesh->ranks,
                             t * e * tri_group_size(tri_mesh_group(mesh, TRI_ON_DATA)));
            assert_int_equal(tri_group_rank(tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT)),
                             coord[TRI_AXIS_TENSOR] + t * coord[TRI_AXIS_EXPERT]);
            assert_int_equal(tri_group_rank(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA)),
                             coord[TRI_AXIS_EXPERT] + e * coord[TRI_AXIS_DATA]);
            tri_mesh_destroy(mesh);
        }
    }
}

/* A serial mesh needs no MPI: collectives do their local work, and book nothing. */
static void test_serial(void **state)
{
    (void)state;
    struct tri_mesh *mesh = tri_mesh_create_serial();
    struct tri_where where = {TRI_PHASE_FORWARD, TRI_KIND_MOE};
    static struct tri_ledger ledger;
    mesh->ledger = &ledger;
    float data[3] = {1, 2, 3};
    int64_t counts[1] = {3};
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL), where, data, 3, TRI_F32);
    tri_all_reduce_max(tri_mesh_group(mesh, TRI_ON_TENSOR), where, data, 3, TRI_F32);
    tri_all_gather_v(tri_mesh_group(mesh, TRI_ON_DATA), where, data, counts, TRI_F32);
    tri_reduce_scatter_v(tri_mesh_group(mesh, TRI_ON_EXPERT), where, data, counts, TRI_F32);
    tri_broadcast(tri_mesh_group(mesh, TRI_ON_ALL), where, data, 3, TRI_F32, 0);
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    tri_request_end(
        tri_all_reduce_sum_begin(tri_mesh_group(mesh, TRI_ON_ALL), where, data, 3, TRI_F32));
    tri_request_end(
        tri_all_gather_v_begin(tri_mesh_group(mesh, TRI_ON_ALL), where, data, counts, TRI_F32));
    tri_request_end(
        tri_reduce_scatter_v_begin(tri_mesh_group(mesh, TRI_ON_ALL), where, data, counts, TRI_F32));
    assert_true(data[0] == 1 && data[1] == 2 && data[2] == 3);
    float recv[3] = {0};
    int64_t rows[1] = {1};
    tri_all_to_all_v(tri_mesh_group(mesh, TRI_ON_EXPERT), where, data, rows, recv, rows, 3,
                     TRI_F32);
    assert_memory_equal(recv, data, sizeof(data));
    memset(recv, 0, sizeof(recv));
    tri_request_end(tri_all_to_all_v_begin(tri_mesh_group(mesh, TRI_ON_EXPERT), where, data, rows,
                                           recv, rows, 3, TRI_F32));
    assert_memory_equal(recv, data, sizeof(data));
    int64_t received[1] = {0};
    tri_all_to_all_counts(tri_mesh_group(mesh, TRI_ON_EXPERT), where, counts, received, 1);
    assert_int_equal(received[0], 3);
    struct tri_error error = {.status = TRI_BAD_INPUT, .message = "mine"};
    assert_int_equal(tri_comm_agree(tri_mesh_group(mesh, TRI_ON_ALL), TRI_BAD_INPUT, &error),
                     TRI_BAD_INPUT);
    assert_string_equal(error.message, "mine");
    assert_int_equal(tri_ledger_sum(&ledger, -1, -1, -1, -1).calls, 0);
    tri_mesh_destroy(mesh);
    tri_mesh_destroy(NULL);
}

static void test_refused(void **state)
{
    (void)state;
    struct tri_mesh *mesh = NULL;
    struct tri_error error;
    assert_int_equal(tri_mesh_create(job(), 2, 1, 1, 1, &mesh, &error), TRI_BAD_INPUT);
    assert_string_equal(error.message, "parallel.tensor x parallel.expert = 2 x 1 does not divide "
                                       "the 1 rank of this job");
    assert_int_equal(tri_mesh_create(job(), 0, 1, 1, 1, &mesh, &error), TRI_BAD_INPUT);
    assert_int_equal(tri_mesh_create(job(), 65536, 1, 1, 65536, &mesh, &error), TRI_BAD_INPUT);
    assert_null(mesh);
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    assert_int_equal(mesh->ranks, 1);
    tri_mesh_destroy(mesh);
}

static void test_ledger(void **state)
{
    (void)state;
    static struct tri_ledger ledger;
    memset(&ledger, 0, sizeof(ledger));
    tri_ledger_book(&ledger, TRI_OP_ALL_REDUCE, tri_group_id(TRI_ON_TENSOR), TRI_PHASE_FORWARD,
                    TRI_KIND_MLP, 10, 0.5, 0.25);
    tri_ledger_book(&ledger, TRI_OP_ALL_REDUCE, tri_group_id(TRI_ON_TENSOR), TRI_PHASE_BACKWARD,
                    TRI_KIND_MLP, 20, 1, 1);
    tri_ledger_book(&ledger, TRI_OP_ALL_TO_ALL, tri_group_id(TRI_ON_EXPERT), TRI_PHASE_FORWARD,
                    TRI_KIND_MOE, 40, 2, 0);
    struct tri_ledger_cell all = tri_ledger_sum(&ledger, -1, -1, -1, -1);
    assert_int_equal(all.calls, 3);
    assert_int_equal(all.bytes, 70);
    assert_true(all.seconds == 3.5 && all.seconds_exposed == 1.25);
    assert_int_equal(tri_ledger_sum(&ledger, TRI_OP_ALL_REDUCE, -1, -1, -1).bytes, 30);
    assert_int_equal(tri_ledger_sum(&ledger, -1, tri_group_id(TRI_ON_EXPERT), -1, -1).bytes, 40);
    assert_int_equal(tri_ledger_sum(&ledger, -1, -1, TRI_PHASE_FORWARD, -1).bytes, 50);
    assert_int_equal(tri_ledger_sum(&ledger, -1, -1, -1, TRI_KIND_MLP).bytes, 30);
    assert_int_equal(tri_ledger_sum(&ledger, -1, -1, TRI_PHASE_EVAL, -1).calls, 0);
    assert_string_equal(tri_op_name(TRI_OP_BROADCAST), "broadcast");
    assert_string_equal(tri_phase_name(TRI_PHASE_CHECKPOINT), "checkpoint");
    assert_string_equal(tri_kind_name(TRI_KIND_META), "meta");
}

static void test_library(void **state)
{
    (void)state;
    const char *name = tri_comm_library(job());
    size_t digit = strcspn(name, "0123456789");
    if (strcmp(job_transport(), "threads") == 0) {
        assert_string_equal(name, "threads");
    } else {
        assert_true(strncmp(name, "Open MPI ", digit) == 0 || strncmp(name, "MPICH ", digit) == 0);
        assert_true(name[digit] && name[digit + 1] == '.');
        assert_null(strchr(name, ','));
    }
    assert_int_equal(job_size(), 1);
    assert_int_equal(job_rank(), 0);
    assert_int_equal(tri_comm_local_size(job()), 1);
    assert_int_equal(tri_comm_local_rank(job()), 0);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ted_groups),   cmocka_unit_test(test_grid_groups),
        cmocka_unit_test(test_paper_groups), cmocka_unit_test(test_equation),
        cmocka_unit_test(test_serial),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_ledger),       cmocka_unit_test(test_library),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
