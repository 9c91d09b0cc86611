/* SPDX-License-Identifier: Apache-2.0
 *
 * What the rounds of Loop and Scan leave for the way back, frame by frame. */
#include <stdlib.h>
#include <string.h>

#include "autodiff/loop_internal.h"

typedef struct {
    Buffer *storage;   /* of the lists below, so that they count in the bound on memory */
    Value *values;     /* the body's, bodies within it included */
    bool *done;        /* of the body's steps */
    LoopFrames *inner; /* of the loops within it */
} Frame;

struct LoopFrames {
    Frame *frame;
    int64_t n, room;
};

LoopFrames *loop_frames_create(int n_bodies)
{
    return calloc((size_t)n_bodies + 1, sizeof(LoopFrames));
}

static void frames_free(Exec *exec, int number);

static void frame_free(Exec *exec, int number, Frame *frame)
{
    const Program *program = exec->program;
    const GraphBody *body = &program->graph->bodies[number];
    for (int v = body->first_value; v < body->end_value; v++)
        pool_release(exec->pool, frame->values[v - body->first_value].buffer);
    for (int b = number + 1; b < program->bodies[number].end_body; b++) {
        LoopFrames kept = exec->loops[b];
        exec->loops[b] = frame->inner[b - number - 1];
        frames_free(exec, b);
        exec->loops[b] = kept;
    }
    pool_release(exec->pool, frame->storage);
}

static void frames_free(Exec *exec, int number)
{
    LoopFrames *frames = &exec->loops[number];
    for (int64_t t = 0; t < frames->n; t++)
        frame_free(exec, number, &frames->frame[t]);
    free(frames->frame);
    *frames = (LoopFrames){0};
}

void loop_frames_drop(Exec *exec)
{
    for (int b = 0; b < exec->program->graph->n_bodies; b++)
        frames_free(exec, b);
    exec->rounds = 0;
}

static bool frames_grow(LoopFrames *frames)
{
    if (frames->n < frames->room)
        return true;
    int64_t room = 2 * frames->room + 8;
    Frame *larger = realloc(frames->frame, (size_t)room * sizeof *larger);
    if (!larger)
        return false;
    frames->frame = larger;
    frames->room = room;
    return true;
}

/* Zeroed lists of a body of n values and so many steps, with loops in it. */
static bool frame_open(const Loop *l, size_t n, size_t steps, Frame *frame)
{
    size_t inner = (size_t)l->n_inner;
    size_t bytes = n * sizeof(Value) + inner * sizeof(LoopFrames) + steps * sizeof(bool) + 1;
    frame->storage = pool_take(l->exec->pool, bytes, true);
    if (!frame->storage)
        return false;
    frame->values = memset(buffer_data(frame->storage), 0, bytes);
    frame->inner = (LoopFrames *)(void *)(frame->values + n);
    frame->done = (bool *)(void *)(frame->inner + inner);
    return true;
}

int frame_save(const Loop *l)
{
    Exec *exec = l->exec;
    LoopFrames *frames = &exec->loops[l->step->holds];
    int first = l->body->first_value, end = l->body->end_value;
    int n = end - first, steps = l->place->end - l->place->first;
    if (!frames_grow(frames))
        return error_memory(l->err, "a loop's rounds");
    Frame frame;
    if (!frame_open(l, (size_t)n, (size_t)steps, &frame))
        return loop_no_room(l);
    for (int v = first; v < end; v++)
        if (is_of_round(exec->program, v)) {
            frame.values[v - first] = exec->values[v];
            exec->values[v] = (Value){0};
        }
    memcpy(frame.done, exec->done + l->place->first, (size_t)steps * sizeof *frame.done);
    for (int b = 0; b < l->n_inner; b++) {
        frame.inner[b] = exec->loops[l->first_body + b];
        exec->loops[l->first_body + b] = (LoopFrames){0};
    }
    frames->frame[frames->n++] = frame;
    return ONNXPRESS_OK;
}

void frame_show(const Loop *l, int64_t t)
{
    Exec *exec = l->exec;
    const Frame *frame = t < 0 ? NULL : &exec->loops[l->step->holds].frame[t];
    int first = l->body->first_value;
    for (int v = first; v < l->body->end_value; v++)
        if (is_of_round(exec->program, v))
            exec->values[v] = frame ? frame->values[v - first] : (Value){0};
    for (int b = 0; b < l->n_inner; b++)
        exec->loops[l->first_body + b] = frame ? frame->inner[b] : (LoopFrames){0};
    if (frame)
        memcpy(exec->done + l->place->first, frame->done,
               (size_t)(l->place->end - l->place->first) * sizeof *frame->done);
}

int64_t frames_count(const Loop *l)
{
    return l->exec->loops[l->step->holds].n;
}
