/* What the files of this folder share; nobody else includes it.
 *
 * All that we add to a graph has names that begin with one prefix, which no name of the original
 * model begins with and which the metadata records: so our part can be told from the original
 * whatever order other tools leave it in. Nodes and tensors are collected in an Emitter and
 * attached to the model at the end, so that a failure leaves the model as it was.
 */
#ifndef ONNXPRESS_REWRITE_REWRITE_INTERNAL_H
#define ONNXPRESS_REWRITE_REWRITE_INTERNAL_H

#include "entropy/entropy.h"
#include "model/build.h"
#include "model/graph.h"
#include "model/names.h"
#include "rewrite/rewrite.h"

#define REWRITE_DOMAIN "onnxpress"
#define REWRITE_OPSET 1
#define REWRITE_KEY "onnxpress"

/* Grows by doubling in an arena. */
typedef struct {
    void **item;
    size_t n, room;
} List;
bool list_add(List *list, Arena *arena, void *item);

/* ---- emit.c: messages with a sticky out-of-memory flag, so that graphs read as lists of ops. ----
 */
typedef struct {
    Model *model;
    Arena *scratch;
    const char *prefix; /* of all our names in the graph */
    List nodes;         /* Onnx__NodeProto */
    List initializers;  /* Onnx__TensorProto */
    bool failed;
} Emitter;

