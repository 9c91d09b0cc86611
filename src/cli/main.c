/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "tensor/file.h"

static const Command *const commands[] = {&command_compress, &command_restore,  &command_inspect,
                                          &command_hessian,  &command_evaluate, &command_verify,
                                          &command_finetune};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void usage(FILE *stream)
{
    fprintf(stream,
            "onnxpress %s: makes an ONNX model small while it answers as before\n\n"
            "usage: onnxpress COMMAND [options]\n\n",
            onnxpress_version());
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stream, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(stream, "\nonnxpress COMMAND --help shows a command's options and an example.\n");
}

int fail(const OnnxPressError *error)
{
    progress_clear();
    fprintf(stderr, "onnxpress: %s\n", error->message);
    return (int)error->code;
}

/* An interrupted run leaves no temporary file. */
static void on_signal(int signal_number)
{
    file_remove_temporaries();
    static const char text[] = "\nonnxpress: interrupted; nothing was written\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(128 + signal_number);
    _exit(128 + signal_number);
}

int main(int argc, const char **argv)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
    /* A file-size limit shows as a write error, which is reported like a full disk. */
    action.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &action, NULL);

    if (argc < 2) {
        usage(stderr);
        return ONNXPRESS_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return ONNXPRESS_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("onnxpress %s\n", onnxpress_version());
        return ONNXPRESS_OK;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i]->name) != 0)
            continue;
        CommandLine line;
        bool done = false;
        int rc = command_line_parse(commands[i], argc - 1, argv + 1, &line, &done);
        if (!done)
            rc = commands[i]->run(&line);
        progress_clear();
        command_line_free(&line);
        return rc;
    }
    fprintf(stderr, "onnxpress: %s: no such command; onnxpress --help lists them\n", argv[1]);
    return ONNXPRESS_USAGE;
}
