/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
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

/* "epoch 2/5: loss 0.01234, accuracy 98.70 %, 40.0 % kept, 12 s left" */
static void print_training(const OnnxPressProgress *p)
{
    fprintf(stderr, "epoch %d/%d: loss %.5f", p->epoch, p->epochs, p->loss);
    if (isfinite(p->accuracy))
        fprintf(stderr, ", accuracy %.2f %%", 100 * p->accuracy);
    if (p->kept < 1)
        fprintf(stderr, ", %.1f %% kept", 100 * p->kept);
    fprintf(stderr, ", %.0f s left", p->seconds_left);
}

static int draw(void *context, const OnnxPressProgress *p)
{
    (void)context;
    double time = now(), share = p->share;
    if (!progress.stage || strcmp(progress.stage, p->stage) != 0) {
        progress.stage = p->stage;
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
    fprintf(stderr, "\r%-11s [%s] %3.0f %%  ", p->stage, bar, 100 * share);
    if (p->epoch)
        print_training(p);
    else if (share > 0.02 && spent > 0.5)
        fprintf(stderr, "%.0f s left", spent * (1 - share) / share);
    fprintf(stderr, "\033[K");
    fflush(stderr);
    progress.visible = true;
    return 0;
}

/* Off a terminal: a line an epoch, so that a log shows how a long training goes. */
static int note(void *context, const OnnxPressProgress *p)
{
    (void)context;
    if (!p->epoch || p->step % (p->steps / p->epochs) != 0)
        return 0;
    fprintf(stderr, "onnxpress: %s: ", p->stage);
    print_training(p);
    fprintf(stderr, "\n");
    return 0;
}

void progress_install(CommandLine *line)
{
    if (!line->quiet)
        line->options.progress = isatty(STDERR_FILENO) ? draw : note;
}

void progress_clear(void)
{
    if (progress.visible)
        fprintf(stderr, "\r\033[K");
    progress.visible = false;
}
