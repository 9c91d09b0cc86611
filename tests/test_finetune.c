/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "suite.h"

#include <cblas.h>
#include <math.h>

#include "finetune_samples.h"
#include "tensor/npy.h"
#include "tiny_model.h"

static Lenet lenet;

static FinetuneOptions quick(void)
{
    FinetuneOptions options = finetune_defaults();
    options.batch = 24;
    options.lanes = 3;
    options.rate = 1e-3;
    options.threads = 2;
    return options;
}

static Finetuned tune(const FinetuneOptions *options)
{
    Finetuned tuned;
    expect_ok(finetune_run(&lenet.task, options, lenet.arena, &tuned, &err));
    return tuned;
}

static bool same(const Finetuned *a, const Finetuned *b)
{
    bool equal = true;
    for (int w = 0; w < lenet.n_weights; w++) {
        size_t bytes = (size_t)program_weight(lenet.program, w)->count * sizeof(real);
        equal &= memcmp(a->weight[w], b->weight[w], bytes) == 0;
    }
    return equal;
}

/* Weights that differ from where they started. */
static int64_t moved(const Finetuned *tuned, int w)
{
    const Weight *weight = program_weight(lenet.program, w);
    const real *from = lenet.task.start ? lenet.task.start[w] : weight->data;
    int64_t n = 0;
    for (int64_t i = 0; i < weight->count; i++)
        n += tuned->weight[w][i] != from[i];
    return n;
}

START_TEST(sgd_steps_as_by_hand)
{
    FinetuneOptions o = finetune_defaults();
    o.optimizer = FINETUNE_SGD;
    OptimizerStep step = optimizer_step(&o, 0.1, 1);
    real w[2] = {1, 2}, m[2] = {0.2f, 0}, g[2] = {0.5f, 4};
    /* m = 0.9 * 0.2 + 0.5 + 0.1 * 1 = 0.78; the other is masked. */
    const uint8_t mask[2] = {1, 0};
    optimizer_update(&step, 0.1f, g, mask, 2, w, m, NULL);
    ck_assert_float_eq_tol(m[0], 0.78f, 1e-6f);
    ck_assert_float_eq_tol(w[0], 0.922f, 1e-6f);
    ck_assert(w[1] == 0 && m[1] == 0);
}
END_TEST

START_TEST(adam_steps_as_by_hand)
{
    FinetuneOptions o = finetune_defaults();
    real w = 1, m = 0, v = 0, g = 0.5f;
    OptimizerStep step = optimizer_step(&o, 0.1, 1);
    optimizer_update(&step, 0.01f, &g, NULL, 1, &w, &m, &v);
    ck_assert_float_eq_tol(w, 1 - 0.1f * (1 + 0.01f), 1e-6f);
    ck_assert_float_eq_tol(v, 0.00025f, 1e-8f);
    /* m = -0.055, v = 0.00124975; unbiased -0.2894737 and 0.6251876: the way is -0.3661036. */
    g = -1;
    float before = w;
    step = optimizer_step(&o, 0.1, 2);
    optimizer_update(&step, 0, &g, NULL, 1, &w, &m, &v);
    ck_assert_float_eq_tol(w - before, 0.03661036f, 1e-6f);
}
END_TEST

START_TEST(rates_follow_their_schedule)
{
    FinetuneOptions o = finetune_defaults();
    o.rate = 2;
    o.floor = 0.1;
    ck_assert_double_eq_tol(schedule_rate(&o, 0, 100), 2, 1e-12);
    ck_assert_double_eq_tol(schedule_rate(&o, 50, 100), 1.1, 1e-12);
    ck_assert_double_eq_tol(schedule_rate(&o, 100, 100), 0.2, 1e-12);
    o.schedule = FINETUNE_STEP;
    o.epochs = 10;
    o.step_epochs = 4;
    ck_assert_double_eq_tol(schedule_rate(&o, 39, 100), 2, 1e-12);
    ck_assert_double_eq_tol(schedule_rate(&o, 40, 100), 0.2, 1e-12);
    ck_assert_double_eq_tol(schedule_rate(&o, 80, 100), 0.02, 1e-12);
    o.schedule = FINETUNE_CONSTANT;
    o.warmup = 10;
    ck_assert_double_eq_tol(schedule_rate(&o, 0, 100), 0.2, 1e-12);
    ck_assert_double_eq_tol(schedule_rate(&o, 9, 100), 2, 1e-12);
    ck_assert_double_eq_tol(schedule_rate(&o, 99, 100), 2, 1e-12);
}
END_TEST

