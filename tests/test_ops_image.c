/* SPDX-License-Identifier: Apache-2.0 */
#include "op_harness.h"

START_TEST(resize_gradients)
{
    CHECK(
        {"Resize", 13, "r[$N,$C,3,2] - c{1,1,2,3}", 0},
        {"Resize mode=linear", 13, "r[$N,$C,3,4] - c{1,1,2.0,1.5}", 0},
        {"Resize mode=linear", 13, "r[$N,$C,5,4] - - i{$N,$C,3,7}", 0},
        {"Resize mode=linear coordinate_transformation_mode=align_corners", 11,
         "r[$N,2,3,4] c{} c{1,1,2,0.5} -", 0},
        {"Resize mode=linear coordinate_transformation_mode=pytorch_half_pixel", 11,
         "r[$N,2,3] - - i{$N,2,1}", 0},
        {"Resize mode=linear coordinate_transformation_mode=half_pixel_symmetric", 19,
         "r[$N,2,3] - c{1,1,2.4}", 0},
        {"Resize mode=cubic", 13, "r[$N,4,5] - c{1,1.7,0.6}", 0},
        {"Resize mode=cubic exclude_outside=1 cubic_coeff_a=-0.5", 13, "r[$N,4,5] - c{1,2,0.6}", 0},
        {"Resize mode=linear antialias=1", 18, "r[$N,7,5] - c{1,0.4,1.5}", 0},
        {"Resize mode=cubic antialias=1 exclude_outside=1", 18, "r[$N,7,5] - c{1,0.4,0.5}", 0},
        {"Resize mode=linear axes=[2,1] keep_aspect_ratio_policy=not_larger", 18,
         "r[$N,3,4] - - i{7,8}", 0},
        {"Resize mode=linear coordinate_transformation_mode=tf_crop_and_resize "
         "extrapolation_value=2.5",
         13, "r[2,4,4] c{0,-0.2,0.3,1,1.3,0.9} - i{2,5,6}", 0},
        {"Resize mode=cubic coordinate_transformation_mode=tf_crop_and_resize axes=[1]", 18,
         "r[2,4,2] c{0.2,0.8} - i{1}", 0},
        {"Resize nearest_mode=ceil coordinate_transformation_mode=tf_half_pixel_for_nn", 11,
         "r[$N,3,4] - c{1,0.7,2.3}", 0},
        {"Resize", 10, "r[$N,$C,3,4] c{1,1,2,0.6}", 0},
        {"Resize mode=linear", 10, "r[$N,$C,3,4] c{1,1,2,0.6}", 0},
        {"Resize", 13, "r[$N,3] - c{1,1}", 0}, {"Upsample", 9, "r[$N,2,3] c{1,2,1.5}", 0},
        {"Upsample mode=linear", 9, "r[$N,2,3] c{1,2,1.5}", 0});
}
END_TEST

/* From the operator's definition, by hand. */
START_TEST(resize_values)
{
    op_expect("Resize", 13, "i{1,2,3} - c{2}", "{1,1,2,2,3,3}");
    op_expect("Resize mode=linear", 13, "c{1,3} - c{2}", "{1,1.5,2.5,3}");
    op_expect("Resize mode=linear coordinate_transformation_mode=align_corners", 13,
              "c{1,4} - - i{4}", "{1,2,3,4}");
    op_expect("Resize mode=linear coordinate_transformation_mode=asymmetric", 13, "c{1,3} - c{2}",
              "{1,2,3,3}");
    op_expect("Resize nearest_mode=floor coordinate_transformation_mode=asymmetric", 13,
              "c{1,2} - c{1.5}", "{1,1,2}");
    op_expect("Resize nearest_mode=round_prefer_ceil coordinate_transformation_mode=align_corners",
              13, "c{1,2} - - i{3}", "{1,2,2}");
    op_expect("Resize coordinate_transformation_mode=align_corners", 13, "c{1,2} - - i{3}",
              "{1,1,2}");
    op_expect("Resize", 10, "c{1,2,3,4} c{0.6}", "{1,3}");
    op_expect("Resize mode=linear antialias=1", 18, "c{1,2,3,4} - c{0.5}", "{1.625,3.375}");
    op_expect("Resize mode=linear extrapolation_value=9.0 "
              "coordinate_transformation_mode=tf_crop_and_resize",
              13, "c{1,2,3} c{0,2} - i{5}", "{1,2,3,9,9}");
    op_expect("Resize axes=[1] keep_aspect_ratio_policy=not_smaller", 18, "c[1,2]{1,2} - - i{4}",
              "[1,4]{1,1,2,2}");
    op_expect("Resize", 13, "c[0,2]{} - c{3,2}", "[0,4]{}");
    op_expect("Upsample", 9, "c{1,2} c{2}", "{1,1,2,2}");
}
END_TEST

