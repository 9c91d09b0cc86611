/* The kernels of product.c for one vector width. Included there with these defined:
 *   NAME(x)        the name of x for this width
 *   TARGET         the attribute that lets the compiler use it
 *   WIDTH          bytes of a vector
 *   ROWS, VECTORS  of the tile of sums that product_rows holds in registers
 *   DOT_ROWS, DOT_TAPS  the same for product_dots
 */
#define LANES ((int64_t)(WIDTH / sizeof(real)))

typedef real NAME(Vector) __attribute__((vector_size(WIDTH)));
typedef real NAME(Loose) __attribute__((vector_size(WIDTH), aligned(sizeof(real)), may_alias));

static inline TARGET __attribute__((always_inline)) void
NAME(rows_tile)(const RowsProduct *q, int64_t i, int64_t p, const int rows, const int vectors)
{
    NAME(Vector) sum[ROWS][VECTORS];
    const real *a[ROWS], *b = q->b + p;
    const int64_t *a_tap = q->a_tap, *b_tap = q->b_tap;
    UNROLL for (int k = 0; k < rows; k++)
    {
        a[k] = q->a + q->a_row[i + k];
        UNROLL for (int v = 0; v < vectors; v++)
            sum[k][v] = (NAME(Vector)){0} + (q->start ? q->start[i + k] : 0);
    }
    for (int64_t t = 0; t < q->taps; t++) {
        const NAME(Loose) *from = (const NAME(Loose) *)(b + b_tap[t]);
        int64_t at = a_tap[t];
        NAME(Vector) x[VECTORS];
        UNROLL for (int v = 0; v < vectors; v++)
            x[v] = from[v];
        UNROLL for (int k = 0; k < rows; k++)
        {
            NAME(Vector) factor = (NAME(Vector)){0} + a[k][at];
            UNROLL for (int v = 0; v < vectors; v++)
                sum[k][v] += factor * x[v];
        }
    }
    real *out = q->out + i * q->out_step + p;
    int64_t left = q->n - p;
    UNROLL for (int k = 0; k < rows; k++)
        UNROLL for (int v = 0; v < vectors; v++)
    {
        real *to = out + k * q->out_step + v * LANES;
        if (left >= (v + 1) * LANES)
            *(NAME(Loose) *)to = sum[k][v];
        else if (left > v * LANES)
            memcpy(to, &sum[k][v], (size_t)(left - v * LANES) * sizeof(real));
    }
}

#define TILE(n)                                                                                    \
    case n:                                                                                        \
        if (wide)                                                                                  \
            NAME(rows_tile)(q, i, p, n <= ROWS ? n : 1, VECTORS);                                  \
        else                                                                                       \
            NAME(rows_tile)(q, i, p, n <= ROWS ? n : 1, 1);                                        \
        break;

/* Rows are shared out evenly, so that 16 are 6 + 5 + 5 and not 6 + 6 + 4. */
static TARGET void NAME(rows)(const RowsProduct *q)
{
    int64_t panels = (q->rows + ROWS - 1) / ROWS;
    for (int64_t p = 0, step; p < q->n; p += step) {
        bool wide = q->n - p > (VECTORS / 2) * LANES;
        step = wide ? VECTORS * LANES : LANES;
        for (int64_t i = 0, panel = 0, rows; panel < panels; panel++, i += rows) {
            rows = (q->rows - i + panels - panel - 1) / (panels - panel);
            switch (rows) {
                TILE(1)
                TILE(2)
                TILE(3)
                TILE(4)
                TILE(5)
                TILE(6)
            }
        }
    }
}
#undef TILE

static inline TARGET __attribute__((always_inline)) real NAME(lane_sum)(NAME(Vector) v)
{
    Quarter part[WIDTH / sizeof(Quarter)];
    memcpy(part, &v, sizeof v);
    UNROLL for (size_t k = 1; k < WIDTH / sizeof(Quarter); k++)
        part[0] += part[k];
    real sum = 0;
    UNROLL for (size_t l = 0; l < sizeof(Quarter) / sizeof(real); l++)
        sum += part[0][l];
    return sum;
}

static inline TARGET __attribute__((always_inline)) void NAME(dots_tile)(const DotsProduct *q,
                                                                         int64_t i, int64_t t)
{
    NAME(Vector) sum[DOT_ROWS][DOT_TAPS];
    int64_t a_row[DOT_ROWS], b_row[DOT_TAPS];
    /* Beyond the last row or tap the last one is taken again, and dropped. */
    for (int k = 0; k < DOT_ROWS; k++)
        a_row[k] = (i + k < q->rows ? i + k : q->rows - 1) * q->a_row;
    for (int j = 0; j < DOT_TAPS; j++)
        b_row[j] = q->b_tap[t + j < q->taps ? t + j : q->taps - 1];
    UNROLL for (int k = 0; k < DOT_ROWS; k++)
        UNROLL for (int j = 0; j < DOT_TAPS; j++)
            sum[k][j] = (NAME(Vector)){0};
    for (int64_t s = 0; s < q->samples; s++) {
        const real *a = q->a + s * q->a_sample, *b = q->b + s * q->b_sample;
        for (int64_t p = 0; p < q->n; p += LANES, a += LANES, b += LANES) {
            NAME(Vector) x[DOT_ROWS];
            UNROLL for (int k = 0; k < DOT_ROWS; k++)
                x[k] = *(const NAME(Loose) *)(a + a_row[k]);
            UNROLL for (int j = 0; j < DOT_TAPS; j++)
            {
                NAME(Vector) y = *(const NAME(Loose) *)(b + b_row[j]);
                UNROLL for (int k = 0; k < DOT_ROWS; k++)
                    sum[k][j] += x[k] * y;
            }
        }
    }
    real total[DOT_ROWS][DOT_TAPS];
    UNROLL for (int k = 0; k < DOT_ROWS; k++)
        UNROLL for (int j = 0; j < DOT_TAPS; j++)
            total[k][j] = NAME(lane_sum)(sum[k][j]);
    for (int k = 0; k < DOT_ROWS && i + k < q->rows; k++)
        for (int j = 0; j < DOT_TAPS && t + j < q->taps; j++)
            q->out[(i + k) * q->taps + t + j] += total[k][j];
}

static TARGET void NAME(dots)(const DotsProduct *q)
{
    for (int64_t t = 0; t < q->taps; t += DOT_TAPS)
        for (int64_t i = 0; i < q->rows; i += DOT_ROWS)
            NAME(dots_tile)(q, i, t);
}

#undef LANES
#undef NAME
#undef TARGET
#undef WIDTH
#undef ROWS
#undef VECTORS
#undef DOT_ROWS
#undef DOT_TAPS
