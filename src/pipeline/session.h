/* Session: what every command sets up before its own work: the model, its program, data bound to
 * it, what its outputs mean. Everything is owned by the Session and freed by session_close, which
 * is safe on a zeroed or half-opened one. Errors go to session->err, which is the caller's.
 *
 *   Session s; rc = session_open(&s, path, options, err); … session_close(&s);
 */
#ifndef ONNXPRESS_PIPELINE_SESSION_H
#define ONNXPRESS_PIPELINE_SESSION_H

#include "autodiff/evaluate.h"
#include "onnxpress.h"
#include "rewrite/rewrite.h"

/* Samples and what they are bound to. */
typedef struct {
    Dataset *dataset;
    Feed *feed;
    int64_t samples;
} Data;

typedef struct {
    const OnnxPressOptions *options;
    Error *err;
    Arena *arena;      /* lives as long as the session */
    Model *model;
    Program *program;
    int threads;
    double started;    /* seconds, monotonic */
    OutputKind *kind;  /* per program output, after session_kinds */
    double *variance;  /* per program output, after session_kinds */
    const char **warnings;
    size_t n_warnings, max_warnings;
    int folded; /* normalizations */
    const char *stage; /* for the progress callback */
} Session;

/* RESTORE: a file in one of our forms is turned back into float weights first; FOLD: batch
 * normalization goes into the convolutions before it (rewrite_fold). */
enum { SESSION_AS_IS = 0, SESSION_RESTORE = 1, SESSION_FOLD = 2 };
int session_open(Session *session, const char *path, int how,
                 const OnnxPressOptions *options, Error *err);
/* ONNXPRESS_UNSUPPORTED, naming the first op without a forward rule: for who has to run the model. */
int session_can_run(Session *session);
void session_close(Session *session);
int session_warn(Session *session, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

int session_data(Session *session, const char *path, Data *data);
void data_close(Data *data);
/* Labels of `data`; *label stays NULL when path is NULL. */
int session_labels(Session *session, const char *path, const Data *data, int64_t **label);

/* What each output means, from the options or from the op that makes it, and its variance. */
int session_kinds(Session *session, const Answers *answers);
EvaluateOptions session_evaluate_options(Session *session, const char *stage);

/* Progress of `stage`; ONNXPRESS_INTERRUPTED when the caller wants to stop. */
int session_progress(Session *session, const char *stage, double share);
int session_report(Session *session, const OnnxPressProgress *progress);

/* Per-output distances as one: the worst of each. */
void session_distance(const Session *session, const Distance *distance, int64_t samples,
                      OnnxPressDistance *out);
void distance_clear(OnnxPressDistance *distance); /* all NaN */

RewriteSidecar session_sidecar(const OnnxPressOptions *options);

double seconds_now(void);
uint64_t peak_rss_bytes(void);

#endif
