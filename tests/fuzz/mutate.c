/* Runs a fuzz target on random mutations of a seed file, in this process. SPDX-License-Identifier: MIT
 *
 *     mutate_NAME SEED N [FIRST]     mutations FIRST .. FIRST+N-1 (default 0 ..)
 *
 * QINS_FUZZ_RUNS overrides N. Mutation i depends only on the seed file and i; when a target crashes, i is printed and
 * the input is written to crash-i. Meant to be built with the sanitizers, but finds plain crashes without.
 */
#include "fuzz.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_SECONDS = 60, MAX_GROWTH = 4096 };

/* ---- random numbers (splitmix64) ---- */

typedef struct rng {
    uint64_t state;
} rng;

static uint64_t next(rng *r) {
    uint64_t x = r->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static size_t below(rng *r, size_t n) {
    return n > 0 ? (size_t)(next(r) % n) : 0;
}

/* ---- mutations ---- */

typedef struct input {
    uint8_t *data;
    size_t size, capacity;
} input;

/* A position: half of the time near the front, where headers are. */
static size_t place(const input *in, rng *r) {
    enum { FRONT = 512 };
    return below(r, next(r) % 2 == 0 && in->size > FRONT ? FRONT : in->size);
}

static void flip_bits(input *in, rng *r) {
    for (size_t n = 1 + below(r, 8); n > 0 && in->size > 0; n--)
        in->data[place(in, r)] ^= (uint8_t)(1u << below(r, 8));
}

static void set_byte(input *in, rng *r) {
    static const uint8_t special[] = {0, 1, 0x7f, 0x80, 0xff, 0x20, 0x22, 0x5c};
    if (in->size == 0) return;
    size_t k = below(r, 2 * sizeof special);
    in->data[place(in, r)] = k < sizeof special ? special[k] : (uint8_t)next(r);
}

static void truncate_input(input *in, rng *r) {
    in->size = below(r, in->size + 1);
}

static void extend(input *in, rng *r) {
    size_t n = 1 + below(r, 64);
    bool zeros = next(r) % 2 == 0;
    for (; n > 0 && in->size < in->capacity; n--)
        in->data[in->size++] = zeros ? 0 : (uint8_t)next(r);
}

static void copy_block(input *in, rng *r) {
    if (in->size == 0) return;
    size_t to = place(in, r), from = place(in, r);
    size_t room = in->size - (to > from ? to : from);
    memmove(in->data + to, in->data + from, below(r, room < 256 ? room + 1 : 256));
}

static void delete_block(input *in, rng *r) {
    if (in->size == 0) return;
    size_t at = place(in, r), n = below(r, in->size - at < 64 ? in->size - at + 1 : 64);
    memmove(in->data + at, in->data + at + n, in->size - at - n);
    in->size -= n;
}

static void insert_block(input *in, rng *r) {
    if (in->size == 0) return;
    size_t at = place(in, r), from = place(in, r), n = below(r, 64);
    if (n > in->size - from) n = in->size - from;
    if (n > in->capacity - in->size) return;
    uint8_t block[64];
    memcpy(block, in->data + from, n);
    memmove(in->data + at + n, in->data + at, in->size - at);
    memcpy(in->data + at, block, n);
    in->size += n;
}

/* A little-endian integer of 2, 4 or 8 bytes. */
static void set_integer(input *in, rng *r) {
    static const uint64_t extreme[] = {0,
                                       1,
                                       2,
                                       3,
                                       0x7f,
                                       0xff,
                                       0x7fff,
                                       0xffff,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       0x100000000,
                                       0x3fffffffffffffff,
                                       0x7fffffffffffffff,
                                       0x8000000000000000,
                                       0xffffffffffffffff,
                                       0xfffffffffffffff8};
    size_t n = (size_t)2 << below(r, 3);
    if (in->size < n) return;
    size_t at = place(in, r);
    if (at > in->size - n) at = in->size - n;
    uint64_t value = next(r) % 4 == 0 ? below(r, 2 * in->size) : extreme[below(r, sizeof extreme / sizeof *extreme)];
    for (size_t i = 0; i < n; i++)
        in->data[at + i] = (uint8_t)(value >> (8 * i));
}

/* Digits of a number in text: other digits, all nines, all zeros, a sign or a dot. */
static void change_number(input *in, rng *r) {
    size_t at = place(in, r);
    while (at < in->size && (in->data[at] < '0' || in->data[at] > '9'))
        at++;
    size_t kind = below(r, 5);
    for (; at < in->size && in->data[at] >= '0' && in->data[at] <= '9'; at++) {
        in->data[at] = (uint8_t)(kind == 0 ? '9' : kind == 1 ? '0' : '0' + below(r, 10));
        if (kind >= 3) {
            in->data[at] = (uint8_t)(kind == 3 ? '-' : '.');
            break;
        }
    }
}

static bool is_letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void change_letter(input *in, rng *r) {
    size_t at = place(in, r);
    while (at < in->size && !is_letter(in->data[at]))
        at++;
    if (at < in->size) in->data[at] = (uint8_t)((next(r) % 2 == 0 ? 'a' : 'A') + below(r, 26));
}

/* A quoted string from `at` on: [*begin, *end) with its quotes; false when there is none. */
static bool find_string(const input *in, size_t at, size_t *begin, size_t *end) {
    while (at < in->size && in->data[at] != '"')
        at++;
    *begin = at++;
    while (at < in->size && in->data[at] != '"')
        at++;
    *end = at + 1;
    return at < in->size;
}

/* Puts one quoted string in the place of another, so that text files stay well-formed more often. */
static void copy_string(input *in, rng *r) {
    size_t from, from_end, to, to_end;
    uint8_t text[256];
    if (!find_string(in, place(in, r), &from, &from_end) || !find_string(in, below(r, in->size), &to, &to_end)) return;
    size_t n = from_end - from, old = to_end - to;
    if (n > sizeof text || in->size - old + n > in->capacity) return;
    memcpy(text, in->data + from, n);
    memmove(in->data + to + n, in->data + to_end, in->size - to_end);
    memcpy(in->data + to, text, n);
    in->size = in->size - old + n;
}

static void set_punctuation(input *in, rng *r) {
    static const char marks[] = "{}[]\",:\\tfn0-.eE ";
    if (in->size > 0) in->data[place(in, r)] = (uint8_t)marks[below(r, sizeof marks - 1)];
}

static void (*const mutations[])(input *, rng *) = {flip_bits,     set_byte,        truncate_input, extend,
                                                    copy_block,    delete_block,    insert_block,   set_integer,
                                                    change_number, set_punctuation, set_integer,    change_number,
                                                    change_letter, copy_string,     copy_string};

/* Mutation i of the seed, in a block of exactly its size so that a sanitizer sees every read past the end. */
static uint8_t *mutate(const uint8_t *seed, size_t seed_size, uint64_t i, uint8_t *scratch, size_t *size) {
    rng r = {i * 0x2545f4914f6cdd1du + 1};
    input in = {scratch, seed_size, seed_size + MAX_GROWTH};
    memcpy(scratch, seed, seed_size);
    size_t n = 1;
    while (n < 6 && next(&r) % 2 == 0)
        n++;
    for (; n > 0; n--)
        mutations[below(&r, sizeof mutations / sizeof *mutations)](&in, &r);
    uint8_t *exact = malloc(in.size > 0 ? in.size : 1);
    if (exact != NULL) memcpy(exact, scratch, in.size);
    *size = in.size;
    return exact;
}

/* ---- reporting ---- */

static struct {
    uint64_t i;
    const uint8_t *data;
    size_t size;
} current;

static void report_crash(void) {
    char path[64];
    snprintf(path, sizeof path, "crash-%llu", (unsigned long long)current.i);
    fprintf(stderr, "crash, hang or leak in mutation %llu; input in %s\n", (unsigned long long)current.i, path);
    FILE *f = fopen(path, "wb");
    if (f != NULL) {
        fwrite(current.data, 1, current.size, f);
        fclose(f);
    }
}

static void on_signal(int signal_number) {
    report_crash();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* There when the sanitizers are. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

static void install_handlers(void) {
    signal(SIGALRM, on_signal);
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(report_crash);
    } else {
        signal(SIGSEGV, on_signal);
        signal(SIGBUS, on_signal);
        signal(SIGABRT, on_signal);
        signal(SIGFPE, on_signal);
    }
}

static uint8_t *read_seed(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return NULL;
    }
    uint8_t *data = NULL;
    if (fseek(f, 0, SEEK_END) == 0 && ftell(f) > 0) {
        *size = (size_t)ftell(f);
        rewind(f);
        data = malloc(*size);
        if (data != NULL && fread(data, 1, *size, f) != *size) {
            free(data);
            data = NULL;
        }
    }
    fclose(f);
    return data;
}

