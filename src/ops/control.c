/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/control.h"

#include <string.h>

#include "ops/support_internal.h"

/* ---- If: input 0 chooses between the n outputs of one body and those of the other ---- */

static int if_choice(const OpCall *call, int *first)
{
    int status = op_require_integer(call, 0);
    if (status)
        return status;
    if (call->in[0]->count != 1)
        return op_error(call, ONNXPRESS_FORMAT, "the condition has %lld elements",
                        (long long)call->in[0]->count);
    if (call->n_in != 1 + 2 * call->n_out)
        return op_error(call, ONNXPRESS_FORMAT, "a branch has not as many outputs as the node");
    *first = call->in[0]->i[0] ? 1 : 1 + call->n_out;
    return ONNXPRESS_OK;
}

static int if_forward(const OpCall *call)
{
    int first = 0, status = if_choice(call, &first);
    for (int k = 0; k < call->n_out && !status; k++) {
        const Value *from = call->in[first + k];
        if (!call->out[k])
            continue;
        if (!from || (!from->r && !from->i))
            status = op_error(call, ONNXPRESS_UNSUPPORTED, "output %d is not handled", k);
        else
            status = op_alias(call, k, from, &from->shape);
    }
    return status;
}

static int if_backward(const OpCall *call)
{
    int first = 0, status = if_choice(call, &first);
    for (int k = 0; k < call->n_out && !status; k++)
        if (call->d_out[k] && call->d_in[first + k])
            add_dense(call->in[first + k]->count, call->d_in[first + k], call->d_out[k]);
    return status;
}

/* ---- Loop and Scan ---- */

static int read_loop(OpNode *node, Arena *arena, Error *err)
{
    LoopParams *params = arena_array(arena, 1, sizeof *params);
    node->params = params;
    return params ? ONNXPRESS_OK : error_memory(err, "a node's parameters");
}

static int read_scan(OpNode *node, Arena *arena, Error *err)
{
    int status = read_loop(node, arena, err);
    if (status)
        return status;
    LoopParams *params = node->params;
    int64_t scanned = attribute_int(node, "num_scan_inputs", 0);
    if (scanned < 1 || scanned > node->n_in)
        return read_error(node, err, ONNXPRESS_FORMAT, "num_scan_inputs is %lld",
                          (long long)scanned);
    params->scan = true;
    params->n_scanned = (int)scanned;
    return ONNXPRESS_OK;
}

/* A list of one number an item; false when it has another length. */
static bool scan_list(const OpNode *node, const char *name, int n, const int64_t **list)
{
    int found = attribute_ints(node, name, list);
    if (found < 0)
        *list = NULL;
    return found < 0 || found == n;
}

bool loop_fit(OpNode *node, size_t inputs, size_t formals, size_t results)
{
    LoopParams *params = node->params;
    int lead = params->scan ? 0 : 2; /* trips and condition; number and condition */
    if (inputs > INT16_MAX || formals > INT16_MAX || results > INT16_MAX)
        return false;
    params->first_input = params->first_formal = lead;
    params->first_result = params->scan ? 0 : 1;
    params->n_carried = (int)inputs - lead - params->n_scanned;
    params->n_stacked = node->n_out - params->n_carried;
    return params->n_carried >= 0 && params->n_stacked >= 0 &&
           (int)formals == lead + params->n_carried + params->n_scanned &&
           (int)results == params->first_result + params->n_carried + params->n_stacked &&
           (!params->scan ||
            (scan_list(node, "scan_input_axes", params->n_scanned, &params->in_axis) &&
             scan_list(node, "scan_input_directions", params->n_scanned, &params->in_direction) &&
             scan_list(node, "scan_output_axes", params->n_stacked, &params->out_axis) &&
             scan_list(node, "scan_output_directions", params->n_stacked,
                       &params->out_direction)));
}

/* With a body the executor runs it, and never calls its row. */
static int loop_refuse(const OpCall *call)
{
    return op_error(call, ONNXPRESS_FORMAT, "it has no body");
}

static const OpRow rows[] = {
    {"", "If", 1, OP_KEEP_INPUTS, .forward = if_forward, .backward = if_backward,
     .curvature = curvature_as_backward},
    {"", "Loop", 1, 0, .read = read_loop, .forward = loop_refuse, .backward = loop_refuse},
    {"", "Scan", 9, 0, .read = read_scan, .forward = loop_refuse, .backward = loop_refuse},
};

const OpFamily op_family_control = {rows, sizeof rows / sizeof rows[0]};
