/* report_page.html as a string, made at build time. SPDX-License-Identifier: MIT */
#ifndef QINS_PAGE_TEMPLATE_H
#define QINS_PAGE_TEMPLATE_H

#include <stddef.h>

extern const char qins_page_template[];
extern const size_t qins_page_template_bytes;

#endif
