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

START_TEST(unpools)
{
    CHECK({"MaxPool kernel_shape=[2,2] strides=[2,1]", 12, "d[$N,$C,4,5]", 2},
          {"MaxPool kernel_shape=[3] pads=[1,1] storage_order=1", 8, "d[$N,$C,6]", 2},
          {"MaxUnpool kernel_shape=[2,2] strides=[2,2]", 11,
           "r[1,2,2,2] i[1,2,2,2]{0,3,8,10,17,18,25,31}", 0},
          {"MaxUnpool kernel_shape=[2] strides=[1] pads=[0,1]", 9, "r[1,2,2] i[1,2,2]{0,0,2,3}", 0},
          {"MaxUnpool kernel_shape=[2,2] strides=[2,2]", 22,
           "r[1,1,2,2] i[1,1,2,2]{5,7,13,15} i{1,1,5,6}", 0});
}
END_TEST

START_TEST(folds)
{
    CHECK({"Col2Im", 18, "r[$N,8,4] i{3,3} i{2,2}", 0},
          {"Col2Im strides=[2,1] pads=[1,0,1,2] dilations=[1,2]", 18, "r[$N,12,8] i{4,4} i{3,2}",
           0},
          {"Col2Im", 18, "r[2,$C,5] i{5} i{1}", 0},
          {"Col2Im", 18, "r[1,8,2] i{2,2,3} i{2,2,2}", 0});
    op_expect("Col2Im", 18, "c[1,2,2]{1,2,10,20} i{3} i{2}", "[1,1,3]{1,12,20}");
    op_expect_error("Col2Im", 18, "r[1,3,2] i{3} i{2}", "3 rows of 2 blocks, for 2 taps and 2");
    op_expect_error("Col2Im", 18, "r[1,2,2] i{3,3} i{2}", "do not fit");
    op_expect_error("Col2Im", 18, "r[1,2,2] i{-3} i{2}", "holds -3");
    op_expect_error("Col2Im", 18, "r[1,2,2] i{3} i{0}", "kernel 0");
    op_expect_error("Col2Im", 18, "r[1,2,2] i{2,2,2,2} i{1,1,1,1}", "rank 6");
}
END_TEST

START_TEST(unpool_values)
{
    op_expect("MaxPool kernel_shape=[2,2]", 12, "c[1,2,2,2]{1,2,3,0,5,9,7,8}",
              "[1,2,1,1]{3,9} [1,2,1,1]{2,5}");
    op_expect("MaxPool kernel_shape=[2,2] storage_order=1", 12, "c[1,2,2,2]{1,2,3,0,5,9,7,8}",
              "[1,2,1,1]{3,9} [1,2,1,1]{1,6}");
    op_expect("MaxUnpool kernel_shape=[2] strides=[2]", 11, "c[1,1,2]{5,6} i[1,1,2]{1,2}",
              "[1,1,4]{0,5,6,0}");
    op_expect("MaxUnpool kernel_shape=[2] strides=[2]", 11, "c[1,1,2]{5,6} i[1,1,2]{1,2} i{1,1,5}",
              "[1,1,5]{0,5,6,0,0}");
    op_expect_gradient("MaxUnpool kernel_shape=[2] strides=[1]", 11, "f[1,1,2]{5,6} i[1,1,2]{1,1}",
                       0, "[1,1,2]{0,1}");
    op_expect_error("MaxPool kernel_shape=[2]", 12, "i[1,1,2]{1,2}", "floating");
    op_expect_error("MaxUnpool kernel_shape=[2]", 11, "r[1,1,2] i[1,1,2]{1,3}", "index 3 of 3");
    op_expect_error("MaxUnpool kernel_shape=[2]", 11, "r[1,1,2] i[1,1,2]{-1,0}", "index -1");
    op_expect_error("MaxUnpool kernel_shape=[2]", 11, "r[1,1,2] i[1,1,2]{0,1} i{1,1,2}",
                    "output_shape");
    op_expect_error("MaxUnpool kernel_shape=[2] pads=[9,9]", 11, "r[1,1,2] i[1,1,2]{0,1}",
                    "not possible");
    op_expect_error("MaxUnpool", 11, "r[1,1,2] i[1,1,2]{0,1}", "kernel_shape");
}
END_TEST

