/* Allocation with overflow checks, strings, growing buffers. SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *qins_alloc(size_t n, size_t element_size) {
    return calloc(n > 0 ? n : 1, element_size);
}

void *qins_alloc_aligned(size_t n, size_t element_size) {
    enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 }; /* a cache line and the widest vector register */
    size_t n_bytes;
    if (!qins_mul_size(n, element_size, &n_bytes) || n_bytes > SIZE_MAX - HUGE_PAGE) return NULL;
    n_bytes = qins_round_up(n_bytes > 0 ? n_bytes : 1, ALIGNMENT);
    bool huge = n_bytes >= HUGE_PAGE;
    void *p = huge ? aligned_alloc(HUGE_PAGE, qins_round_up(n_bytes, HUGE_PAGE)) : aligned_alloc(ALIGNMENT, n_bytes);
#ifdef MADV_HUGEPAGE
    /* Fewer misses of the translation cache; where the system has no huge pages, nothing happens. */
    if (p != NULL && huge) (void)madvise(p, n_bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    if (p != NULL) memset(p, 0, n_bytes);
    return p;
}

void qins_free(void *p) {
    free(p);
}

char *qins_strdup(const char *s) {
    return strdup(s);
}

char *qins_format(const char *fmt, ...) {
    char *s = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&s, fmt, args);
    va_end(args);
    return n < 0 ? NULL : s;
}

static bool reserve(qins_buffer *b, size_t n) {
    size_t need;
    if (b->failed || !qins_add_size(b->size, n, &need) || need == SIZE_MAX) {
        b->failed = true;
        return false;
    }
    need++; /* the NUL */
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity > SIZE_MAX / 2 ? need : qins_max_size(need, qins_max_size(64, 2 * b->capacity));
    char *data = realloc(b->data, capacity);
    if (data == NULL) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->capacity = capacity;
    return true;
}

void qins_buffer_add(qins_buffer *b, const void *data, size_t n) {
    if (!reserve(b, n)) return;
    if (n > 0) memcpy(b->data + b->size, data, n);
    b->size += n;
    b->data[b->size] = '\0';
}

void qins_buffer_printf(qins_buffer *b, const char *fmt, ...) {
    va_list args, copy;
    va_start(args, fmt);
    va_copy(copy, args);
    int n = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    if (n < 0) {
        b->failed = true;
    } else if (reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->size, (size_t)n + 1, fmt, args);
        b->size += (size_t)n;
    }
    va_end(args);
}

void qins_buffer_free(qins_buffer *b) {
    free(b->data);
    *b = (qins_buffer){0};
}
