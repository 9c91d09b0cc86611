/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/finetune_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "entropy/entropy.h"
#include "tensor/file.h"

/* A checkpoint is a row of sections, each followed by its CRC-32: the head, the epochs' figures, θ,
 * the optimiser's m and v, the mask. It is for the machine that wrote it: numbers are native. */

#define MAGIC "onnxpress checkpoint"
#define VERSION 1

typedef struct {
    char magic[24], sha256[72];
    uint32_t version, real_bytes;
    uint64_t settings, n, epochs;
    int64_t step, correct;
    double loss;
} Head;

typedef struct {
    void *data;
    size_t bytes;
} Section;

enum { SECTIONS = 7 };

static uint64_t note_bytes(uint64_t hash, const void *data, size_t bytes)
{
    return random_hash(hash, bytes, bytes ? entropy_crc32(data, bytes) : 0);
}

/* Everything that decides the run's bytes beside the model's file and the samples' content. */
static uint64_t settings_hash(const FinetuneTask *task, const FinetuneOptions *o,
                              const Parameters *p)
{
    const PruneSchedule *prune = &o->prune;
    const double numbers[] = {o->rate,  o->momentum, o->beta1,    o->beta2,    o->epsilon, o->decay,
                              o->floor, o->factor,   prune->keep, prune->from, prune->to};
    const int64_t integers[] = {o->epochs,
                                o->batch,
                                o->lanes,
                                (int64_t)o->seed,
                                o->optimizer,
                                o->schedule,
                                o->step_epochs,
                                o->warmup,
                                o->norm_by_batch,
                                o->shift,
                                o->flip,
                                prune->every,
                                prune->measure,
                                prune->scope,
                                task->n,
                                feed_samples(task->feed),
                                task->label != NULL,
                                p->levels};
    uint64_t hash = note_bytes(0, numbers, sizeof numbers);
    hash = note_bytes(hash, integers, sizeof integers);
    hash = note_bytes(hash, task->sample, (size_t)task->n * sizeof *task->sample);
    if (task->teacher_sha256)
        hash = note_bytes(hash, task->teacher_sha256, strlen(task->teacher_sha256));
    for (int64_t i = 0; task->label && i < task->n; i++)
        hash = random_hash(hash, (uint64_t)i, (uint64_t)task->label[task->sample[i]]);
    for (int o2 = 0; !task->label && o2 < program_outputs(task->program); o2++)
        hash = random_hash(hash, (uint64_t)o2, (uint64_t)task->kind[o2]);
    for (int w = 0; w < p->n_weights; w++) {
        const Weight *weight = program_weight(task->program, w);
        hash = random_hash(hash, (uint64_t)w, p->wanted[w]);
        if (task->start && task->start[w])
            hash = note_bytes(hash, task->start[w], (size_t)weight->count * sizeof(real));
        if (task->mask && task->mask[w])
            hash = note_bytes(hash, task->mask[w], (size_t)weight->count);
        if (prune->every && prune->h && prune->h[w])
            hash = note_bytes(hash, prune->h[w], (size_t)weight->count * sizeof(float));
    }
    const FinetuneShared *shared = task->shared;
    if (!shared)
        return hash;
    size_t tensors = shared->input->n_tensors, elements = shared->input->offset[tensors];
    hash = random_hash(hash, (uint64_t)shared->gradient, shared->train_scales);
    hash = random_hash(hash, 0, shared->relative);
    hash = note_bytes(hash, shared->weight, tensors * sizeof *shared->weight);
    hash = note_bytes(hash, shared->quantized->symbol, elements * sizeof(uint16_t));
    hash = note_bytes(hash, shared->quantized->centre, (size_t)p->levels * sizeof(float));
    hash = note_bytes(hash, shared->quantized->scale, tensors * sizeof(float));
    if (shared->gradient == FINETUNE_HESSIAN && shared->input->h)
        hash = note_bytes(hash, shared->input->h, elements * sizeof(float));
    return hash;
}

static Head make_head(const FinetuneTask *task, const FinetuneOptions *options, const Parameters *p)
{
    Head head;
    memset(&head, 0, sizeof head); /* padding is written too */
    memcpy(head.magic, MAGIC, sizeof MAGIC);
    memcpy(head.sha256, task->model->sha256, sizeof task->model->sha256);
    head.version = VERSION;
    head.real_bytes = sizeof(real);
    head.settings = settings_hash(task, options, p);
    head.n = p->n;
    head.epochs = (uint64_t)options->epochs;
    return head;
}