static int run(const uint8_t *seed, size_t seed_size, uint64_t first, uint64_t n) {
    if (LLVMFuzzerTestOneInput(seed, seed_size) != 0) {
        fprintf(stderr, "the seed itself is refused, so mutations of it would test little\n");
        return 1;
    }
    uint8_t *scratch = malloc(seed_size + MAX_GROWTH);
    if (scratch == NULL) return 1;
    unsigned long long accepted = 0;
    for (uint64_t i = first; i < first + n; i++) {
        size_t size;
        uint8_t *data = mutate(seed, seed_size, i, scratch, &size);
        if (data == NULL) break;
        current.i = i;
        current.data = data;
        current.size = size;
        alarm(MAX_SECONDS);
        accepted += LLVMFuzzerTestOneInput(data, size) == 0;
        free(data);
    }
    alarm(0);
    free(scratch);
    printf("%llu mutations, %llu accepted, the rest refused\n", (unsigned long long)n, accepted);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s SEED N [FIRST]\n", argv[0]);
        return 2;
    }
    const char *runs = getenv("QINS_FUZZ_RUNS");
    uint64_t n = strtoull(runs != NULL ? runs : argv[2], NULL, 10);
    uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    size_t size = 0;
    uint8_t *seed = fuzz_make_seed != NULL ? fuzz_make_seed(argv[1], &size) : read_seed(argv[1], &size);
    if (seed == NULL) return 1;
    install_handlers();
    int status = run(seed, size, first, n);
    free(seed);
    return status;
}