START_TEST(shuffles_are_permutations)
{
    int64_t a[50], b[50], again[50], seen[50] = {0};
    for (int64_t i = 0; i < 50; i++)
        a[i] = b[i] = again[i] = i;
    shuffle(a, 50, 1, 0);
    shuffle(b, 50, 1, 1);
    shuffle(again, 50, 1, 0);
    for (int i = 0; i < 50; i++)
        seen[a[i]]++;
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(seen[i], 1);
    ck_assert(memcmp(a, again, sizeof a) == 0);
    ck_assert(memcmp(a, b, sizeof a) != 0);
}
END_TEST

enum { SIDE = 5, IMAGES = 200 };

/* Which (dy, dx, flip) makes `to` of `from`; -1 when none does. */
static int found_move(const real *from, const real *to, int most, int *dy, int *dx)
{
    for (*dy = -most; *dy <= most; ++*dy)
        for (*dx = -most; *dx <= most; ++*dx)
            for (int flip = 0; flip < 2; flip++) {
                bool all = true;
                for (int y = 0; y < SIDE; y++)
                    for (int x = 0; x < SIDE; x++) {
                        int a = y - *dy, b = (flip ? SIDE - 1 - x : x) - *dx;
                        bool in = a >= 0 && a < SIDE && b >= 0 && b < SIDE;
                        all &= to[y * SIDE + x] == (in ? from[a * SIDE + b] : 0);
                    }
                if (all)
                    return flip;
            }
    return -1;
}

START_TEST(images_are_shifted_and_mirrored)
{
    static real from[IMAGES * 2 * SIDE * SIDE], image[IMAGES * 2 * SIDE * SIDE];
    int most = _i == 0 ? 2 : 7, counts[3][3] = {{0}}, flips = 0; /* 7: beyond the image */
    int64_t sample[IMAGES];
    size_t size = sizeof image / sizeof image[0];
    for (size_t i = 0; i < size; i++)
        image[i] = from[i] = (real)(i + 1);
    for (int64_t j = 0; j < IMAGES; j++)
        sample[j] = 3 * j;
    Value value = {.dtype = DTYPE_FLOAT,
                   .shape = {4, {IMAGES, 2, SIDE, SIDE}},
                   .count = (int64_t)size,
                   .r = image};
    augment(&value, sample, IMAGES, most, true, 5, 1);
    for (int p = 0; p < 2 * IMAGES; p++) {
        int dy, dx,
            flip = found_move(from + p * SIDE * SIDE, image + p * SIDE * SIDE, most, &dy, &dx);
        ck_assert_msg(flip >= 0, "plane %d is no move of what it was", p);
        flips += flip;
        counts[dy < 0 ? 0 : dy > 0 ? 2 : 1][dx < 0 ? 0 : dx > 0 ? 2 : 1]++;
    }
    for (int k = 0; k < 9 && _i == 0; k++)
        ck_assert_int_gt(counts[k / 3][k % 3], 0);
    if (_i == 0) {
        ck_assert_int_gt(flips, IMAGES / 2);
        ck_assert_int_lt(flips, 2 * IMAGES - IMAGES / 2);
    }
    /* The same sample moves the same way wherever it stands, and another way in another epoch. */
    real alone[2 * SIDE * SIDE], other[2 * SIDE * SIDE];
    int64_t differ = 0;
    for (int64_t j = 0; j < 20; j++) {
        const real *source = from + j * 2 * SIDE * SIDE;
        Value one = {.dtype = DTYPE_FLOAT,
                     .shape = {4, {1, 2, SIDE, SIDE}},
                     .count = 2 * SIDE * SIDE,
                     .r = alone};
        memcpy(alone, source, sizeof alone);
        augment(&one, sample + j, 1, most, true, 5, 1);
        ck_assert(memcmp(alone, image + j * 2 * SIDE * SIDE, sizeof alone) == 0);
        memcpy(other, source, sizeof other);
        one.r = other;
        augment(&one, sample + j, 1, most, true, 5, 2);
        differ += memcmp(alone, other, sizeof alone) != 0;
    }
    ck_assert_int_gt(differ, 10);
}
END_TEST

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