START_TEST(resize_refuses)
{
    op_expect_error("Resize", 13, "r[2,3] - c{1,2,3}", "do not fit 2 axes");
    op_expect_error("Resize", 13, "r[2,3] - c{1,2} i{2,6}", "either scales or sizes");
    op_expect_error("Resize", 13, "r[2,3] - - -", "either scales or sizes");
    op_expect_error("Resize", 13, "r[2,3] - c{1,-2}", "scaled by -2");
    op_expect_error("Resize", 13, "r[2,3] - c{1,nan}", "scaled by nan");
    op_expect_error("Resize", 13, "r[2,3] - c{1,1e30}", "scaled by 1e+30");
    op_expect_error("Resize", 13, "r[2,0] - - i{2,3}", "axis 1 of 0 gets the size 3");
    op_expect_error("Resize", 13, "r[2,3] - - i{2,-3}", "gets the size -3");
    op_expect_error("Resize mode=linear", 13, "i[2,3]{1,2,3,4,5,6} - c{1,2}", "floating");
    op_expect_error("Resize mode=area", 13, "r[2,3] - c{1,2}", "mode is not known");
    op_expect_error("Resize nearest_mode=some", 13, "r[2,3] - c{1,2}", "nearest_mode");
    op_expect_error("Resize axes=[1,1]", 18, "r[2,3] - c{1,2}", "named twice");
    op_expect_error("Resize coordinate_transformation_mode=tf_crop_and_resize", 13,
                    "r[2,3] c{0,0.5,1,1} - i{2,3}", "cropped to its own size");
    op_expect_error("Upsample", 7, "r[2,3]", "either scales or sizes");
}
END_TEST

START_TEST(conv_transpose_gradients)
{
    CHECK({"ConvTranspose", 11, "r[$N,$C,3,4] w[$C,$M,3,2] w[$M]", 0},
          {"ConvTranspose strides=[2,3] pads=[1,0,1,2]", 11, "r[$N,$C,3,4] w[$C,2,3,3] w[2]", 0},
          {"ConvTranspose strides=[3,2] output_padding=[1,1] dilations=[2,1]", 11,
           "r[$N,2,3,2] w[2,$M,2,3] w[$M]", 0},
          {"ConvTranspose strides=[2,2] auto_pad=SAME_UPPER", 11, "r[$N,2,3,4] w[2,3,3,4] w[3]", 0},
          {"ConvTranspose strides=[2,2] auto_pad=SAME_LOWER", 11, "r[$N,2,3,4] w[2,3,3,5]", 0},
          {"ConvTranspose strides=[2,2] auto_pad=VALID", 11, "r[$N,2,3,4] w[2,3,3,5]", 0},
          {"ConvTranspose strides=[3,2] output_shape=[10,8]", 11, "r[$N,1,3,3] w[1,2,3,3]", 0},
          {"ConvTranspose strides=[3,2] output_shape=[8,4] auto_pad=SAME_UPPER", 11,
           "r[$N,1,3,3] w[1,2,3,3]", 0},
          {"ConvTranspose group=2 strides=[2,1]", 11, "r[$N,4,3,3] w[4,3,3,2] w[6]", 0},
          {"ConvTranspose group=3", 11, "r[$N,3,2,3] w[3,1,2,2] w[3]", 0},
          {"ConvTranspose strides=[2] pads=[1,0]", 1, "r[$N,$C,4] w[$C,$M,3] w[$M]", 0},
          {"ConvTranspose strides=[1,2,1] pads=[0,1,0,1,0,1]", 22, "r[1,2,2,3,2] w[2,2,2,3,2] w[2]",
           0});
}
END_TEST

/* More output channels than fit one block of the matrix. */
START_TEST(conv_transpose_blocks)
{
    static const OpCase cases[] = {{"ConvTranspose", 11, "r[1,1,12,12] w[1,2,9,10]", 0}};
    op_check_cases(cases, 1);
}
END_TEST

START_TEST(conv_transpose_values)
{
    op_expect("ConvTranspose", 11, "c[1,1,2]{1,10} c[1,2,2]{1,2,3,4} c{0,0.5}",
              "[1,2,3]{1,12,20,3.5,34.5,40.5}");
    op_expect("ConvTranspose strides=[2] output_padding=[1]", 11, "c[1,1,2]{1,10} c[1,1,2]{1,2}",
              "[1,1,5]{1,2,10,20,0}");
    op_expect("ConvTranspose group=2", 11, "c[1,2,1]{3,5} c[2,1,1]{2,7}", "[1,2,1]{6,35}");
}
END_TEST

