/* qins: the program. A thin user of qins.h. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "output.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments, *summary;
} command;

static const command commands[] = {
    {"compress", command_compress, "MODEL OUT", "write a compressed copy of a model"},
    {"audit", command_audit, "MODEL", "say where every byte of a model goes"},
    {"verify", command_verify, "REF MODEL", "measure what MODEL lost against REF"},
    {"sweep", command_sweep, "REF --out F.html", "chart rate against fidelity for codecs and widths"},
    {"run", command_run, "MODEL -p TEXT", "generate text"},
    {"chat", command_chat, "MODEL", "talk with a model in its own chat format"},
    {"bench", command_bench, "MODEL", "measure speed beside this machine's limits"},
    {"tokenize", command_tokenize, "MODEL TEXT", "token ids of a text"},
    {"logits", command_logits, "MODEL --ids 1,2", "logits of token ids, as a .npy file"},
    {"export", command_export, "MODEL OUT", "decode back to plain safetensors"},
    {"pack", command_pack, "MODEL OUT", "entropy-code a directory: a smaller file, the same values"},
    {"unpack", command_unpack, "MODEL OUT", "the way back"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static int print_main_help(void) {
    printf("qins %s - run language models from compressed weights\n\n"
           "Usage: qins COMMAND [arguments] [options]\n\n",
           qins_version());
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-9s %-17s %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    printf("\nMODEL is a Hugging Face directory (config.json, *.safetensors, tokenizer.json),\n"
           "a directory that 'qins compress' wrote, or a .gguf file.\n\n"
           "Every command takes --json, --threads N and --help. Try:\n"
           "  qins compress MyModel MyModel-4bit\n"
           "  qins run MyModel-4bit -p \"Once upon a time\"\n\n"
           "Exit status: 0 done, 1 failed, 2 wrong arguments. 'qins --version' prints the version.\n");
    return EXIT_DONE;
}

static int print_version(void) {
    printf("qins %s (kernels: %s)\n", qins_version(), qins_cpu_level());
    return EXIT_DONE;
}

static const command *find_command(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static int unknown_command(const char *name) {
    static const char *const own_options[] = {"--help", "--version", NULL};
    const char *names[N_COMMANDS + 1] = {NULL};
    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    bool is_option = name[0] == '-';
    const char *kind = is_option ? "option" : "command";
    const char *meant = nearest_name(name, is_option ? own_options : names);
    if (meant != NULL) return usage_error("unknown %s '%s' - did you mean '%s'?", kind, name, meant);
    return usage_error("unknown %s '%s' (see 'qins --help')", kind, name);
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        print_main_help();
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) return print_main_help();
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) return print_version();
    if (strcmp(name, "help") == 0) {
        if (argc < 3) return print_main_help();
        const command *asked = find_command(argv[2]);
        char *help[] = {(char[]){"--help"}, NULL};
        return asked != NULL ? asked->run(1, help) : unknown_command(argv[2]);
    }
    const command *c = find_command(name);
    return c != NULL ? c->run(argc - 2, argv + 2) : unknown_command(name);
}

/* A misspelt level would go unnoticed: the library takes the best one then. */
static void warn_of_unknown_cpu_level(void) {
    const char *wanted = getenv("QINS_CPU");
    if (wanted != NULL && strcmp(wanted, qins_cpu_level()) != 0)
        fprintf(stderr, "qins: QINS_CPU: this machine has no kernels '%s'; running '%s'\n", wanted, qins_cpu_level());
}

/* OpenMP threads that wait for each other spin for milliseconds by default. On a machine that does something else too,
 * the spinner takes the time slice of the thread it waits for. Spinning for some ten microseconds first is close to the
 * best of both. (The loops of a forward pass do not use OpenMP: base/parallel.c.) The OpenMP library reads its settings
 * before main, so the program starts itself again with them. */
static void wait_shortly_then_sleep(char **argv) {
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL) return;
    if (setenv("OMP_WAIT_POLICY", "passive", 1) != 0 || setenv("GOMP_SPINCOUNT", "5000", 1) != 0) return;
    execv("/proc/self/exe", argv); /* where this fails, threads spin */
}

/* By default glibc takes blocks of megabytes from the heap after the first has been freed. The buffers of a tensor are
 * such blocks: small ones that outlive them break up the heap, which then grows with the number of tensors (to 500 MiB
 * for Phi-3.5-mini, docs/phi-3.5.md). With a fixed threshold large blocks are mapped and go back when they are freed.
 */
static void keep_heap_small(void) {
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

int main(int argc, char **argv) {
    keep_heap_small();
    wait_shortly_then_sleep(argv);
    /* A reader that went away shows up as a failed write, which finish_output reports. */
    signal(SIGPIPE, SIG_IGN);
    /* The same for a file that may not grow any more (ulimit -f). */
    signal(SIGXFSZ, SIG_IGN);
    warn_of_unknown_cpu_level();
    qins_spread_memory();
    return finish_output(dispatch(argc, argv));
}