START_TEST(pruning_keeps_the_largest)
{
    enum { N = 400 };
    static real w[3][N];
    static float h[3][N], sorted[3 * N];
    static uint8_t mask[3][N];
    const int64_t count[3] = {N, N / 2, 1};
    const real *const pw[3] = {w[0], w[1], w[2]};
    const float *const ph[3] = {h[0], h[1], h[2]};
    uint8_t *const pm[3] = {mask[0], mask[1], mask[2]};
    PruneInput input = {.n = 3, .count = count, .w = pw, .h = ph};
    int n = 0, kept = 0, by_damage = _i % 2;
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < count[t]; i++) {
            w[t][i] = (real)lenet_noise(t, i);
            h[t][i] = (float)fabs(lenet_noise(t + 3, i));
            sorted[n++] = by_damage ? (float)((double)h[t][i] * (double)w[t][i] * (double)w[t][i])
                                    : fabsf((float)w[t][i]);
        }
    double keep = (double[]){0.05, 0.5, 0.999, 1, 1e-9}[_i / 2];
    qsort(sorted, (size_t)n, sizeof *sorted, descending);
    expect_ok(prune_masks(&input, by_damage ? PRUNE_DAMAGE : PRUNE_MAGNITUDE, PRUNE_MODEL, keep, pm,
                          &err));
    int should = (int)llround(keep * n);
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < count[t]; i++) {
            float s = by_damage ? (float)((double)h[t][i] * (double)w[t][i] * (double)w[t][i])
                                : fabsf((float)w[t][i]);
            kept += mask[t][i];
            ck_assert_int_eq(mask[t][i], should > 0 && s >= sorted[should - 1]);
        }
    ck_assert_int_eq(kept, should);
    expect_ok(prune_masks(&input, PRUNE_MAGNITUDE, PRUNE_TENSOR, 0.25, pm, &err));
    for (int t = 0; t < 2; t++) {
        kept = 0;
        for (int i = 0; i < count[t]; i++)
            kept += mask[t][i];
        ck_assert_int_eq(kept, (int)(count[t] / 4));
    }
}
END_TEST

START_TEST(pruning_breaks_ties_by_order_and_drops_zeros)
{
    const real w[8] = {1, 0, -1, 1, 0, 0, 2, 1};
    const float h[8] = {0};
    uint8_t mask[8];
    const int64_t count[1] = {8};
    const real *const pw[1] = {w};
    const float *const ph[1] = {h};
    uint8_t *const pm[1] = {mask};
    PruneInput input = {.n = 1, .count = count, .w = pw, .h = ph};
    const uint8_t three[8] = {1, 0, 1, 0, 0, 0, 1, 0}, five[8] = {1, 0, 1, 1, 0, 0, 1, 1};
    expect_ok(prune_masks(&input, PRUNE_MAGNITUDE, PRUNE_MODEL, 0.375, pm, &err));
    ck_assert_mem_eq(mask, three, 8);
    expect_ok(prune_masks(&input, PRUNE_MAGNITUDE, PRUNE_MODEL, 0.75, pm, &err));
    ck_assert_mem_eq(mask, five, 8); /* six may stay, five are not zero */
    /* Of no importance at all: still three, and no zeros among them. */
    const uint8_t first[8] = {1, 0, 1, 1, 0, 0, 0, 0};
    expect_ok(prune_masks(&input, PRUNE_DAMAGE, PRUNE_MODEL, 0.375, pm, &err));
    ck_assert_mem_eq(mask, first, 8);
}
END_TEST

START_TEST(the_cubic_falls_from_one_to_keep)
{
    PruneSchedule s = {.every = 1, .keep = 0.1, .from = 0.2, .to = 0.6};
    ck_assert_double_eq_tol(prune_kept_at(&s, 0), 1, 1e-12);
    ck_assert_double_eq_tol(prune_kept_at(&s, 0.2), 1, 1e-12);
    ck_assert_double_eq_tol(prune_kept_at(&s, 0.4), 0.1 + 0.9 / 8, 1e-12);
    ck_assert_double_eq_tol(prune_kept_at(&s, 0.6), 0.1, 1e-12);
    ck_assert_double_eq_tol(prune_kept_at(&s, 1), 0.1, 1e-12);
    s.from = s.to = 0; /* all at once */
    ck_assert_double_eq_tol(prune_kept_at(&s, 0.01), 0.1, 1e-12);
}
END_TEST

