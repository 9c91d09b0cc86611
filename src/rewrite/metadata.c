/* SPDX-License-Identifier: Apache-2.0
 *
 * metadata_props "onnxpress": one JSON object,
 *   {<the caller's members>, "form":"function", "prefix":"_", "ir":7,
 *    "streams":[{"n":bytes,"crc":"8 hex"},...], "tables":"8 hex"}
 * "streams" are in block order (lookup: in tensor order); "tables" covers everything else that
 * decodes; "ir" is the original's ir_version where it had to be raised.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rewrite/rewrite_internal.h"

#define MAX_BYTES 9007199254740992.0 /* 2^53: JSON numbers are doubles */

static const char *const form_name[] = {"function", "inlined", "lookup", "plain"};
static const char *const own_key[] = {"form", "prefix", "ir", "streams", "tables"};

const char *rewrite_form_name(RewriteForm form)
{
    return form_name[form];
}

static bool add_hex(cJSON *object, const char *key, uint32_t value)
{
    char text[9];
    snprintf(text, sizeof text, "%08x", value);
    return cJSON_AddStringToObject(object, key, text) != NULL;
}

static bool add_streams(cJSON *object, const CodedNote *coded)
{
    cJSON *streams = cJSON_AddArrayToObject(object, "streams");
    for (size_t i = 0; streams && i < coded->n_streams; i++) {
        cJSON *stream = cJSON_CreateObject();
        if (!stream || !cJSON_AddNumberToObject(stream, "n", (double)coded->stream[i].bytes) ||
            !add_hex(stream, "crc", coded->stream[i].crc)) {
            cJSON_Delete(stream);
            return false;
        }
        cJSON_AddItemToArray(streams, stream);
    }
    return streams && add_hex(object, "tables", coded->tables);
}

int metadata_write(Model *model, const Metadata *metadata, Error *err)
{
    const char *note = metadata->note ? metadata->note : "";
    char *braced = arena_printf(model->arena, "{%s}", note);
    if (!braced)
        return error_memory(err, "metadata");
    cJSON *object = cJSON_Parse(braced);
    if (!object)
        return error_set(err, ONNXPRESS_INTERNAL, "metadata: the note is not JSON members: %.80s",
                         note);
    bool made = cJSON_AddStringToObject(object, "form", form_name[metadata->form]) != NULL;
    if (metadata->form != FORM_PLAIN)
        made = made && cJSON_AddStringToObject(object, "prefix", metadata->prefix) &&
               add_streams(object, &metadata->coded);
    if (metadata->ir_version)
        made = made && cJSON_AddNumberToObject(object, "ir", (double)metadata->ir_version);
    char *text = made ? cJSON_PrintUnformatted(object) : NULL;
    cJSON_Delete(object);
    int status =
        text ? model_set_metadata(model, REWRITE_KEY, text, err) : error_memory(err, "metadata");
    cJSON_free(text);
    return status;
}

static int refuse(const Model *model, const char *what, Error *err)
{
    return error_set(err, ONNXPRESS_FORMAT, "%s: its \"onnxpress\" metadata is damaged: %s",
                     model->path, what);
}

static bool read_number(const cJSON *object, const char *key, double most, uint64_t *value)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    /* Written so that NaN fails. */
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= most))
        return false;
    *value = (uint64_t)item->valuedouble;
    return true;
}

static bool read_hex(const cJSON *object, const char *key, uint32_t *value)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsString(item) || strlen(item->valuestring) != 8 ||
        strspn(item->valuestring, "0123456789abcdef") != 8)
        return false;
    *value = (uint32_t)strtoul(item->valuestring, NULL, 16);
    return true;
}

static int read_streams(const Model *model, const cJSON *object, Arena *arena, CodedNote *coded,
                        Error *err)
{
    const cJSON *streams = cJSON_GetObjectItemCaseSensitive(object, "streams"), *item;
    if (!cJSON_IsArray(streams) || !read_hex(object, "tables", &coded->tables))
        return refuse(model, "no checksums", err);
    coded->n_streams = (size_t)cJSON_GetArraySize(streams);
    coded->stream = arena_array(arena, coded->n_streams, sizeof *coded->stream);
    if (!coded->stream)
        return error_memory(err, "metadata");
    size_t i = 0;
    cJSON_ArrayForEach(item, streams)
    {
        if (!read_number(item, "n", MAX_BYTES, &coded->stream[i].bytes) ||
            !read_hex(item, "crc", &coded->stream[i].crc))
            return refuse(model, "a stream without length or checksum", err);
        i++;
    }
    return ONNXPRESS_OK;
}

static bool read_form(const cJSON *object, RewriteForm *form)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, "form");
    for (size_t i = 0; cJSON_IsString(item) && i < sizeof form_name / sizeof form_name[0]; i++)
        if (strcmp(item->valuestring, form_name[i]) == 0) {
            *form = (RewriteForm)i;
            return true;
        }
    return false;
}

static int read_object(const Model *model, const cJSON *object, Arena *arena, Metadata *metadata,
                       Error *err)
{
    if (!read_form(object, &metadata->form))
        return refuse(model, "an unknown form; a newer onnxpress may know it", err);
    uint64_t ir;
    if (read_number(object, "ir", 1000, &ir))
        metadata->ir_version = (int64_t)ir;
    if (metadata->form == FORM_PLAIN)
        return ONNXPRESS_OK;
    const cJSON *prefix = cJSON_GetObjectItemCaseSensitive(object, "prefix");
    if (!cJSON_IsString(prefix) || !*prefix->valuestring)
        return refuse(model, "no name prefix", err);
    metadata->prefix = arena_strdup(arena, prefix->valuestring);
    return metadata->prefix ? read_streams(model, object, arena, &metadata->coded, err)
                            : error_memory(err, "metadata");
}

int metadata_read(const Model *model, Arena *arena, Metadata *metadata, Error *err)
{
    *metadata = (Metadata){.prefix = "", .note = ""};
    const char *text = model_metadata(model, REWRITE_KEY);
    if (!text)
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: was not made by onnxpress (it has no such "
                         "metadata): there is nothing to restore",
                         model->path);
    cJSON *object = cJSON_Parse(text);
    int status = cJSON_IsObject(object) ? read_object(model, object, arena, metadata, err)
                                        : refuse(model, "no JSON object", err);
    cJSON_Delete(object);
    return status;
}

bool rewrite_is_ours(const Model *model, RewriteForm *form, const char **note)
{
    const char *text = model_metadata(model, REWRITE_KEY);
    cJSON *object = text ? cJSON_Parse(text) : NULL;
    RewriteForm found;
    bool ours = cJSON_IsObject(object) && read_form(object, &found);
    if (ours && form)
        *form = found;
    if (ours && note) {
        for (size_t i = 0; i < sizeof own_key / sizeof own_key[0]; i++)
            cJSON_DeleteItemFromObjectCaseSensitive(object, own_key[i]);
        char *rest = cJSON_PrintUnformatted(object);
        size_t length = rest ? strlen(rest) : 0;
        *note = length > 2 ? arena_printf(model->arena, "%.*s", (int)(length - 2), rest + 1) : "";
        cJSON_free(rest);
        if (!*note)
            *note = "";
    }
    cJSON_Delete(object);
    return ours;
}