static void list_sections(Head *head, const Parameters *p, const Progress *progress,
                          Section section[SECTIONS])
{
    size_t figures = (size_t)head->epochs * sizeof(double);
    section[0] = (Section){head, sizeof *head};
    section[1] = (Section){progress->loss, figures};
    section[2] = (Section){progress->accuracy, figures};
    section[3] = (Section){p->theta, p->n * sizeof(real)};
    section[4] = (Section){p->m, p->n * sizeof(real)};
    section[5] = (Section){p->v, p->v ? p->n * sizeof(real) : 0};
    section[6] = (Section){p->mask, p->mask ? p->centre_at : 0};
}

int checkpoint_save(const FinetuneTask *task, const FinetuneOptions *options, const Parameters *p,
                    const Progress *progress, Error *err)
{
    Head head = make_head(task, options, p);
    Section section[SECTIONS];
    FileWriter *writer;
    head.step = progress->step;
    head.correct = progress->epoch.correct;
    head.loss = progress->epoch.loss;
    list_sections(&head, p, progress, section);
    int status = file_create(options->checkpoint, &writer, err);
    if (status)
        return status;
    for (int s = 0; !status && s < SECTIONS; s++) {
        uint32_t crc = section[s].bytes ? entropy_crc32(section[s].data, section[s].bytes) : 0;
        status = file_write(writer, section[s].data, section[s].bytes, err);
        if (!status)
            status = file_write(writer, &crc, sizeof crc, err);
    }
    if (!status)
        return file_commit(writer, err);
    file_abort(writer);
    return status;
}

static int check_head(const char *path, const FileMap *map, const Head *own, Head *head, Error *err)
{
    if (map->size < sizeof *head || memcmp(map->data, MAGIC, sizeof MAGIC) != 0)
        return error_set(err, ONNXPRESS_FORMAT, "%s: is no checkpoint of onnxpress", path);
    memcpy(head, map->data, sizeof *head);
    if (head->version != own->version || head->real_bytes != own->real_bytes)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: is a checkpoint of another version; remove it to start anew", path);
    if (memcmp(head->sha256, own->sha256, sizeof head->sha256) != 0)
        return error_set(err, ONNXPRESS_DATA,
                         "%s: is a checkpoint of another model (SHA-256 %.12s…, this one %.12s…)",
                         path, head->sha256, own->sha256);
    if (head->settings != own->settings || head->n != own->n || head->epochs != own->epochs)
        return error_set(
            err, ONNXPRESS_USAGE,
            "%s: is a checkpoint of a run with other settings or data; repeat them, or "
            "remove it to start anew",
            path);
    return ONNXPRESS_OK;
}

static int read_sections(const char *path, const FileMap *map, Section section[SECTIONS],
                         Error *err)
{
    size_t bytes = 0, at = 0;
    for (int s = 0; s < SECTIONS; s++)
        bytes += section[s].bytes + sizeof(uint32_t);
    bool whole = map->size == bytes;
    /* All of it is checked before any of it is taken over. */
    for (int s = 0; whole && s < SECTIONS; s++) {
        uint32_t crc, found = 0;
        if (section[s].bytes)
            found = entropy_crc32(map->data + at, section[s].bytes);
        memcpy(&crc, map->data + at + section[s].bytes, sizeof crc);
        whole = crc == found;
        at += section[s].bytes + sizeof crc;
    }
    if (!whole)
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: is damaged (%zu bytes of %zu, or a wrong checksum); remove it to "
                         "start anew",
                         path, map->size, bytes);
    at = 0;
    for (int s = 0; s < SECTIONS; s++) {
        if (section[s].bytes)
            memcpy(section[s].data, map->data + at, section[s].bytes);
        at += section[s].bytes + sizeof(uint32_t);
    }
    return ONNXPRESS_OK;
}

int checkpoint_load(const FinetuneTask *task, const FinetuneOptions *options, Parameters *p,
                    Progress *progress, bool *found, Error *err)
{
    Head own = make_head(task, options, p), head;
    Section section[SECTIONS];
    struct stat info;
    FileMap map;
    *found = stat(options->checkpoint, &info) == 0 || errno != ENOENT;
    if (!*found)
        return ONNXPRESS_OK;
    int status = file_map(options->checkpoint, &map, err);
    if (status)
        return status;
    status = check_head(options->checkpoint, &map, &own, &head, err);
    list_sections(&head, p, progress, section);
    if (!status)
        status = read_sections(options->checkpoint, &map, section, err);
    file_unmap(&map);
    if (status)
        return status;
    progress->step = head.step;
    progress->epoch = (Objective){head.loss, head.correct};
    return ONNXPRESS_OK;
}