/* Variants: free weights with either optimiser, distillation, shared centres. */
static void vary(int variant, FinetuneOptions *options, LenetShared *shared)
{
    lenet_perturb(&lenet, 0.1);
    options->shift = 1;
    options->optimizer = variant == 1 ? FINETUNE_SGD : FINETUNE_ADAM;
    options->decay = 0.01;
    if (variant == 2)
        lenet.task.label = NULL;
    if (variant == 3) {
        lenet_share(&lenet, shared, 0.05f, NULL, &err);
        shared->shared.train_scales = true;
    }
    if (variant == 4)
        options->prune = (PruneSchedule){.every = 2, .keep = 0.1, .to = 0.8};
}

START_TEST(threads_change_nothing)
{
    LenetShared shared;
    lenet_open(&lenet, 64, &err);
    FinetuneOptions options = quick();
    vary(_i, &options, &shared);
    options.threads = 1;
    Finetuned one = tune(&options);
    ck_assert_int_eq(one.steps, 3);
    for (options.threads = 2; options.threads <= 3; options.threads++) {
        Finetuned more = tune(&options);
        ck_assert(same(&one, &more));
        ck_assert(memcmp(one.loss, more.loss, sizeof *one.loss) == 0);
    }
    options.seed++;
    Finetuned other = tune(&options);
    ck_assert(!same(&one, &other));
    lenet_close(&lenet);
}
END_TEST

static int stop_at(void *context, const FinetuneProgress *progress)
{
    return progress->step == *(const int64_t *)context;
}

START_TEST(resumed_runs_end_in_the_same_bytes)
{
    LenetShared shared;
    lenet_open(&lenet, 64, &err);
    FinetuneOptions options = quick();
    vary(_i / 2, &options, &shared);
    options.epochs = 2;
    Finetuned whole = tune(&options), rest;
    int64_t stop = _i % 2 ? 3 : 2; /* between epochs, and within one */
    options.checkpoint = scratch_path("state");
    options.progress = stop_at;
    options.context = &stop;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &rest, &err),
                 ONNXPRESS_INTERRUPTED, "state");
    ck_assert_ptr_null(rest.weight);
    stop += 2;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &rest, &err),
                 ONNXPRESS_INTERRUPTED, "after step");
    options.progress = NULL;
    options.threads = 1;
    rest = tune(&options);
    ck_assert(same(&whole, &rest));
    ck_assert(memcmp(whole.loss, rest.loss, 2 * sizeof *whole.loss) == 0);
    if (lenet.task.label)
        ck_assert(memcmp(whole.accuracy, rest.accuracy, 2 * sizeof(double)) == 0);
    /* Once more: all is done, the same comes out. */
    rest = tune(&options);
    ck_assert(same(&whole, &rest));
    lenet_close(&lenet);
}
END_TEST

START_TEST(foreign_and_damaged_checkpoints_are_refused)
{
    Finetuned tuned;
    lenet_open(&lenet, 24, &err);
    FinetuneOptions options = quick();
    options.checkpoint = scratch_path("state");
    tune(&options);
    options.rate *= 2;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), ONNXPRESS_USAGE,
                 "other settings");
    options.rate /= 2;
    lenet.label[lenet.sample[5]] ^= 1;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), ONNXPRESS_USAGE,
                 "other settings");
    lenet.label[lenet.sample[5]] ^= 1;
    lenet.model->sha256[0] ^= 1;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), ONNXPRESS_DATA,
                 "another model");
    lenet.model->sha256[0] ^= 1;
    size_t bytes;
    char *file = scratch_read(options.checkpoint, &bytes);
    for (int k = 0; k < 20; k++) {
        size_t at = k < 10 ? 170 + (size_t)k : bytes - 1 - (size_t)k * (bytes / 20);
        file[at] ^= 4;
        scratch_write(options.checkpoint, file, bytes);
        file[at] ^= 4;
        ck_assert_int_ne(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), 0);
        ck_assert_ptr_nonnull(strstr(err.message, "state: is "));
        err = (Error){0};
    }
    const size_t cuts[] = {0, 10, 100, bytes / 2, bytes - 1};
    for (size_t k = 0; k < sizeof cuts / sizeof cuts[0]; k++) {
        scratch_write(options.checkpoint, file, cuts[k]);
        expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err),
                     ONNXPRESS_FORMAT, "state: is ");
    }
    scratch_write(options.checkpoint, file, bytes);
    tune(&options);
    free(file);
    lenet_close(&lenet);
}
END_TEST