START_TEST(conv_transpose_refuses)
{
    op_expect_error("ConvTranspose", 11, "r[1,3,4,4] r[2,3,3,3]", "3 input channels");
    op_expect_error("ConvTranspose", 11, "r[1,3,4,4] r[3,2,3,3] r[3]", "3 biases");
    op_expect_error("ConvTranspose", 11, "r[1,3] r[3,2]", "ranks");
    op_expect_error("ConvTranspose pads=[9,9]", 11, "r[1,3,4] r[3,2,3]", "would have");
    op_expect_error("ConvTranspose kernel_shape=[2]", 11, "r[1,3,4] r[3,2,3]", "kernel_shape");
    op_expect_error("ConvTranspose output_padding=[-1]", 11, "r[1,3,4] r[3,2,3]", "holds -1");
    op_expect_error("ConvTranspose output_shape=[0]", 11, "r[1,3,4] r[3,2,3]", "holds 0");
    op_expect_error("ConvTranspose strides=[2,2] output_shape=[4]", 11, "r[1,3,4,4] r[3,2,3,3]",
                    "output_shape has 1");
    op_expect_error("ConvTranspose group=2", 11, "r[1,3,4] r[3,2,3]", "2 groups");
    op_expect_error("ConvTranspose strides=[1,1,1,1]", 11, "r[1,3,4] r[3,2,3]", "spatial axes");
}
END_TEST

START_TEST(block_gradients)
{
    CHECK({"DepthToSpace blocksize=2", 13, "r[$N,8,2,$W]", 0},
          {"DepthToSpace blocksize=2 mode=CRD", 11, "r[$N,8,2,$W]", 0},
          {"DepthToSpace blocksize=3", 1, "r[$N,9,1,2]", 0},
          {"SpaceToDepth blocksize=2", 13, "r[$N,$C,4,2]", 0});
}
END_TEST

START_TEST(block_values)
{
    op_expect("DepthToSpace blocksize=2", 13, "i[1,8,1,1]{0,1,2,3,4,5,6,7}",
              "[1,2,2,2]{0,2,4,6,1,3,5,7}");
    op_expect("DepthToSpace blocksize=2 mode=CRD", 13, "i[1,8,1,1]{0,1,2,3,4,5,6,7}",
              "[1,2,2,2]{0,1,2,3,4,5,6,7}");
    op_expect("SpaceToDepth blocksize=2", 13, "i[1,2,2,2]{0,2,4,6,1,3,5,7}",
              "[1,8,1,1]{0,1,2,3,4,5,6,7}");
    op_expect_error("DepthToSpace blocksize=2", 13, "r[1,6,1,1]", "does not divide");
    op_expect_error("SpaceToDepth blocksize=2", 13, "r[1,6,1,2]", "does not divide");
    op_expect_error("SpaceToDepth", 13, "r[1,6,1,2]", "blocksize is 0");
    op_expect_error("DepthToSpace blocksize=2", 13, "r[1,8,1]", "rank 3");
    op_expect_error("DepthToSpace blocksize=2 mode=DRC", 13, "r[1,8,1,1]", "mode");
}
END_TEST

START_TEST(lp_pools)
{
    CHECK(
        {"LpPool kernel_shape=[2,3] strides=[2,1] pads=[1,1,0,1]", 11, "r[$N,$C,5,4]", 0},
        {"LpPool kernel_shape=[2] p=3 dilations=[2] ceil_mode=1 strides=[2]", 18, "r[$N,$C,6]", 0},
        {"LpPool kernel_shape=[2,2] p=1 auto_pad=SAME_UPPER", 2, "r[$N,1,3,3]", 0},
        {"GlobalLpPool", 2, "r[$N,$C,2,3]", 0}, {"GlobalLpPool p=3", 22, "r[$N,$C,4]", 0});
    op_expect("GlobalLpPool", 2, "c[1,1,2]{3,-4}", "[1,1,1]{5}");
    op_expect("LpPool kernel_shape=[2] p=1", 11, "c[1,1,3]{3,-4,1}", "[1,1,2]{7,5}");
    op_expect_gradient("GlobalLpPool", 2, "f[1,1,2]{0,0}", 0, "[1,1,2]{0,0}");
    op_expect_error("LpPool", 11, "r[1,1,3]", "kernel_shape");
    op_expect_error("GlobalLpPool p=0", 2, "r[1,1,3]", "p is 0");
    op_expect_error("GlobalLpPool", 2, "r[1,1,0]", "without elements");
}
END_TEST

OP_SUITE("ops_image", resize_gradients, resize_values, resize_refuses, conv_transpose_gradients,
         conv_transpose_blocks, conv_transpose_values, conv_transpose_refuses, block_gradients,
         block_values, lp_pools)
