/* What a fuzz target defines. SPDX-License-Identifier: MIT
 *
 * A target is one file fuzz_NAME.c with LLVMFuzzerTestOneInput, so that libFuzzer runs it too (option QINS_LIBFUZZER);
 * mutate.c runs it on random mutations of a seed file. CMakeLists.txt lists the targets and their seeds.
 */
#ifndef QINS_FUZZ_H
#define QINS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* 0 when the input was accepted, -1 when it was refused. Everything else is a crash. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Optional: a target may make its seed itself. argument is what CMakeLists.txt gives in place of a file; the result is
 * malloc'ed, NULL on failure. */
__attribute__((weak)) uint8_t *fuzz_make_seed(const char *argument, size_t *size);

#endif
