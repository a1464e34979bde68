/* Openings for greedy generation: ten of stories, ten of facts. SPDX-License-Identifier: MIT */
#include "measure/fidelity.h"

const char *const qins_default_prompts[] = {
    "Once upon a time there was a poor woodcutter who lived",
    "There was once a king who had three daughters, and",
    "In the middle of the great forest stood an old house where",
    "The youngest brother set out into the wide world and",
    "One winter evening, when the snow lay deep,",
    "The little girl opened the door and saw",
    "An old woman sat by the fire and said to the boy,",
    "When the sun went down behind the mountain, the fox",
    "A fisherman and his wife lived together by the sea, and every day",
    "The wolf came out of the forest and asked",
    "Water is made of two parts of hydrogen and",
    "The capital of France is",
    "The first day of the week is",
    "In the spring the farmer ploughs his field, and",
    "The moon goes round the earth in",
    "Bread is made from flour, water and",
    "The river begins in the mountains and flows",
    "To build a good house, one must first",
    "The horse is an animal that",
    "There are seven days in a week and twelve",
};

const size_t qins_n_default_prompts = sizeof qins_default_prompts / sizeof *qins_default_prompts;
