/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/attention_internal.h"

/* One head of one sample. */
typedef struct {
    const Attention *a;
    const real *q, *k, *v;
    int64_t kv_head, sample, head;
} Head;

static Head head_of(const Attention *a, int64_t sample, int64_t head)
{
    int64_t kv = head / (a->heads / a->kv_heads);
    return (Head){.a = a,
                  .q = a->q.p + sample * a->q.batch + head * a->q.head,
                  .k = a->k.p + sample * a->k.batch + kv * a->k.head,
                  .v = a->v.p + sample * a->v.batch + kv * a->v.head,
                  .kv_head = kv,
                  .sample = sample,
                  .head = head};
}

static int64_t view_offset(const View *view, int64_t sample, int64_t head)
{
    return sample * view->batch + head * view->head;
}

static real *view_at(const View *view, int64_t sample, int64_t head)
{
    return view->p ? view->p + view_offset(view, sample, head) : NULL;
}

/* C[m][n] = alpha A B + beta C; a transposed factor is stored the other way. */
static const real *grid_row(const Grid *grid, const Head *h, int64_t row)
{
    return grid->p ? grid->p + h->sample * grid->stride[0] + h->head * grid->stride[1] +
                         row * grid->stride[2]
                   : NULL;
}

/* The columns [first, end) that a row sees. */
static void visible(const Head *h, int64_t row, int64_t *first, int64_t *end)
{
    const Attention *a = h->a;
    int64_t at = row + (a->offset ? a->offset[h->sample] : 0);
    *first = a->near && a->left >= 0 && at > a->left ? at - a->left : 0;
    *end = a->open && a->open[h->sample] < a->columns ? a->open[h->sample] : a->columns;
    if (a->causal && at + 1 < *end)
        *end = at + 1;
    if (a->near && a->right >= 0 && at + a->right + 1 < *end)
        *end = at + a->right + 1;
    *end = *end < 0 ? 0 : *end;
    *first = *first < *end ? *first : *end;
}

static void softmax_row(const Head *h, int64_t row, real *p)
{
    const Attention *a = h->a;
    const real *mask = grid_row(&a->mask, h, row), *bias = grid_row(&a->bias, h, row);
    int64_t first, n;
    real most = -INFINITY;
    double sum = 0;
    visible(h, row, &first, &n);
    for (int64_t j = first; j < n; j++) {
        p[j] += (mask ? mask[j * a->mask.stride[3]] : 0) + (bias ? bias[j * a->bias.stride[3]] : 0);
        most = p[j] > most ? p[j] : most;
    }
    for (int64_t j = first; j < n; j++) { /* a row without an open column has no weights */
        p[j] = most > -INFINITY ? REAL_EXP(p[j] - most) : 0;
        sum += (double)p[j];
    }
    for (int64_t j = 0; j < a->columns; j++)
        p[j] = j >= first && j < n && sum > 0 ? (real)((double)p[j] / sum) : 0;
}

/* The weights P [rows][columns] of one head. `tanhs`, unless NULL, gets those of the cap. */
static void weights(const Head *h, real *p, real *tanhs)
{
    const Attention *a = h->a;
    matrix_product(false, true, a->rows, a->columns, a->size, a->scale, h->q, a->q.row, h->k,
                   a->k.row, 0, p, a->columns);
    for (int64_t e = 0; a->softcap > 0 && e < a->rows * a->columns; e++) {
        real capped = REAL_TANH(p[e] / a->softcap);
        p[e] = a->softcap * capped;
        if (tanhs)
            tanhs[e] = capped;
    }
    for (int64_t i = 0; i < a->rows; i++)
        softmax_row(h, i, p + i * a->columns);
}

int attention_forward(const OpCall *call, const Attention *a, const AttentionRun *run)
{
    real *p = op_scratch(call, (size_t)a->rows, (size_t)a->columns * sizeof *p);
    if (!p)
        return ONNXPRESS_MEMORY;
    for (int64_t sample = 0; sample < a->batch; sample++)
        for (int64_t head = 0; head < a->heads; head++) {
            Head h = head_of(a, sample, head);
            weights(&h, p, NULL);
            matrix_product(false, false, a->rows, a->v_size, a->columns, 1, p, a->columns, h.v,
                           a->v.row, 0, view_at(&run->y, sample, head), run->y.row);
        }
    return ONNXPRESS_OK;
}

static void add_to_bias(const Head *h, const real *d_score, real *d_bias)
{
    const Attention *a = h->a;
    const int64_t *stride = a->bias.stride;
    real *base = d_bias + h->sample * stride[0] + h->head * stride[1];
    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t j = 0; j < a->columns; j++)
            base[i * stride[2] + j * stride[3]] += d_score[i * a->columns + j];
}