START_TEST(masked_weights_stay_exactly_zero)
{
    lenet_open(&lenet, 96, &err);
    FinetuneOptions options = quick();
    const uint8_t **mask = arena_array(lenet.arena, (size_t)lenet.n_weights, sizeof *mask);
    options.optimizer = _i ? FINETUNE_ADAM : FINETUNE_SGD;
    options.rate = _i ? 1e-3 : 0.01;
    options.decay = 0.01;
    for (int w = 0; w < lenet.n_weights; w++) {
        const Weight *weight = program_weight(lenet.program, w);
        uint8_t *own = arena_array(lenet.arena, (size_t)weight->count, 1);
        for (int64_t i = 0; i < weight->count; i++)
            own[i] = lenet_noise(w, i) > 0.2;
        mask[w] = w == 3 ? NULL : own;
    }
    lenet.task.mask = mask;
    Finetuned tuned = tune(&options);
    for (int w = 0; w < lenet.n_weights; w++) {
        int64_t count = program_weight(lenet.program, w)->count;
        for (int64_t i = 0; mask[w] && i < count; i++)
            if (!mask[w][i]) {
                uint32_t bits;
                memcpy(&bits, &tuned.weight[w][i], sizeof bits);
                ck_assert_uint_eq(bits, 0);
            }
        ck_assert_int_gt(moved(&tuned, w), count / 10);
    }
    lenet_close(&lenet);
}
END_TEST

typedef struct {
    double last;
    int falls;
} Kept;

static int follow_kept(void *context, const FinetuneProgress *progress)
{
    Kept *kept = context;
    ck_assert_double_le(progress->kept, kept->last);
    kept->falls += progress->kept < kept->last;
    kept->last = progress->kept;
    return 0;
}

START_TEST(gradual_pruning_reaches_its_fraction)
{
    Kept progress = {.last = 1};
    lenet_open(&lenet, 192, &err);
    FinetuneOptions options = quick();
    options.prune = (PruneSchedule){
        .every = 2, .keep = 0.08, .to = _i ? 1 : 0.5, .scope = _i ? PRUNE_TENSOR : PRUNE_MODEL};
    options.progress = follow_kept;
    options.context = &progress;
    Finetuned tuned = tune(&options);
    int64_t kept = 0, all = 0;
    ck_assert_int_eq(progress.falls, _i ? 4 : 2); /* after steps 2, 4, 6, 8 of 8 */
    ck_assert_double_eq_tol(progress.last, 0.08, 1e-5);
    for (int w = 0; w < lenet.n_weights; w++) {
        const Weight *weight = program_weight(lenet.program, w);
        int64_t here = 0;
        for (int64_t i = 0; i < weight->count; i++)
            here += tuned.weight[w][i] != 0;
        if (weight->shape.rank < 2) {
            ck_assert_int_eq(here, weight->count); /* biases are not pruned */
            continue;
        }
        if (_i)
            ck_assert_int_eq(here, llround(0.08 * (double)weight->count));
        kept += here;
        all += weight->count;
    }
    ck_assert_int_le(llabs(kept - llround(0.08 * (double)all)), 4);
    lenet_close(&lenet);
}
END_TEST

static double lenet_loss(void)
{
    FinetuneOptions options = quick();
    options.batch = lenet.task.n; /* one step: its loss is that of the start */
    return tune(&options).loss[0];
}

START_TEST(training_lowers_the_loss)
{
    lenet_open(&lenet, 500, &err);
    lenet_perturb(&lenet, 1.5);
    FinetuneOptions options = quick();
    options.epochs = 2;
    options.batch = 50;
    if (_i == 1)
        lenet.task.label = NULL;
    if (_i == 2) {
        options.optimizer = FINETUNE_SGD;
        options.rate = 0.01;
    }
    double before = lenet_loss();
    Finetuned tuned = tune(&options);
    lenet.task.start = (const real *const *)tuned.weight;
    double after = lenet_loss();
    ck_assert_double_gt(before, 0.1);
    ck_assert_double_lt(after, before / (_i == 1 ? 2 : 4));
    ck_assert_double_lt(tuned.loss[1], tuned.loss[0]);
    if (_i != 1) {
        ck_assert_double_gt(tuned.accuracy[1], 0.95);
        ck_assert_double_gt(tuned.accuracy[1], tuned.accuracy[0]);
    } else {
        ck_assert(isnan(tuned.accuracy[0]));
        lenet.task.start = NULL; /* the original against itself */
        ck_assert_double_le(fabs(lenet_loss()), 1e-12);
    }
    lenet_close(&lenet);
}
END_TEST

