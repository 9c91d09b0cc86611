/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/goal.h"

#include <math.h>

/* Default goal: answers that nobody can tell apart in use, and a distance that is small beside the
 * model's own doubt. The floor keeps a model that is always sure of itself from asking for the
 * impossible. Nats. */
#define DEFAULT_KL 0.005
#define DEFAULT_ENTROPY_SHARE 0.1
#define DEFAULT_KL_FLOOR 1e-5
/* Standard errors above the mean: one side, 95 %. */
#define CONFIDENCE 1.645
/* For plain values: share of the output's variance; less where scores are among them, which few of
 * the elements decide on and thresholds read. */
#define DEFAULT_ERROR 0.01
#define DEFAULT_SCORED_ERROR 0.0001

double goal_limit(const Session *session, const Answers *answers, int output)
{
    const OnnxPressOptions *options = session->options;
    OutputKind kind = session->kind[output];
    if (kind == OUTPUT_VALUES && options->goal == ONNXPRESS_GOAL_MAX_ERROR)
        return options->goal_value;
    if (kind == OUTPUT_VALUES)
        return program_output(session->program, output)->scored ? DEFAULT_SCORED_ERROR
                                                                : DEFAULT_ERROR;
    if (options->goal == ONNXPRESS_GOAL_MAX_KL)
        return options->goal_value;
    double entropy = answers_entropy(answers, output, kind);
    return fmin(DEFAULT_KL, fmax(DEFAULT_ENTROPY_SHARE * entropy, DEFAULT_KL_FLOOR));
}

bool goal_is_size(OnnxPressGoal goal)
{
    return goal == ONNXPRESS_GOAL_RATIO || goal == ONNXPRESS_GOAL_BITS;
}

const char *goal_text(Session *session, const Answers *answers)
{
    const OnnxPressOptions *options = session->options;
    Arena *arena = session->arena;
    const char *text = "a cautious step, nothing measured";
    switch (options->goal) {
    case ONNXPRESS_GOAL_RATIO:
        return arena_printf(arena, "ratio >= %g", options->goal_value);
    case ONNXPRESS_GOAL_BITS:
        return arena_printf(arena, "bits a weight <= %g", options->goal_value);
    case ONNXPRESS_GOAL_STEP:
        return arena_printf(arena, "step or centres = %g", options->goal_value);
    case ONNXPRESS_GOAL_MAX_DROP:
        return arena_printf(arena, "top-1 drop <= %g points", options->goal_value);
    default:
        break;
    }
    for (int o = 0; answers && o < program_outputs(session->program); o++) {
        bool values = session->kind[o] == OUTPUT_VALUES;
        text = arena_printf(arena, values ? "%s%serror <= %g" : "%s%sKL <= %.4g", o ? text : "",
                            o ? ", " : "", goal_limit(session, answers, o));
        if (!text)
            return "";
    }
    return text;
}

/* The upper end of what a mean may be, given how few samples were seen and the sum of their squares:
 * a goal just met on some hundred samples would be missed on others half of the time. */
static double upper_mean(double mean, double squares, int64_t samples)
{
    double n = (double)samples;
    if (samples < 2)
        return mean;
    return mean + CONFIDENCE * sqrt(fmax(0, squares / n - mean * mean) / (n - 1));
}

double goal_excess(const Session *session, const Answers *answers, const Distance *distance,
                   const Score score[2])
{
    const OnnxPressOptions *options = session->options;
    if (options->goal == ONNXPRESS_GOAL_MAX_DROP)
        return 100.0 * (double)(score[0].correct - score[1].correct) /
               (options->goal_value * (double)score[0].samples);
    double most = 0;
    for (int o = 0; o < program_outputs(session->program); o++) {
        const Distance *d = &distance[o];
        double excess = 0;
        if (session->kind[o] != OUTPUT_VALUES && d->rows)
            excess = upper_mean(d->kl / (double)d->rows, d->kl2, d->samples) /
                     goal_limit(session, answers, o);
        else if (session->kind[o] == OUTPUT_VALUES && d->squared > 0)
            excess = upper_mean(d->squared / (double)d->elements, d->squared2, d->samples) /
                     (goal_limit(session, answers, o) * session->variance[o]);
        /* What is no number is no answer either. */
        most = excess >= 0 ? fmax(most, excess) : INFINITY;
    }
    return most;
}