/* t = d V' - (row sums of P t): Y's gradient by each weight, less what its row shares. */
static void weight_slopes(const Head *h, const real *p, const real *d, int64_t d_row, real *t)
{
    const Attention *a = h->a;
    matrix_product(false, true, a->rows, a->columns, a->v_size, 1, d, d_row, h->v, a->v.row, 0, t,
                   a->columns);
    for (int64_t i = 0; i < a->rows; i++) {
        real shared = 0;
        for (int64_t j = 0; j < a->columns; j++)
            shared += p[i * a->columns + j] * t[i * a->columns + j];
        for (int64_t j = 0; j < a->columns; j++)
            t[i * a->columns + j] -= shared;
    }
}

static void head_backward(const Head *h, const AttentionRun *run, real *p, real *t, real *tanhs)
{
    const Attention *a = h->a;
    const real *d = run->d_y + view_offset(&run->y, h->sample, h->head);
    real *d_q = view_at(&run->q, h->sample, h->head);
    real *d_k = view_at(&run->k, h->sample, h->kv_head);
    real *d_v = view_at(&run->v, h->sample, h->kv_head);
    weights(h, p, tanhs);
    if (d_v)
        matrix_product(true, false, a->columns, a->v_size, a->rows, 1, p, a->columns, d, run->y.row,
                       1, d_v, run->v.row);
    weight_slopes(h, p, d, run->y.row, t);
    for (int64_t e = 0; e < a->rows * a->columns; e++)
        t[e] *= p[e];
    if (run->bias)
        add_to_bias(h, t, run->bias);
    for (int64_t e = 0; tanhs && e < a->rows * a->columns; e++)
        t[e] *= 1 - tanhs[e] * tanhs[e];
    if (d_q)
        matrix_product(false, false, a->rows, a->size, a->columns, a->scale, t, a->columns, h->k,
                       a->k.row, 1, d_q, run->q.row);
    if (d_k)
        matrix_product(true, false, a->columns, a->size, a->rows, a->scale, t, a->columns, h->q,
                       a->q.row, 1, d_k, run->k.row);
}

/* Room for the cap's tanhs, where there is one. */
static int make_tanhs(const OpCall *call, const Attention *a, real **tanhs)
{
    *tanhs = NULL;
    if (a->softcap > 0)
        *tanhs = op_scratch(call, (size_t)a->rows, (size_t)a->columns * sizeof **tanhs);
    return a->softcap > 0 && !*tanhs ? ONNXPRESS_MEMORY : ONNXPRESS_OK;
}

int attention_backward(const OpCall *call, const Attention *a, const AttentionRun *run)
{
    real *p = op_scratch(call, (size_t)a->rows, (size_t)a->columns * sizeof *p);
    real *t = p ? op_scratch(call, (size_t)a->rows, (size_t)a->columns * sizeof *t) : NULL, *tanhs;
    if (!t || make_tanhs(call, a, &tanhs))
        return ONNXPRESS_MEMORY;
    for (int64_t sample = 0; sample < a->batch; sample++)
        for (int64_t head = 0; head < a->heads; head++) {
            Head h = head_of(a, sample, head);
            head_backward(&h, run, p, t, tanhs);
        }
    return ONNXPRESS_OK;
}

/* Room for the second-order rule on one head. */
typedef struct {
    real *p, *slope, *score; /* [rows][columns]: weights; first-order slopes; second by scores */
    real *centred;           /* [columns][size]: weighted keys less their mean */
    real *moved;             /* [size][v_size] */
    real *y;                 /* [v_size] */
    real *tanhs;             /* [rows][columns], NULL: no cap */
} Room;

/* The cap's first and second derivative at element e. */
static real cap_slope(const Room *room, int64_t e)
{
    return room->tanhs ? 1 - room->tanhs[e] * room->tanhs[e] : 1;
}

static real cap_bend(const Attention *a, const Room *room, int64_t e)
{
    return room->tanhs ? -2 * room->tanhs[e] * cap_slope(room, e) / a->softcap : 0;
}

/* score_ij = P_ij^2 sum over d of dd_id (V_jd - Y_id)^2 + P_ij (1 - 2 P_ij) slope_ij: the second
 * derivative by the score, since dY_id/ds_ij = P_ij (V_jd - Y_id). */
static void bend_scores(const Head *h, const AttentionRun *run, const Room *room)
{
    const Attention *a = h->a;
    int64_t at = view_offset(&run->y, h->sample, h->head), n = a->columns;
    for (int64_t i = 0; i < a->rows; i++) {
        const real *dd = run->dd_y + at + i * run->y.row, *p = room->p + i * n;
        matrix_product(false, false, 1, a->v_size, n, 1, p, n, h->v, a->v.row, 0, room->y,
                       a->v_size);
        for (int64_t j = 0; j < n; j++) {
            const real *v = h->v + j * a->v.row;
            real sum = 0;
            for (int64_t d = 0; d < a->v_size; d++)
                sum += dd[d] * (v[d] - room->y[d]) * (v[d] - room->y[d]);
            sum *= p[j] * p[j];
            room->score[i * n + j] = sum + p[j] * (1 - 2 * p[j]) * room->slope[i * n + j];
        }
    }
}

