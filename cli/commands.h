/* The commands of the program, one file each. SPDX-License-Identifier: MIT */
#ifndef QINS_CLI_COMMANDS_H
#define QINS_CLI_COMMANDS_H

/* argv[0..argc) are the arguments after the command's name. Returns an exit status of options.h. */
int command_compress(int argc, char **argv);
int command_audit(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_sweep(int argc, char **argv);
int command_run(int argc, char **argv);
int command_chat(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_logits(int argc, char **argv);
int command_export(int argc, char **argv);
int command_pack(int argc, char **argv);
int command_unpack(int argc, char **argv);

#endif
