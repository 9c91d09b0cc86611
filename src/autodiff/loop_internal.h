/* What loop.c and loop_frames.c share: one Loop or Scan that is being run, and the frames that its
 * rounds leave for the way back. */
#ifndef ONNXPRESS_AUTODIFF_LOOP_INTERNAL_H
#define ONNXPRESS_AUTODIFF_LOOP_INTERNAL_H

#include "autodiff/internal.h"
#include "ops/control.h"

/* One loop and its sizes. */
typedef struct {
    Exec *exec;
    const Step *step;
    const LoopParams *loop;
    const GraphBody *body;
    const ProgramBody *place;
    int first_body, n_inner; /* loops within it have numbers from there on */
    Error *err;
} Loop;

/* Whether every round makes this value anew. */
static inline bool is_of_round(const Program *program, int v)
{
    return program->values[v].origin == FROM_STEP || program->values[v].origin == FROM_LOOP;
}

int loop_no_room(const Loop *l);
/* Moves what the round has left into a new frame. */
int frame_save(const Loop *l);
/* Lends the frame of round t to the executor; t < 0 takes it back. */
void frame_show(const Loop *l, int64_t t);
/* How many the loop has. */
int64_t frames_count(const Loop *l);

#endif