/* By row i of Q: with K' = K (times the cap's slope) less its mean under P, dY_d/dq_k = scale sum_j
 * P_j K'_jk V_jd, and the second derivatives add up to scale^2 sum_j P_j slope_j (K'_jk^2 + the cap's
 * bend K_jk^2). */
static void bend_query(const Head *h, const AttentionRun *run, const Room *room, int64_t i,
                       real *dd_q)
{
    const Attention *a = h->a;
    const real *p = room->p + i * a->columns, *slope = room->slope + i * a->columns;
    const real *dd = run->dd_y + view_offset(&run->y, h->sample, h->head) + i * run->y.row;
    for (int64_t k = 0; k < a->size; k++) {
        real mean = 0, bend = 0;
        for (int64_t j = 0; j < a->columns; j++)
            mean += p[j] * cap_slope(room, i * a->columns + j) * h->k[j * a->k.row + k];
        for (int64_t j = 0; j < a->columns; j++) {
            int64_t e = i * a->columns + j;
            real key = h->k[j * a->k.row + k], centred = cap_slope(room, e) * key - mean;
            room->centred[j * a->size + k] = p[j] * centred;
            bend += p[j] * slope[j] * (centred * centred + cap_bend(a, room, e) * key * key);
        }
        dd_q[k] += a->scale * a->scale * bend;
    }
    matrix_product(true, false, a->size, a->v_size, a->columns, a->scale, room->centred, a->size,
                   h->v, a->v.row, 0, room->moved, a->v_size);
    for (int64_t k = 0; k < a->size; k++)
        for (int64_t d = 0; d < a->v_size; d++) {
            real m = room->moved[k * a->v_size + d];
            dd_q[k] += m * m * dd[d];
        }
}

static void head_curvature(const Head *h, const AttentionRun *run, const Room *room)
{
    const Attention *a = h->a;
    int64_t at = view_offset(&run->y, h->sample, h->head), n = a->columns;
    real *dd_q = view_at(&run->q, h->sample, h->head);
    real *dd_k = view_at(&run->k, h->sample, h->kv_head);
    real *dd_v = view_at(&run->v, h->sample, h->kv_head);
    weights(h, room->p, room->tanhs);
    if (run->d_y)
        weight_slopes(h, room->p, run->d_y + at, run->y.row, room->slope);
    else
        for (int64_t e = 0; e < a->rows * n; e++)
            room->slope[e] = 0;
    bend_scores(h, run, room);
    for (int64_t i = 0; i < a->rows; i++) {
        const real *p = room->p + i * n, *dd = run->dd_y + at + i * run->y.row;
        const real *q = h->q + i * a->q.row, *score = room->score + i * n;
        for (int64_t j = 0; dd_v && j < n; j++)
            for (int64_t d = 0; d < a->v_size; d++)
                dd_v[j * run->v.row + d] += p[j] * p[j] * dd[d];
        for (int64_t j = 0; dd_k && j < n; j++) {
            real slope = cap_slope(room, i * n + j), bend = cap_bend(a, room, i * n + j);
            real by_score = score[j] * slope * slope + p[j] * room->slope[i * n + j] * bend;
            for (int64_t k = 0; k < a->size; k++)
                dd_k[j * run->k.row + k] += a->scale * a->scale * by_score * q[k] * q[k];
        }
        if (dd_q)
            bend_query(h, run, room, i, dd_q + i * run->q.row);
    }
    if (run->bias)
        add_to_bias(h, room->score, run->bias);
}

int attention_curvature(const OpCall *call, const Attention *a, const AttentionRun *run)
{
    size_t rows = (size_t)a->rows, columns = (size_t)a->columns, width = columns * sizeof(real);
    Room room = {.p = op_scratch(call, rows, width)};
    if (!room.p || !(room.slope = op_scratch(call, rows, width)) ||
        !(room.score = op_scratch(call, rows, width)) ||
        !(room.centred = op_scratch(call, (size_t)a->size, width)) ||
        !(room.moved = op_scratch(call, (size_t)a->size, (size_t)a->v_size * sizeof(real))) ||
        !(room.y = op_scratch(call, (size_t)a->v_size, sizeof(real))) ||
        make_tanhs(call, a, &room.tanhs))
        return ONNXPRESS_MEMORY;
    for (int64_t sample = 0; sample < a->batch; sample++)
        for (int64_t head = 0; head < a->heads; head++) {
            Head h = head_of(a, sample, head);
            head_curvature(&h, run, &room);
        }
    return ONNXPRESS_OK;
}