START_TEST(grid_samples)
{
    CHECK({"GridSample", 20, "r[$N,$C,3,4] r[$N,2,$W,2]", 0},
          {"GridSample align_corners=1 padding_mode=border", 20, "r[$N,$C,3,4] r[$N,2,$W,2]", 0},
          {"GridSample padding_mode=reflection", 16, "r[$N,$C,3,4] r[$N,2,$W,2]", 0},
          {"GridSample mode=bicubic", 16, "r[$N,$C,5,4] r[$N,2,$W,2]", 0},
          {"GridSample mode=cubic padding_mode=border align_corners=1", 20,
           "r[$N,$C,3,4] r[$N,2,$W,2]", 0},
          {"GridSample mode=cubic padding_mode=reflection", 22, "r[$N,$C,3,4] r[$N,2,$W,2]", 0},
          {"GridSample mode=nearest padding_mode=reflection align_corners=1", 22,
           "r[$N,$C,3,4] r[$N,2,$W,2]", 0},
          {"GridSample", 22, "r[$N,2,3,2,4] r[$N,1,2,$W,3]", 0},
          {"GridSample padding_mode=border", 22, "r[$N,2,5] r[$N,4,1]", 0});
    op_expect("GridSample align_corners=1", 20, "c[1,1,3]{1,3,7} c[1,4,1]{-1,0.5,1,1.5}",
              "[1,1,4]{1,5,7,3.5}");
    op_expect("GridSample padding_mode=border", 20, "c[1,1,2]{1,3} c[1,4,1]{-9,9,nan,inf}",
              "[1,1,4]{1,3,1,3}");
    op_expect("GridSample padding_mode=reflection align_corners=1", 20,
              "c[1,1,1]{4} c[1,3,1]{-9,0,1e30}", "[1,1,3]{4,4,4}");
    op_expect("GridSample", 20, "c[1,1,2]{1,3} c[1,0,1]{}", "[1,1,0]{}");
    op_expect_error("GridSample", 20, "r[1,1,2,2] r[1,1,1,3]", "grid does not fit");
    op_expect_error("GridSample", 20, "r[2,1,2,2] r[1,1,1,2]", "grid does not fit");
    op_expect_error("GridSample", 20, "r[2,2] r[2,0]", "rank 2");
    op_expect_error("GridSample", 20, "r[1,1,0] r[1,1,1]", "0 elements");
    op_expect_error("GridSample mode=bilinear", 20, "r[1,1,2] r[1,1,1]", "not known");
    op_expect_error("GridSample mode=linear", 16, "r[1,1,2] r[1,1,1]", "not known");
}
END_TEST

START_TEST(affine_grids)
{
    CHECK({"AffineGrid", 20, "r[2,2,3] i{2,1,2,3}", 0},
          {"AffineGrid align_corners=1", 20, "r[2,2,3] i{2,1,2,3}", 0},
          {"AffineGrid align_corners=1", 20, "r[1,3,4] i{1,5,2,1,2}", 0});
    op_expect("AffineGrid", 20, "c[1,2,3]{1,0,0,0,1,5} i{1,1,1,2}", "[1,1,2,2]{-0.5,5,0.5,5}");
    op_expect("AffineGrid align_corners=1", 20, "c[1,2,3]{1,0,0,0,1,5} i{1,1,1,2}",
              "[1,1,2,2]{-1,5,1,5}");
    op_expect_error("AffineGrid", 20, "r[1,2,3] i{1,1,2}", "does not fit");
    op_expect_error("AffineGrid", 20, "r[1,2,3] i{1,1}", "2 numbers");
    op_expect_error("AffineGrid", 20, "r[1,2,3] i{1,1,2,-2}", "not possible");
}
END_TEST

#define BOXES " c[2,4]{0.2,0.3,3.1,2.6,1,-0.5,5.5,3} i{1,0}"
START_TEST(roi_aligns)
{
    CHECK({"RoiAlign output_height=2 output_width=3", 16, "r[2,$C,4,5]" BOXES, 0},
          {"RoiAlign output_height=2 sampling_ratio=3 spatial_scale=0.7", 10, "r[2,$C,4,5]" BOXES,
           0},
          {"RoiAlign output_width=2 coordinate_transformation_mode=output_half_pixel", 22,
           "r[2,$C,4,5]" BOXES, 0},
          {"RoiAlign mode=max output_width=2", 16, "r[2,$C,4,5]" BOXES, 0});
    op_expect("RoiAlign sampling_ratio=1", 10, "c[1,1,2,2]{1,3,5,9} c[1,4]{0,0,1,1} i{0}",
              "[1,1,1,1]{4.5}");
    op_expect("RoiAlign", 16, "c[1,1,2,2]{1,3,5,9} c[2,4]{1,1,1,1,9,9,11,11} i{0,0}",
              "[2,1,1,1]{0,0}");
    op_expect_error("RoiAlign", 16, "r[1,1,2,2] c[1,4]{0,0,1,1} i{1}", "image 1 of 1");
    op_expect_error("RoiAlign", 16, "r[1,1,2,2] c[1,4]{0,0,1,1} i{0,0}", "do not fit");
    op_expect_error("RoiAlign", 16, "r[1,1,2,2] c[1,4]{0,0,1e9,1} i{0}", "too large");
    op_expect_error("RoiAlign", 16, "r[1,1,2,2] c[1,4]{0,0,nan,1} i{0}", "too large");
    op_expect_error("RoiAlign", 16, "r[1,1,2,2] c[1,4]{0,0,9000,9000} i{0}", "too large");
    op_expect_error("RoiAlign output_height=0", 16, "r[1,1,2,2] c[1,4]{0,0,1,1} i{0}", "bins");
    op_expect_error("RoiAlign mode=min", 16, "r[1,1,2,2] c[1,4]{0,0,1,1} i{0}", "not known");
}
END_TEST

OP_SUITE("ops_image", resize_gradients, resize_values, resize_refuses, conv_transpose_gradients,
         conv_transpose_blocks, conv_transpose_values, conv_transpose_refuses, block_gradients,
         block_values, lp_pools, unpools, folds, unpool_values, grid_samples, affine_grids,
         roi_aligns)
