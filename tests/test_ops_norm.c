/* SPDX-License-Identifier: Apache-2.0 */
#include "op_harness.h"

START_TEST(layer_gradients)
{
    CHECK({"LayerNormalization", 17, "r[$N,$T,3] w[3] w[3]", 0},
          {"LayerNormalization axis=1 epsilon=0.01", 17, "r[$N,$T,3] w[$T,3] w[3]", 0},
          {"LayerNormalization axis=1", 17, "r[$N,2,$H,3] w[2,1,1] w[$H,1]", 0},
          {"LayerNormalization axis=-2", 17, "r[$N,2,4] w[]", 0},
          {"LayerNormalization", 17, "r[$N,4] r[4] r[4]", 3},
          {"LayerNormalization axis=0", 17, "r[$N,3] r[3]", 2},
          {"LayerNormalization", 1, "r[$N,1] w[1] w[1]", 0},
          {"com.microsoft.LayerNormalization", 1, "r[$N,5] w[5] w[5]", 0},
          {"RMSNormalization", 23, "r[$N,$T,3] w[3]", 0},
          {"RMSNormalization axis=1 epsilon=0.1", 23, "r[$N,2,3] w[2,1]", 0},
          {"SimplifiedLayerNormalization", 1, "r[$N,4] r[4]", 2},
          {"com.microsoft.SimplifiedLayerNormalization", 1, "r[$N,$T,4] w[4]", 0});
}
END_TEST

START_TEST(channel_gradients)
{
    CHECK({"InstanceNormalization", 6, "r[$N,$C,3,$W] w[$C] w[$C]", 0},
          {"InstanceNormalization epsilon=0.1", 22, "r[$N,$C,4] w[$C] w[$C]", 0},
          {"GroupNormalization num_groups=2", 21, "r[$N,4,$H,2] w[4] w[4]", 0},
          {"GroupNormalization num_groups=2 epsilon=0.1", 18, "r[$N,4,$H] w[2] w[2]", 0},
          {"GroupNormalization num_groups=3", 21, "r[$N,3,5] w[3] w[3]", 0});
}
END_TEST

START_TEST(vector_gradients)
{
    CHECK({"LRN size=3 alpha=0.5 beta=0.6 bias=1.5", 13, "r[$N,5,$W]", 0},
          {"LRN size=2 alpha=0.9", 1, "r[$N,$C,2,$W]", 0}, {"LRN size=9", 13, "r[2,3]", 0},
          {"MeanVarianceNormalization", 13, "r[3,$C,2,2]", 0},
          {"MeanVarianceNormalization axes=[1]", 9, "r[$N,4,$W]", 0},
          {"LpNormalization", 22, "r[$N,$W,4]", 0}, {"LpNormalization axis=0", 1, "r[3,$W]", 0},
          {"LpNormalization p=1 axis=1", 1, "r[$N,4,$W]", 0});
}
END_TEST

START_TEST(vector_values)
{
    op_expect("LRN size=1 alpha=1.0 beta=1.0", 13, "c[1,2]{1,2}", "[1,2]{0.5,0.4}");
    op_expect("LRN size=2 alpha=2.0 beta=1.0 bias=0.0", 13, "c[1,2]{1,2}", "[1,2]{0.2,0.5}");
    op_expect("LpNormalization", 1, "c[2,2]{3,4,0,0}", "[2,2]{0.6,0.8,0,0}");
    op_expect("LpNormalization p=1 axis=0", 1, "c[2,2]{3,0,-1,0}", "[2,2]{0.75,0,-0.25,0}");
    op_expect("MeanVarianceNormalization axes=[0]", 13, "c[2,2]{1,5,3,5}", "[2,2]{-1,0,1,0}");
    op_expect("Hardmax", 13, "c[2,3]{1,3,3,2,1,0}", "[2,3]{0,1,0,1,0,0}");
    op_expect("Hardmax", 11, "c[1,2,2]{1,3,4,2}", "[1,2,2]{0,0,1,0}");
    op_expect_error("LRN", 13, "r[1,2]", "size is 0");
    op_expect_error("LRN size=3", 13, "r[3]", "rank 1");
    op_expect_error("LpNormalization p=3", 1, "r[1,2]", "p is 3");
    op_expect_error("MeanVarianceNormalization", 13, "r[1,2,3]", "axis 3");
}
END_TEST

START_TEST(values)
{
    op_expect("LayerNormalization epsilon=0.0", 17, "c[2,2]{1,3,10,6} c{2,3} c{0,1}",
              "[2,2]{-2,4,2,-2} [2,1]{2,8} [2,1]{1,0.5}");
    op_expect("RMSNormalization epsilon=0.0", 23, "c[1,2]{3,3} c{2,5}", "[1,2]{2,5}");
    op_expect("InstanceNormalization epsilon=0.0", 6, "c[1,2,2]{1,3,10,6} c{1,2} c{0,1}",
              "[1,2,2]{-1,1,3,-1}");
    op_expect("GroupNormalization num_groups=1 epsilon=0.0", 18, "c[1,2,1]{1,3} c{2} c{1}",
              "[1,2,1]{-1,3}");
    op_expect("GroupNormalization num_groups=1 epsilon=0.0", 21, "c[1,2,1]{1,3} c{2,4} c{1,0}",
              "[1,2,1]{-1,4}");
    op_expect("LayerNormalization", 17, "c[0,2]{} c{2,3}", "[0,2]{} [0,1]{} [0,1]{}");
    op_expect("LayerNormalization", 17, "c[1,0]{} c[0]{}", "[1,0]{} [1,1]{0} [1,1]{0}");
}
END_TEST

START_TEST(refuses)
{
    op_expect_error("LayerNormalization", 17, "r[2,3] r[2]", "does not broadcast");
    op_expect_error("LayerNormalization", 17, "r[2,3] r[4,2,3]", "does not broadcast");
    op_expect_error("LayerNormalization axis=1", 17, "r[2,3,4,5] r[3,1,5]", "middle axis");
    op_expect_error("LayerNormalization axis=2", 17, "r[2,3] r[3]", "axis 2");
    op_expect_error("LayerNormalization epsilon=-1.0", 17, "r[2,3] r[3]", "epsilon");
    op_expect_error("LayerNormalization", 17, "r[2,3]", "input 1 is missing");
    op_expect_error("InstanceNormalization", 6, "r[2,3,4] r[4] r[3]", "input 1 has 4");
    op_expect_error("InstanceNormalization", 6, "r[3] r[1] r[1]", "rank 1");
    op_expect_error("GroupNormalization num_groups=2", 21, "r[2,3,4] r[3] r[3]", "2 groups");
    op_expect_error("GroupNormalization num_groups=0", 21, "r[2,3,4] r[3] r[3]", "num_groups is 0");
    op_expect_error("GroupNormalization num_groups=2", 21, "r[2,4,4] r[2] r[4]", "input 1 has 2");
}
END_TEST

OP_SUITE("ops_norm", layer_gradients, channel_gradients, vector_gradients, vector_values, values,
         refuses)
