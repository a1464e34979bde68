/* Openings for greedy generation: four of each of eight kinds. SPDX-License-Identifier: MIT */
#include "measure/fidelity.h"

const qins_default_prompt qins_default_prompts[] = {
    {"facts", "The capital of France is"},
    {"facts", "Water is made of two parts of hydrogen and"},
    {"facts", "The moon goes round the earth in"},
    {"facts", "There are seven days in a week and twelve"},
    {"story", "Once upon a time there was a poor woodcutter who lived"},
    {"story", "The youngest brother set out into the wide world and"},
    {"story", "One winter evening, when the snow lay deep,"},
    {"story", "When the sun went down behind the mountain, the fox"},
    {"code", "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n"},
    {"code", "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; i++) {\n"},
    {"code", "SELECT name, COUNT(*) FROM orders JOIN customers ON"},
    {"code", "<html>\n  <head>\n    <title>A list of birds</title>\n  </head>\n  <body>\n"},
    {"list", "Things to take on a long walk:\n1. water\n2. bread\n3."},
    {"list", "The planets from the sun outwards:\n- Mercury\n- Venus\n-"},
    {"list", "Shopping list: flour, eggs, milk,"},
    {"list", "Monday: soup\nTuesday: fish\nWednesday:"},
    {"dialogue", "\"Who are you?\" asked the old woman.\n\"I am the miller's son,\" he said, \"and"},
    {"dialogue", "User: How do I boil an egg?\nAssistant:"},
    {"dialogue", "Doctor: What brings you here today?\nPatient: I have had a cough for two weeks.\nDoctor:"},
    {"dialogue", "Q: Why is the sky blue?\nA:"},
    {"languages", "Es war einmal ein König, der hatte eine Tochter, die"},
    {"languages", "Il était une fois une petite fille qui habitait"},
    {"languages", "Había una vez un pescador muy pobre que vivía"},
    {"languages", "昔々あるところに、おじいさんと"},
    {"arithmetic", "2 + 2 = 4\n3 + 5 = 8\n7 + 6 ="},
    {"arithmetic", "1, 2, 4, 8, 16, 32,"},
    {"arithmetic", "A farmer has twelve sheep. He sells five and buys three. Now he has"},
    {"arithmetic", "10 x 10 = 100\n12 x 10 = 120\n15 x 10 ="},
    {"instruction", "Write a letter to the mayor of a small town. Ask for a new bridge over the river, give three "
                    "reasons, stay polite, and do not use more than one hundred words.\n\nDear Mayor,"},
    {"instruction", "Below is a recipe for bread. Rewrite it so that a child of eight years can follow it: use short "
                    "sentences, explain every tool, and warn where something is hot.\n\nRecipe: Mix flour, water, salt "
                    "and yeast. Knead for ten minutes, let it rise, and bake it at 220 degrees.\n\nFor children:"},
    {"instruction",
     "Summarise the following text in two sentences.\n\nThe lighthouse stood on the rock for two hundred "
     "years. Every evening its keeper climbed the stairs and lit the lamp, and every morning he put it out. "
     "When the harbour was closed, nobody came any more, but the lamp burned on.\n\nSummary:"},
    {"instruction", "You are a careful gardener. Explain step by step how to plant an apple tree, from choosing the "
                    "place to the first winter, and say why each step matters.\n\nStep 1:"},
};

const size_t qins_n_default_prompts = sizeof qins_default_prompts / sizeof *qins_default_prompts;