START_TEST(shared_centres_train_and_zero_stays)
{
    LenetShared shared;
    lenet_open(&lenet, 300, &err);
    lenet_share(&lenet, &shared, 0.1f, NULL, &err);
    shared.shared.train_scales = _i == 1;
    FinetuneOptions options = quick();
    options.rate = 0.01;
    options.epochs = 2;
    Finetuned tuned = tune(&options);
    int zero = 0, changed = 0;
    for (int c = 0; c < shared.quantized.levels; c++) {
        bool pinned = shared.quantized.centre[c] == 0;
        zero += pinned;
        ck_assert(!pinned || tuned.centre[c] == 0);
        changed += tuned.centre[c] != shared.quantized.centre[c];
    }
    ck_assert_int_eq(zero, 1);
    ck_assert_int_eq(changed, shared.quantized.levels - 1);
    for (int t = 0; t < 4; t++) {
        ck_assert_int_eq(tuned.scale[t] != shared.quantized.scale[t], _i == 1);
        for (size_t i = shared.offset[t]; i < shared.offset[t + 1]; i++)
            ck_assert(tuned.weight[shared.weight[t]][i - shared.offset[t]] ==
                      tuned.scale[t] * tuned.centre[shared.quantized.symbol[i]]);
    }
    ck_assert_double_lt(tuned.loss[1], tuned.loss[0] / 1.25);
    lenet_close(&lenet);
}
END_TEST

START_TEST(diverging_runs_stop_with_step_and_tensor)
{
    Finetuned tuned;
    lenet_open(&lenet, 96, &err);
    FinetuneOptions options = quick();
    options.optimizer = FINETUNE_SGD;
    options.schedule = FINETUNE_CONSTANT;
    options.rate = 1e12;
    options.checkpoint = scratch_path("state");
    options.checkpoint_steps = 1;
    int status = finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err);
    ck_assert_ptr_nonnull(strstr(err.message, "(epoch 1)"));
    ck_assert_ptr_nonnull(strstr(err.message, "0.weight"));
    ck_assert_ptr_nonnull(strstr(err.message, "learning rate"));
    Error first = err;
    expect_error(status, ONNXPRESS_DATA, "state");
    ck_assert_ptr_null(tuned.weight);
    /* The state before the bad step is there: a second run fails at the same step. */
    ck_assert_int_ne(strncmp(first.message, "step 1 ", 7), 0);
    ck_assert_int_eq(access(options.checkpoint, R_OK), 0);
    finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err);
    ck_assert_str_eq(err.message, first.message);
    lenet_close(&lenet);
}
END_TEST

START_TEST(a_bad_start_is_named)
{
    Finetuned tuned;
    lenet_open(&lenet, 24, &err);
    lenet_perturb(&lenet, 0);
    real *broken = arena_array(lenet.arena, 10, sizeof *broken);
    broken[3] = NAN;
    ck_assert_int_eq(program_weight(lenet.program, 7)->count, 10);
    lenet.start[7] = broken;
    FinetuneOptions options = quick();
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), ONNXPRESS_DATA,
                 "step 1 (epoch 1)");
    lenet_close(&lenet);
}
END_TEST

START_TEST(labels_must_be_classes)
{
    Finetuned tuned;
    lenet_open(&lenet, 48, &err);
    FinetuneOptions options = quick();
    lenet.label[lenet.sample[20]] = 10;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), ONNXPRESS_DATA,
                 "sample 140 has the label 10");
    lenet.label[lenet.sample[20]] = 9;
    lenet.label[lenet.sample[47]] = 12; /* told before the minibatch that holds it */
    options.batch = 3;
    int64_t stop = 1;
    options.progress = stop_at;
    options.context = &stop;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), ONNXPRESS_DATA,
                 "sample 329 has the label 12");
    lenet.label[lenet.sample[47]] = 9;
    options.progress = NULL;
    lenet.label[lenet.sample[20]] = -3;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), ONNXPRESS_DATA,
                 "sample 140 has the label -3");
    lenet.label[lenet.sample[20]] = 9;
    static const OutputKind values[1] = {OUTPUT_VALUES};
    lenet.task.kind = values;
    expect_error(finetune_run(&lenet.task, &options, lenet.arena, &tuned, &err), ONNXPRESS_DATA,
                 "logits");
    lenet_close(&lenet);
}
END_TEST