#define NAMES(...)                                                                                 \
    (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

Onnx__NodeProto *emit_node(Emitter *e, const char *domain, const char *op_type,
                           const char *const *inputs, size_t n_inputs, const char *const *outputs,
                           size_t n_outputs);
void emit_int(Emitter *e, Onnx__NodeProto *node, const char *name, int64_t value);
void emit_string(Emitter *e, Onnx__NodeProto *node, const char *name, const char *value);
void emit_cast(Emitter *e, const char *from, const char *to, int dtype);
/* A Split along axis 0; from opset 13 the sizes are the value `sizes_name`. */
void emit_split(Emitter *e, const char *from, const char *sizes_name, const int64_t *size,
                const char *const *outputs, size_t n);
/* Integers in the typed field: a byte or two each instead of eight. */
Onnx__TensorProto *emit_small(Emitter *e, const char *name, int dtype, int rank,
                              const int64_t *value, size_t n);
Onnx__TensorProto *emit_raw(Emitter *e, const char *name, int dtype, int rank, const int64_t *dims,
                            const void *data, size_t bytes);
void emit_initializer(Emitter *e, Onnx__TensorProto *tensor);
void emit_constant(Emitter *e, Onnx__TensorProto *tensor, const char *output);
/* prefix + text, and prefix + letter + number in base 36 (nothing for 0). */
const char *emit_name(Emitter *e, const char *text);
const char *emit_numbered(Emitter *e, char letter, uint64_t number);
/* Attaches all that was collected, nodes before those of the model. */
int emit_attach(Emitter *e, Error *err);
/* A prefix that no name in the model's graphs begins with. */
const char *choose_prefix(const Model *model, Arena *arena);

/* ---- decoder.c: the nodes that decode a block, as functions or spelled out. ---- */
/* What a block brings along; the letter is also its name in function bodies. */
typedef enum {
    ROLE_STREAM,   /* s: uint8 [bytes, 1] */
    ROLE_LEVELS,   /* l: int64, bits of each level from the root down, then the padding */
    ROLE_RUNS,     /* n: uint16, members of each run but the last */
    ROLE_TUPLES,   /* k: int64 [1], their number */
    ROLE_TAILS,    /* r: int64, sizes of the tails, deepest level first */
    ROLE_TABLE,    /* t: uint8 or uint16 [runs, tuple], or [runs] */
    ROLE_GAPS,     /* G: uint8 [runs], one more than the gap before the table's symbol */
    ROLE_FILLED,   /* E: int64 [1], elements of a block with gaps */
    ROLE_CODEBOOK, /* c: float32 [levels], one for all blocks */
    ROLE_SCALES,   /* a: float32, one a piece of constant scale */
    ROLE_PIECES,   /* u: int64, elements of each piece but the last */
    ROLE_COUNT,    /* v: int64 [1], elements of the block with padding */
    ROLE_END
} Role;
extern const char role_letter[ROLE_END + 1];

typedef enum { SCALE_NONE, SCALE_ONE, SCALE_MANY } ScaleMode;

/* All that a decoder's body depends on. */
typedef struct {
    int levels;
    int64_t level_size[WAVELET_MAX_LEVELS + 1]; /* the last of levels + 1 is the padding, >= 1 */
    int64_t tail_size[WAVELET_MAX_LEVELS + 1];
    int rank_type; /* the narrowest type that holds a run's number */
    bool flat;     /* the table has one symbol an entry */
    bool gaps;     /* that symbol comes after a gap of the symbol `skipped` */
    int64_t skipped;
    ScaleMode scales;
} BlockShape;

/* True when a block of this shape stores this role (below opset 13 sizes stand in the nodes). */
bool role_used(const Model *model, const BlockShape *shape, Role role);

typedef struct {
    Emitter *emit;
    bool inlined;
    List functions;     /* Onnx__FunctionProto: Step, Runs, then one a kind of block */
    uint32_t constants; /* those that the graph has already (inlined) */
} Decoder;

bool decoder_begin(Decoder *decoder, Emitter *emit, bool inlined);
/* Adds what makes `output` from the block's initializers. */
bool decoder_block(Decoder *decoder, const BlockShape *shape, size_t block, const char *output);

/* ---- group.c: which tensors share blocks. ---- */
typedef struct {
    size_t *order; /* [n_tensors]: the tensors in the order in which their symbols are coded */
    size_t n_blocks;
    uint64_t *first; /* [n_blocks + 1]: where blocks begin, in that order; multiples of 12 */
} Groups;
/* Tensor t has the symbols [offset[t], offset[t + 1]). Depends on nothing but the symbols. */
int groups_find(const uint16_t *symbol, const size_t *offset, size_t n_tensors,
                const float *codebook, int levels, Arena *arena, Groups *groups, Error *err);
/* The symbols of a block, in the order in which they are coded. */
void groups_gather(const uint16_t *symbol, const size_t *offset, const Groups *groups, size_t block,
                   uint16_t *out);

/* ---- plan.c: how a block is best coded. ---- */
typedef struct {
    int tuple;      /* symbols a tuple; with gaps 2: the pair */
    int gap_limit;  /* 0: no gaps */
    uint16_t skipped;
    int max_length;
    uint64_t bytes;
} BlockPlan;

/* The symbol that gaps skip: the one nearest zero, the first of equals. */
uint16_t skipped_symbol(const float *codebook, int levels);
int block_plan(const uint16_t *symbol, uint64_t n, uint16_t skipped, int levels, BlockPlan *plan,
               Error *err);

/* ---- values.c ---- */
/* Puts float values into a tensor as its type asks, replacing whatever data it had. */
int values_store(Model *model, Onnx__TensorProto *proto, const float *value, int64_t count,
                 Error *err);
/* Symbols as bytes when all levels fit, else as they are; *dtype says which. NULL: out of memory.
 */
const void *symbols_narrow(const uint16_t *symbol, size_t n, int levels, Arena *arena, int *dtype,
                           size_t *bytes);
/* Where a weight is: initializer, or the tensor of a Constant node (then *node is its number). */
Onnx__TensorProto *values_find(const Model *model, const char *name, size_t *node);
void values_remove(Model *model, const char *name); /* the initializer, or the Constant node */

/* ---- hoist.c: weights in the bodies of nodes ---- */
/* The tensor of a weight, wherever it lives; NULL: there is none of that name. */
Onnx__TensorProto *hoist_find(const Graph *graph, const char *name);
/* Moves those of the coded weights that live in bodies into the main graph, as initializers. Their
 * bodies read them from there; where a name had to change, through an Identity. */
int hoist_weights(Model *model, const Graph *graph, const Coded *coded, Error *err);

/* ---- blocks.c and lookup.c: what the metadata is to know of the coded data. ---- */
typedef struct {
    uint64_t bytes;
    uint32_t crc;
} StreamNote;

typedef struct {
    StreamNote *stream; /* of each block, or of each tensor's indices */
    size_t n_streams;
    uint32_t tables; /* checksum of all that is no stream, see digest_add */
} CodedNote;

/* Codes all symbols; *joined is the flat value of all weights in the groups' order, *total its
 * elements, which may be a few more than there are symbols. offset: [n_tensors + 1]. */
int blocks_emit(Decoder *decoder, const Coded *coded, const size_t *offset, const Groups *groups,
                CodedNote *note, const char **joined, uint64_t *total, Error *err);
/* Byte indices and a Gather for each tensor, up to the tensor's own value. */
int lookup_emit(Emitter *e, const Coded *coded, CodedNote *note, Error *err);
/* digest = crc32(digest, crc32(data)): a checksum of parts in their order. */
void digest_add(uint32_t *digest, const void *data, size_t bytes);

/* ---- metadata.c ---- */
typedef struct {
    RewriteForm form;
    const char *prefix; /* "" for plain */
    int64_t ir_version; /* of the original, 0: as it is */
    CodedNote coded;
    const char *note; /* the caller's members */
} Metadata;

int metadata_write(Model *model, const Metadata *metadata, Error *err);
int metadata_read(const Model *model, Arena *arena, Metadata *metadata, Error *err);

/* ---- restore_blocks.c, restore.c: our part of a file, which may be damaged or hostile. ---- */
typedef struct {
    Model *model;
    Arena *scratch;
    Emitter names; /* for emit_numbered: names as they were given */
    Metadata metadata;
    NameTable *initializer; /* name → number, those of ours */
    NameTable *reader;      /* name of ours → number of a node that reads it */
    const float *codebook;
    int64_t levels;
    uint32_t digest; /* of the tables read so far */
    bool only_check; /* no weights are made */
} Restore;

int restore_refuse(const Restore *r, const char *what, const char *name, Error *err);
/* An initializer of ours; ONNXPRESS_FORMAT when it is missing or has another type or rank. */
int restore_tensor(Restore *r, const char *name, int dtype, int rank, Tensor *tensor, Error *err);
bool restore_has(const Restore *r, const char *name);
const Onnx__NodeProto *restore_reader(const Restore *r, const char *name); /* NULL: none */
/* A stream's length and checksum against the metadata. */
int restore_check_stream(const Restore *r, size_t number, const Tensor *tensor, Error *err);
/* The sizes of a Split: its input from opset 13, its attribute before. */
int restore_sizes(Restore *r, const char *name, const Onnx__NodeProto *split, int64_t **size,
                  size_t *n, Error *err);
/* Decodes all blocks into one array of values, in the model's arena. */
int restore_blocks(Restore *r, float **value, uint64_t *n, Error *err);

#endif
