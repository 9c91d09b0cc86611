/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

#define BAR_WIDTH 24
#define REDRAW_SECONDS 0.1

/* The terminal is one, so is its state. */
static struct {
    const char *stage;
    double stage_started, drawn;
    bool visible;
} progress;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int draw(void *context, const char *stage, double share)
{
    (void)context;
    double time = now();
    if (!progress.stage || strcmp(progress.stage, stage) != 0) {
        progress.stage = stage;
        progress.stage_started = time;
        progress.drawn = 0;
    }
    if (time - progress.drawn < REDRAW_SECONDS && share < 1)
        return 0;
    progress.drawn = time;
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    char bar[BAR_WIDTH + 1];
    int filled = (int)(share * BAR_WIDTH);
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '.', (size_t)(BAR_WIDTH - filled));
    bar[BAR_WIDTH] = 0;
    double spent = time - progress.stage_started;
    fprintf(stderr, "\r%-11s [%s] %3.0f %%", stage, bar, 100 * share);
    if (share > 0.02 && spent > 0.5)
        fprintf(stderr, "  %.0f s left", spent * (1 - share) / share);
    fprintf(stderr, "\033[K");
    fflush(stderr);
    progress.visible = true;
    return 0;
}

void progress_install(CommandLine *line)
{
    if (!line->quiet && isatty(STDERR_FILENO))
        line->options.progress = draw;
}

void progress_clear(void)
{
    if (progress.visible)
        fprintf(stderr, "\r\033[K");
    progress.visible = false;
}