START_TEST(options_out_of_range_are_refused)
{
    Finetuned tuned;
    lenet_open(&lenet, 24, &err);
    FinetuneOptions good = quick(), bad[] = {good, good, good, good, good, good, good};
    bad[0].epochs = 0;
    bad[1].rate = NAN;
    bad[2].momentum = 1;
    bad[3].lanes = 0;
    bad[4].prune = (PruneSchedule){.every = 1, .keep = 1.5, .to = 1};
    bad[5].prune = (PruneSchedule){.every = 1, .keep = 0.5, .from = 0.5, .to = 0.25};
    bad[6].decay = -1;
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++)
        expect_error(finetune_run(&lenet.task, &bad[k], lenet.arena, &tuned, &err), ONNXPRESS_USAGE,
                     "fine-tuning");
    lenet_close(&lenet);
}
END_TEST

/* x [n,2,2,2] → conv → batch norm → relu → flatten → gemm → logits. */
static Model *normed_model(const char *input_shape)
{
    static const float ones[3] = {1, 1, 1}, var[3] = {0.5f, 1.5f, 1};
    Tiny *t = tiny_create(17);
    tiny_input(t, "x", DTYPE_FLOAT, input_shape);
    tiny_reals(t, "k", "[3,2,1,1]", NULL);
    tiny_reals(t, "s", "[3]", ones);
    tiny_reals(t, "b", "[3]", NULL);
    tiny_reals(t, "mean", "[3]", NULL);
    tiny_reals(t, "var", "[3]", var);
    tiny_reals(t, "w", "[4,12]", NULL);
    tiny_node(t, "Conv", "x k", "c", "");
    tiny_node(t, "Identity", "var", "same", "");
    tiny_node(t, "BatchNormalization", "c s b mean same", "n", "");
    tiny_node(t, "Relu", "n", "r", "");
    tiny_node(t, "Flatten", "r", "f", "");
    tiny_node(t, "Gemm", "f w", "y", "transB=1");
    tiny_output(t, "y");
    Model *model = tiny_load(t);
    tiny_free(t);
    return model;
}

static void write_images(const char *path, int64_t n)
{
    Arena *arena = arena_create();
    float *x = arena_array(arena, (size_t)n * 8, sizeof *x);
    for (int64_t i = 0; i < n * 8; i++)
        x[i] = (float)lenet_noise(1, i);
    Tensor tensor = {.name = "x",
                     .dtype = DTYPE_FLOAT,
                     .shape = {4, {n, 2, 2, 2}},
                     .count = n * 8,
                     .data = x,
                     .bytes = (size_t)n * 8 * sizeof *x};
    expect_ok(npz_write(path, &tensor, 1, &err));
    arena_destroy(arena);
}

/* x [n,2,2,2] → flatten → Sqrt(|x| * w) → gemm: at w = 0 the loss is finite, its slope is not. */
START_TEST(an_infinite_slope_is_named)
{
    static const float zero[8] = {1, 1, 0, 1, 1, 1, 1, 1};
    enum { N = 8 };
    Tiny *t = tiny_create(17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,2,2,2]");
    tiny_reals(t, "steep", "[8]", zero);
    tiny_reals(t, "w", "[4,8]", NULL);
    tiny_node(t, "Flatten", "x", "f", "");
    tiny_node(t, "Abs", "f", "a", "");
    tiny_node(t, "Mul", "a steep", "m", "");
    tiny_node(t, "Sqrt", "m", "s", "");
    tiny_node(t, "Gemm", "s w", "y", "transB=1");
    tiny_output(t, "y");
    Model *model = tiny_load(t);
    tiny_free(t);
    Program *program;
    Dataset *dataset;
    Feed *feed;
    Arena *arena = arena_create();
    FeedOptions plain = {0};
    int64_t sample[N], label[N];
    const char *path = scratch_path("x.npz");
    write_images(path, N);
    expect_ok(program_build(model, &program, &err));
    expect_ok(dataset_open(path, &dataset, &err));
    expect_ok(feed_create(program, dataset, &plain, &feed, &err));
    for (int64_t i = 0; i < N; i++)
        sample[i] = i;
    for (int64_t i = 0; i < N; i++)
        label[i] = i % 4;
    FinetuneTask task = {.model = model,
                         .program = program,
                         .feed = feed,
                         .sample = sample,
                         .n = N,
                         .label = label,
                         .kind = lenet_kind};
    FinetuneOptions options = quick();
    Finetuned tuned;
    expect_error(finetune_run(&task, &options, arena, &tuned, &err), ONNXPRESS_DATA,
                 "is that of steep");
    ck_assert_ptr_null(tuned.weight);
    feed_free(feed);
    dataset_close(dataset);
    program_free(program);
    model_free(model);
    arena_destroy(arena);
}
END_TEST

