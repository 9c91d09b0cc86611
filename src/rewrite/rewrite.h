/* Output forms: puts coded weights into a model, and takes them out again.
 *
 * rewrite_apply removes each coded tensor's initializer (or Constant node) and adds what makes the
 * same value again under the same name: streams, codebook, and decoder nodes of standard ops, as
 * model-local functions (form function), spelled out (inlined), as byte indices with a Gather
 * (lookup), or as float initializers that take few values (plain). Nothing else of the model
 * changes, except metadata_props "onnxpress" and, for forms with functions, ir_version >= 8 and the
 * opset import of domain "onnxpress". The decoder needs opset 11: models of opset 7 to 10 are lifted to
 * it first (rewrite_lift); what cannot be lifted: ONNXPRESS_UNSUPPORTED, and lookup is left.
 * rewrite_save writes the model and, when asked, its sidecar PATH.data, both or neither.
 * rewrite_restore turns any form back into float initializers, checking lengths and checksums.
 */
#ifndef ONNXPRESS_REWRITE_REWRITE_H
#define ONNXPRESS_REWRITE_REWRITE_H

#include "model/model.h"

typedef enum { FORM_FUNCTION, FORM_INLINED, FORM_LOOKUP, FORM_PLAIN } RewriteForm;
typedef enum { SIDECAR_NEVER, SIDECAR_ALWAYS, SIDECAR_AUTO } RewriteSidecar;

const char *rewrite_form_name(RewriteForm form); /* "function", ... */

typedef struct {
    const char *name;   /* of the value: an initializer's or a Constant node's output */
    int dtype;          /* as stored: float32, float16, bfloat16, float64 */
    Shape shape;
    uint64_t first, count; /* its symbols */
    float scale;        /* value = scale * codebook[symbol] */
} CodedTensor;

typedef struct {
    size_t n_tensors;
    const CodedTensor *tensors; /* in symbol order, together covering all symbols; the forms with
                                   streams code those of like statistics together */
    uint64_t n_symbols;
    const uint16_t *symbols;
    const unsigned char *index; /* form lookup alone, in place of symbols: these as they are stored, one
                                   byte each for up to 256 levels, else two, in a file of the model's */
    int levels;
    const float *codebook;      /* [levels] */
} Coded;

/* Symbols a block. onnxruntime keeps all that it folds until folding ends, so blocks bound the time
 * (cache) more than the memory. Measured, onnxruntime 1.32, 2 cores, 16.8 M weights of 1.4 bits:
 * blocks of 0.26 M 1.6 s, 1,360 MB; of 1 M 1.3 s, 1,360 MB; one block 1.4-1.9 s, 1,640 MB. A block
 * costs some 1.7 kB. A multiple of 12: tuples of 1 to 4 fill all blocks but the last. */
#define REWRITE_BLOCK ((uint64_t)12 * 87381)
/* Symbols of the block that begins at symbol `first` of n; a short rest joins the block before. */
uint64_t rewrite_block(uint64_t n, uint64_t first);
/* Bytes of streams and tables that the tensors' symbols, [offset[t], offset[t + 1]) each, will take
 * in the forms with streams, without coding them. */
int rewrite_estimate(const uint16_t *symbol, const size_t *offset, size_t n_tensors,
                     const float *codebook, int levels, uint64_t *bytes, Error *err);

/* Says a model of opset 7 to 10 in the words of opset 11, with equal answers in onnxruntime; newer ones
 * stay as they are. ONNXPRESS_UNSUPPORTED names the node that cannot be lifted, and the model is as it
 * was; rewrite_lift_check only asks. */
int rewrite_lift(Model *model, Error *err);
int rewrite_lift_check(Model *model, Error *err);

/* Puts batch normalizations into the convolutions before them, whose output nobody else reads, where
 * all their tensors are float32 initializers or Constant nodes of their own. Weights keep their names,
 * the new bias has that of the normalization's; the answers differ by rounding alone. *folded: how many. */
int rewrite_fold(Model *model, int *folded, Error *err);
/* Drops what exporters note down beside nodes and initializers (stack traces, often more bytes than
 * the graph): doc strings and metadata_props, in bodies too. Those of the model itself stay. */
void rewrite_strip(Model *model);
/* Short names, and nothing that inference does without (shorten.c says what goes): for the last
 * bytes, after rewrite_apply. name[k] becomes what a value of that name is called now. */
int rewrite_shorten(Model *model, const char **name, size_t n, Error *err);

/* `note` is a JSON object's members (without braces) to be kept in the metadata: tool version,
 * source SHA-256, method, goal, importance. Streams' lengths and checksums are added to it. */
int rewrite_apply(Model *model, const Coded *coded, RewriteForm form, const char *note, Error *err);

/* Replaces the values of an initializer or Constant node; its type stays. */
int rewrite_values(Model *model, const char *name, const float *value, int64_t count, Error *err);

typedef struct {
    uint64_t model_bytes, sidecar_bytes;
} RewriteSizes;
/* Sidecar auto: when the model would exceed 1.5 GB. External data that the model already had is
 * carried along into the sidecar. */
int rewrite_save(Model *model, const char *path, RewriteSidecar sidecar, RewriteSizes *sizes,
                 Error *err);

/* What the model takes in one file, with the external data that it still refers to: these are taken
 * into the message, as views, as rewrite_save does it. */
int rewrite_size(Model *model, uint64_t *bytes, Error *err);

/* What the bytes of a rewritten model (in one file, before any zstd) are spent on. */
typedef struct {
    uint64_t streams, codebook, tables; /* our tensors, with their names and shapes */
    uint64_t exact;                     /* all other initializers: those that are not coded */
    uint64_t graph;                     /* the rest: nodes, names, functions, metadata */
    const char *code; /* what makes the streams: "symbols" (one a codeword; zero is one of them, and
                         where its codeword has one bit the tree's first level is a mask), "pairs",
                         "triples", "quadruples" (of symbols), "gaps" (of zeros, each with the symbol
                         after it), "mixed" (blocks differ), "indices" (lookup), "values" (plain) */
} RewriteParts;
int rewrite_parts(const Model *model, RewriteParts *parts, Error *err);

/* True when the model carries our metadata; form and note are filled in (either may be NULL). */
bool rewrite_is_ours(const Model *model, RewriteForm *form, const char **note);
int rewrite_restore(Model *model, Error *err);
/* For form lookup: the checks of rewrite_restore, without making the weights. */
int rewrite_check(Model *model, Error *err);

#endif
