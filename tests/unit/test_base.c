/* Errors, memory, files, atomic output directories. SPDX-License-Identifier: MIT */
#include "testing.h"

#include "base/base.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* AddressSanitizer ends the program at an allocation that cannot succeed unless asked not to. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

/* ---- a temporary folder for each test ---- */

static int make_folder(void **state) {
    const char *base = getenv("TMPDIR");
    char *path = qins_format("%s/qins-test-XXXXXX", base != NULL ? base : "/tmp");
    *state = path;
    return path == NULL || mkdtemp(path) == NULL;
}

static void remove_tree(const char *path) {
    DIR *d = opendir(path);
    if (d == NULL) {
        unlink(path);
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *child = qins_format("%s/%s", path, entry->d_name);
        struct stat st;
        if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode))
            remove_tree(child);
        else
            unlink(child);
        free(child);
    }
    closedir(d);
    rmdir(path);
}

static int remove_folder(void **state) {
    remove_tree(*state);
    free(*state);
    return 0;
}

/* folder/name; freed by the caller. */
static char *in(void *const *state, const char *name) {
    char *path = qins_format("%s/%s", (const char *)*state, name);
    assert_non_null(path);
    return path;
}

static size_t count_entries(const char *path) {
    DIR *d = opendir(path);
    assert_non_null(d);
    size_t n = 0;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2; /* . and .. */
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void assert_holds(const char *dir, const char *name, const char *expected) {
    char *path = qins_format("%s/%s", dir, name), *text = NULL;
    qins_error err = {0};
    if (qins_read_file(path, 1000, &text, NULL, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_string_equal(text, expected);
    free(text);
    free(path);
}

/* An output directory with one file, not committed. */
static qins_outdir *begin(const char *target, bool force, const char *text) {
    qins_outdir *dir = NULL;
    qins_error err = {0};
    if (qins_outdir_begin(target, force, &dir, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_int_equal(qins_outdir_write(dir, "file", text, strlen(text), &err), QINS_OK);
    return dir;
}

/* ---- output directories ---- */

static void target_appears_only_when_committed(void **state) {
    char *target = in(state, "model");
    qins_outdir *dir = begin(target, false, "hello");
    assert_false(qins_path_exists(target));
    assert_holds(qins_outdir_temp(dir), "file", "hello");
    assert_int_equal(qins_outdir_commit(dir, NULL), QINS_OK);
    assert_holds(target, "file", "hello");
    assert_int_equal(count_entries(*state), 1); /* nothing temporary is left */
    free(target);
}

static void abort_leaves_nothing(void **state) {
    char *target = in(state, "model");
    qins_outdir_abort(begin(target, false, "hello"));
    assert_int_equal(count_entries(*state), 0);
    qins_outdir_abort(NULL);
    free(target);
}

static void trailing_slashes_name_the_same_target(void **state) {
    char *target = in(state, "model///"), *plain = in(state, "model");
    assert_int_equal(qins_outdir_commit(begin(target, false, "hello"), NULL), QINS_OK);
    assert_holds(plain, "file", "hello");
    free(target);
    free(plain);
}

static void existing_target_is_refused_and_kept(void **state) {
    char *target = in(state, "model");
    assert_int_equal(qins_outdir_commit(begin(target, false, "old"), NULL), QINS_OK);
    qins_outdir *dir = NULL;
    qins_error err = {0};
    assert_int_equal(qins_outdir_begin(target, false, &dir, &err), QINS_ERR_EXISTS);
    assert_null(dir);
    assert_contains(err.message, target);
    assert_contains(err.message, "--force");
    assert_holds(target, "file", "old");
    assert_int_equal(count_entries(*state), 1);
    free(target);
}

static void target_that_appears_meanwhile_is_refused_and_kept(void **state) {
    char *target = in(state, "model");
    qins_outdir *slow = begin(target, false, "slow");
    assert_int_equal(qins_outdir_commit(begin(target, false, "fast"), NULL), QINS_OK);
    assert_int_equal(qins_outdir_commit(slow, NULL), QINS_ERR_EXISTS);
    assert_holds(target, "file", "fast");
    assert_int_equal(count_entries(*state), 1);
    free(target);
}

static void force_keeps_the_old_target_until_commit_and_then_replaces_it(void **state) {
    char *target = in(state, "model"), *old_file = in(state, "model/only_in_old");
    assert_int_equal(qins_outdir_commit(begin(target, false, "old"), NULL), QINS_OK);
    write_file(old_file, "old");
    qins_outdir_abort(begin(target, true, "abandoned"));
    assert_holds(target, "file", "old");
    qins_outdir *dir = begin(target, true, "new");
    assert_holds(target, "file", "old");
    assert_int_equal(qins_outdir_commit(dir, NULL), QINS_OK);
    assert_holds(target, "file", "new");
    assert_false(qins_path_exists(old_file));
    assert_int_equal(count_entries(*state), 1);
    free(target);
    free(old_file);
}

static void check_force_refused(const char *target) {
    qins_outdir *dir = NULL;
    qins_error err = {0};
    assert_int_equal(qins_outdir_begin(target, true, &dir, &err), QINS_ERR_EXISTS);
    assert_contains(err.message, "only plain files");
}

static void force_refuses_a_target_with_subfolders(void **state) {
    char *target = in(state, "home"), *folder = in(state, "home/documents"), *file = in(state, "home/documents/novel");
    assert_int_equal(mkdir(target, 0700), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    write_file(file, "precious");
    check_force_refused(target);
    assert_holds(folder, "novel", "precious");
    free(target);
    free(folder);
    free(file);
}

static void force_refuses_a_plain_file_and_a_symbolic_link(void **state) {
    char *file = in(state, "file"), *link = in(state, "link"), *real = in(state, "real"), *inside = in(state, "real/x");
    write_file(file, "precious");
    assert_int_equal(mkdir(real, 0700), 0);
    write_file(inside, "precious");
    assert_int_equal(symlink(real, link), 0);
    check_force_refused(file);
    check_force_refused(link);
    assert_holds(*state, "file", "precious");
    assert_holds(real, "x", "precious");
    free(file);
    free(link);
    free(real);
    free(inside);
}

static void leftovers_of_dead_writers_are_removed_and_those_of_live_ones_kept(void **state) {
    char *target = in(state, "model"), *dead = in(state, ".model.qins-tmp-dead01"),
         *dead_file = in(state, ".model.qins-tmp-dead01/weights"), *other = in(state, ".other.qins-tmp-dead01");
    assert_int_equal(mkdir(dead, 0700), 0);
    write_file(dead_file, "half");
    assert_int_equal(mkdir(other, 0700), 0);
    qins_outdir *live = begin(target, false, "live"), *second = begin(target, false, "second");
    assert_false(qins_path_exists(dead));
    assert_true(qins_path_exists(other)); /* of another target */
    assert_holds(qins_outdir_temp(live), "file", "live");
    assert_string_not_equal(qins_outdir_temp(live), qins_outdir_temp(second));
    qins_outdir_abort(live);
    qins_outdir_abort(second);
    free(target);
    free(dead);
    free(dead_file);
    free(other);
}

static void targets_without_a_name_or_a_parent_are_refused(void **state) {
    static const char *const names[] = {"", "/", ".", "..", "a/..", "./"};
    qins_outdir *dir = NULL;
    qins_error err = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(qins_outdir_begin(names[i], false, &dir, &err), QINS_ERR_ARGUMENT);
    char *target = in(state, "missing/model");
    assert_int_equal(qins_outdir_begin(target, false, &dir, &err), QINS_ERR_IO);
    assert_contains(err.message, "missing");
    free(target);
}

/* ---- writer ---- */

static void a_full_disk_is_reported_with_the_path(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    qins_writer w;
    qins_error err = {0};
    assert_int_equal(qins_writer_open(&w, "/dev", "full", &err), QINS_OK);
    qins_writer_put(&w, "small", 5); /* still in the buffer */
    assert_int_equal(qins_writer_close(&w, &err), QINS_ERR_IO);
    assert_contains(err.message, "/dev/full: cannot write: No space left");
}

static void the_first_write_error_sticks(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    qins_writer w;
    qins_error err = {0};
    assert_int_equal(qins_writer_open(&w, "/dev", "full", &err), QINS_OK);
    char *block = calloc(4, 1 << 20);
    assert_non_null(block);
    qins_writer_put(&w, block, 4 << 20);
    assert_int_not_equal(w.error, 0);
    qins_writer_put(&w, block, 1);
    qins_writer_put_at(&w, 0, block, 1);
    assert_int_equal(qins_writer_close(&w, &err), QINS_ERR_IO);
    assert_int_equal(qins_writer_close(&w, &err), QINS_OK); /* closed already */
    free(block);
}

static void put_at_overwrites_and_returns_to_the_end(void **state) {
    qins_writer w;
    qins_error err = {0};
    assert_int_equal(qins_writer_open(&w, *state, "file", &err), QINS_OK);
    qins_writer_put(&w, "????body", 8);
    qins_writer_put_at(&w, 0, "head", 4);
    qins_writer_put(&w, "tail", 4);
    assert_true(w.offset == 12);
    assert_int_equal(qins_writer_close(&w, &err), QINS_OK);
    assert_holds(*state, "file", "headbodytail");
    assert_int_equal(qins_writer_open(&w, "/nonexistent", "file", &err), QINS_ERR_IO);
    assert_contains(err.message, "/nonexistent/file: cannot create");
}

/* ---- reading ---- */

static void files_above_the_cap_are_refused(void **state) {
    char *path = in(state, "file"), *text = NULL;
    size_t size = 0;
    qins_error err = {0};
    write_file(path, "12345");
    assert_int_equal(qins_read_file(path, 4, &text, &size, &err), QINS_ERR_FORMAT);
    assert_contains(err.message, "has 5 bytes, more than the 4 allowed");
    assert_int_equal(qins_read_file(path, 5, &text, &size, &err), QINS_OK);
    assert_int_equal(size, 5);
    assert_string_equal(text, "12345");
    free(text);
    free(path);
}

static void only_regular_files_are_read(void **state) {
    char *missing = in(state, "missing"), *fifo = in(state, "fifo"), *text = NULL;
    qins_map map;
    qins_error err = {0};
    assert_int_equal(qins_read_file(missing, 10, &text, NULL, &err), QINS_ERR_IO);
    assert_contains(err.message, "No such file");
    assert_int_equal(qins_map_open(*state, &map, &err), QINS_ERR_IO);
    assert_contains(err.message, "expected a regular file");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(qins_read_file(fifo, 10, &text, NULL, &err), QINS_ERR_IO); /* and does not hang */
    free(missing);
    free(fifo);
}

static void maps_show_the_file_and_refuse_an_empty_one(void **state) {
    char *path = in(state, "file"), *empty = in(state, "empty");
    qins_map map;
    qins_error err = {0};
    write_file(path, "mapped");
    write_file(empty, "");
    assert_int_equal(qins_map_open(path, &map, &err), QINS_OK);
    assert_int_equal(map.size, 6);
    assert_memory_equal(map.data, "mapped", 6);
    qins_map_close(&map);
    assert_null(map.data);
    assert_int_equal(qins_map_open(empty, &map, &err), QINS_ERR_FORMAT);
    qins_map_close(&map); /* harmless after a failure */
    free(path);
    free(empty);
}

/* ---- memory and errors ---- */

static void buffers_grow_and_stay_terminated(void **state) {
    (void)state;
    qins_buffer b = {0};
    qins_buffer_add(&b, NULL, 0);
    assert_string_equal(b.data, "");
    for (int i = 0; i < 5000; i++) {
        qins_buffer_printf(&b, "%04d", i);
        assert_int_equal(b.data[b.size], '\0');
    }
    qins_buffer_add(&b, "end", 3);
    assert_int_equal(b.size, 4 * 5000 + 3);
    assert_memory_equal(b.data + 4 * 4321, "4321", 4);
    assert_string_equal(b.data + 4 * 5000, "end");
    assert_false(b.failed);
    qins_buffer_free(&b);
    assert_null(b.data);
}

static void a_failed_buffer_says_so_and_keeps_what_it_has(void **state) {
    (void)state;
    qins_buffer b = {0};
    qins_buffer_add(&b, "kept", 4);
    qins_buffer_add(&b, "x", SIZE_MAX - 2);
    assert_true(b.failed);
    qins_buffer_add(&b, "more", 4);
    assert_string_equal(b.data, "kept");
    qins_buffer_free(&b);
}

static void allocations_that_overflow_fail(void **state) {
    (void)state;
    volatile size_t huge = SIZE_MAX; /* hides the constant from the compiler's own check */
    assert_null(qins_alloc(huge / 2, 4));
    assert_null(qins_alloc_aligned(huge / 2, 4));
    assert_null(qins_alloc_aligned(huge, 1));
    char *p = qins_alloc_aligned(3, 100);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(p[i], 0);
    free(p);
    p = qins_alloc(0, 8); /* empty arrays are not out of memory */
    assert_non_null(p);
    free(p);
}

static void prefixes_are_put_in_front_of_the_message(void **state) {
    (void)state;
    qins_error err = {0};
    assert_int_equal(qins_fail(&err, QINS_ERR_FORMAT, "bad %s", "magic"), QINS_ERR_FORMAT);
    assert_int_equal(qins_prefix(&err, QINS_ERR_IO, "file %d", 7), QINS_ERR_FORMAT); /* keeps the first code */
    assert_string_equal(err.message, "file 7: bad magic");
    assert_int_equal(err.code, QINS_ERR_FORMAT);
    assert_int_equal(qins_fail(NULL, QINS_ERR_IO, "x"), QINS_ERR_IO);
    assert_int_equal(qins_prefix(NULL, QINS_ERR_IO, "x"), QINS_ERR_IO);
}

static void long_messages_are_cut_not_overrun(void **state) {
    (void)state;
    qins_error err = {0};
    char *name = calloc(1, 5001);
    assert_non_null(name);
    memset(name, 'n', 5000);
    qins_fail(&err, QINS_ERR_IO, "%s", name);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    qins_prefix(&err, QINS_ERR_IO, "in front");
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_memory_equal(err.message, "in front: nnn", 13);
    free(name);
}

static void every_status_has_a_name(void **state) {
    (void)state;
    for (int status = QINS_OK; status >= QINS_ERR_EXISTS; status--)
        assert_string_not_equal(qins_status_name((qins_status)status), "unknown status");
    assert_string_equal(qins_status_name((qins_status)-99), "unknown status");
}

#define test_in_folder(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

static void lists_of_nodes_become_bits(void **state) {
    (void)state;
    unsigned long mask[2];
    assert_int_equal(qins_parse_nodes("0\n", mask, 2), 1);
    assert_true(mask[0] == 1 && mask[1] == 0);
    assert_int_equal(qins_parse_nodes("0-2,5,64-65\n", mask, 2), 6);
    assert_true(mask[0] == 0x27 && mask[1] == 3);
    assert_int_equal(qins_parse_nodes("1-4000", mask, 1), 63); /* those that have a bit */
    assert_int_equal(qins_parse_nodes("", mask, 2), 0);
    assert_true(mask[0] == 0);
}

static void memory_is_spread_over_the_nodes_there_are(void **state) {
    (void)state;
    assert_true(qins_spread_memory() >= 1);
    unsigned char *p = qins_alloc_aligned(5, 1 << 20);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (size_t i = 0; i < 5u << 20; i += 4096)
        assert_int_equal(p[i], 0);
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        test_in_folder(target_appears_only_when_committed),
        test_in_folder(abort_leaves_nothing),
        test_in_folder(trailing_slashes_name_the_same_target),
        test_in_folder(existing_target_is_refused_and_kept),
        test_in_folder(target_that_appears_meanwhile_is_refused_and_kept),
        test_in_folder(force_keeps_the_old_target_until_commit_and_then_replaces_it),
        test_in_folder(force_refuses_a_target_with_subfolders),
        test_in_folder(force_refuses_a_plain_file_and_a_symbolic_link),
        test_in_folder(leftovers_of_dead_writers_are_removed_and_those_of_live_ones_kept),
        test_in_folder(targets_without_a_name_or_a_parent_are_refused),
        cmocka_unit_test(a_full_disk_is_reported_with_the_path),
        cmocka_unit_test(the_first_write_error_sticks),
        test_in_folder(put_at_overwrites_and_returns_to_the_end),
        test_in_folder(files_above_the_cap_are_refused),
        test_in_folder(only_regular_files_are_read),
        test_in_folder(maps_show_the_file_and_refuse_an_empty_one),
        cmocka_unit_test(buffers_grow_and_stay_terminated),
        cmocka_unit_test(a_failed_buffer_says_so_and_keeps_what_it_has),
        cmocka_unit_test(allocations_that_overflow_fail),
        cmocka_unit_test(prefixes_are_put_in_front_of_the_message),
        cmocka_unit_test(long_messages_are_cut_not_overrun),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(lists_of_nodes_become_bits),
        cmocka_unit_test(memory_is_spread_over_the_nodes_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