START_TEST(statistics_are_no_parameters)
{
    enum { N = 22 };
    static const char *const shapes[] = {"[-1,2,2,2]", "[4,2,2,2]", "[1,2,2,2]"};
    Model *model = normed_model(shapes[_i]);
    Program *program;
    Dataset *dataset;
    Feed *feed;
    Arena *arena = arena_create();
    FeedOptions plain = {0};
    int64_t sample[N], label[N];
    const char *path = scratch_path("x.npz");
    write_images(path, N);
    expect_ok(program_build(model, &program, &err));
    expect_ok(dataset_open(path, &dataset, &err));
    expect_ok(feed_create(program, dataset, &plain, &feed, &err));
    for (int64_t i = 0; i < N; i++) {
        sample[i] = i;
        label[i] = i % 4;
    }
    FinetuneTask task = {.model = model,
                         .program = program,
                         .feed = feed,
                         .sample = sample,
                         .n = N,
                         .label = label,
                         .kind = lenet_kind};
    FinetuneOptions options = quick();
    options.batch = 10;
    options.decay = 0.1;
    Finetuned one, two;
    options.threads = 1;
    expect_ok(finetune_run(&task, &options, arena, &one, &err));
    options.threads = 2;
    expect_ok(finetune_run(&task, &options, arena, &two, &err));
    /* A fixed batch of 4: minibatches of 12, 20 samples an epoch. */
    ck_assert_int_eq(one.steps, _i == 1 ? 2 : 3);
    for (int w = 0; w < program_weights(program); w++) {
        const Weight *weight = program_weight(program, w);
        size_t bytes = (size_t)weight->count * sizeof(real);
        bool fixed = !strcmp(weight->name, "mean") || !strcmp(weight->name, "var");
        ck_assert_int_eq(memcmp(one.weight[w], weight->data, bytes) == 0, fixed);
        ck_assert(memcmp(one.weight[w], two.weight[w], bytes) == 0);
    }
    feed_free(feed);
    dataset_close(dataset);
    program_free(program);
    model_free(model);
    arena_destroy(arena);
}
END_TEST

int main(void)
{
    openblas_set_num_threads(1);
    Suite *suite = suite_create("finetune");
    ADD(suite, "steps", sgd_steps_as_by_hand, adam_steps_as_by_hand, rates_follow_their_schedule);
    ADD(suite, "samples", shuffles_are_permutations);
    ADD(suite, "pruning", pruning_breaks_ties_by_order_and_drops_zeros,
        the_cubic_falls_from_one_to_keep);
    ADD(suite, "bad input", foreign_and_damaged_checkpoints_are_refused,
        diverging_runs_stop_with_step_and_tensor, a_bad_start_is_named, an_infinite_slope_is_named,
        labels_must_be_classes, options_out_of_range_are_refused);
    const struct {
        const char *name;
        const TTest *test;
        int n;
    } loops[] = {{"augmentation", images_are_shifted_and_mirrored, 2},
                 {"masks", pruning_keeps_the_largest, 10},
                 {"threads", threads_change_nothing, 5},
                 {"resume", resumed_runs_end_in_the_same_bytes, 10},
                 {"zeros", masked_weights_stay_exactly_zero, 2},
                 {"gradual", gradual_pruning_reaches_its_fraction, 2},
                 {"training", training_lowers_the_loss, 3},
                 {"centres", shared_centres_train_and_zero_stays, 2},
                 {"statistics", statistics_are_no_parameters, 3}};
    for (size_t k = 0; k < sizeof loops / sizeof loops[0]; k++) {
        TCase *tcase = tcase_create(loops[k].name);
        tcase_add_checked_fixture(tcase, setup, scratch_remove);
        tcase_set_timeout(tcase, 120);
        tcase_add_loop_test(tcase, loops[k].test, 0, loops[k].n);
        suite_add_tcase(suite, tcase);
    }
    return run_suite(suite);
}
