/* SPDX-License-Identifier: Apache-2.0
 *
 * A folder of samples: the input is cut into up to four parts, which become the files of
 * test_data_set_0 and test_data_set_1. [sizes of three parts, parts…] */
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "tensor/dataset.h"

static const char *const file_name[] = {
    "set/test_data_set_0/input_0.pb", "set/test_data_set_0/input_1.pb",
    "set/test_data_set_1/input_0.pb", "set/test_data_set_1/input_1.pb"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Error err = {0};
    Dataset *dataset = NULL;
    Bytes bytes = {data, size};
    size_t part[4] = {0};
    mkdir(fuzz_path("set"), 0700);
    mkdir(fuzz_path("set/test_data_set_0"), 0700);
    mkdir(fuzz_path("set/test_data_set_1"), 0700);
    for (int k = 0; k < 3; k++)
        part[k] = bytes_size(&bytes);
    part[3] = SIZE_MAX;
    for (int k = 0; k < 4; k++) {
        size_t n = part[k] < bytes.left ? part[k] : bytes.left;
        if (n)
            fuzz_file(file_name[k], bytes.at, n);
        else
            unlink(fuzz_path(file_name[k]));
        bytes.at += n;
        bytes.left -= n;
    }
    int status = dataset_open(fuzz_path("set"), &dataset, &err);
    fuzz_check_error(status, &err);
    for (int64_t s = 0; !status && s < dataset_samples(dataset) && s < 4; s++)
        for (size_t k = 0; k < dataset_inputs(dataset) && dataset_is_ragged(dataset); k++)
            FUZZ_CHECK(dataset_sample(dataset, k, s));
    dataset_close(dataset);
    return 0;
}
