/* tokenizer.json: loading it, then text to ids and back. SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* Letters, digits, spaces, line ends, added tokens, accents apart and together, emoji, and bytes that are not UTF-8. */
static const char text[] =
    "Hello <s> world! 12345  it's\r\n\n\tnaive nai\xcc\x88ve \xc3\xa9 \xf0\x9f\x98\x80\xe4\xbd\xa0 </s>"
    "\xff\xfe \xe2\x96\x81 <|user|> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa   ";

/* Ids one by one, with some that are no token's. */
static void stream(const qins_tokenizer *t, const int32_t *ids, size_t n_ids) {
    qins_detok *s = NULL;
    const char *part;
    size_t n;
    if (qins_detok_of(t, n_ids % 2 == 0, &s, NULL) != QINS_OK) return;
    for (size_t i = 0; i < n_ids; i++) {
        if (qins_detok_push(s, ids[i], &part, &n, NULL) == QINS_OK && part[n] != '\0') abort();
        (void)qins_detok_push(s, (int32_t)(i * 7919 % 1000) - 5, &part, &n, NULL);
    }
    if (qins_detok_finish(s, &part, &n, NULL) == QINS_OK && part[n] != '\0') abort();
    qins_detok_free(s);
}

static void use(const qins_tokenizer *t) {
    int32_t *ids = NULL;
    char *back = NULL;
    size_t n_ids = 0, n_bytes = 0;
    if (qins_tokenizer_encode(t, text, sizeof text - 1, true, true, &ids, &n_ids, NULL) == QINS_OK) {
        for (size_t i = 0; i < n_ids; i++) { /* also ids that other code would use as indices */
            if (ids[i] < 0 || (size_t)ids[i] >= qins_tokenizer_size(t)) abort();
            (void)qins_tokenizer_is_special(t, ids[i]);
        }
        if (qins_tokenizer_decode(t, ids, n_ids, false, &back, &n_bytes, NULL) == QINS_OK) free(back);
        stream(t, ids, n_ids);
        free(ids);
    }
    static const int32_t odd[] = {-1, 0, 299, 300, INT32_MAX};
    back = NULL;
    if (qins_tokenizer_decode(t, odd, sizeof odd / sizeof odd[0], true, &back, &n_bytes, NULL) == QINS_OK) free(back);
    (void)qins_tokenizer_id(t, "<s>");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *json = json_loadb((const char *)data, size, 0, NULL);
    qins_tokenizer *t = NULL;
    qins_error err = {0};
    qins_status status = json != NULL ? qins_tokenizer_new(json, "input", &t, &err) : QINS_ERR_FORMAT;
    json_decref(json);
    if (status != QINS_OK) return -1;
    use(t);
    qins_tokenizer_free(t);
    return 0;
}
