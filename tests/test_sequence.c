/* SPDX-License-Identifier: Apache-2.0 */
#include "op_harness.h"

START_TEST(gradients)
{
    CHECK({"SequenceConstruct", 11, "r[$A,2] r[] r[3,$B]", 0},
          {"SequenceAt", 11, "q[2,3]+[$A]+[] i[]{1}", 0},
          {"SequenceAt", 11, "q[2,3]+[$A]+[] i[]{-3}", 0},
          {"SequenceInsert", 11, "q[2]+[3,$A] r[$B]", 0},
          {"SequenceInsert", 11, "q[2]+[3,$A] r[$B,2] i[]{0}", 0},
          {"SequenceInsert", 11, "q[2]+[3,$A] r[] i[]{-1}", 0},
          {"SequenceInsert", 11, "q+ r[$B,2]", 0},
          {"SequenceErase", 11, "q[2]+[3,$A]+[]", 0},
          {"SequenceErase", 11, "q[2]+[3,$A]+[] i[]{0}", 0},
          {"SplitToSequence", 11, "r[3,$B]", 0},
          {"SplitToSequence axis=1 keepdims=0", 11, "r[$A,3,$B]", 0},
          {"SplitToSequence axis=-1 keepdims=0", 11, "r[$A,5] i[]{2}", 0},
          {"SplitToSequence axis=1", 11, "r[$A,5,2] i[3]{1,0,4}", 0},
          {"ConcatFromSequence axis=1", 11, "q[$A,2]+[$A,0]+[$A,3]", 0},
          {"ConcatFromSequence axis=-1 new_axis=1", 11, "q[$A,2]+[$A,2]+[$A,2]", 0},
          {"ConcatFromSequence axis=0 new_axis=1", 11, "q[]+[]", 0});
}
END_TEST

START_TEST(values)
{
    op_expect("SequenceConstruct", 11, "i{1,2} i[]{3}", "{1,2,3}");
    op_expect("SequenceEmpty dtype=7", 11, "", "{}");
    op_expect("SequenceLength", 11, "q[2]+[0]+[]", "[]{3}");
    op_expect("SequenceLength", 11, "q+", "[]{0}");
    op_expect("SplitToSequence axis=1", 11, "i[2,3]{1,2,3,4,5,6} i[]{2}", "{1,2,4,5,3,6}");
    op_expect("SplitToSequence axis=1", 11, "i[2,0]{}", "{}");
}
END_TEST

START_TEST(refuses)
{
    op_expect_error("SequenceAt", 11, "q[2] i[]{1}", "position 1 of 1");
    op_expect_error("SequenceAt", 11, "q[2] i[]{-2}", "position -1 of 1");
    op_expect_error("SequenceAt", 11, "q[2]", "position -1");
    op_expect_error("SequenceAt", 11, "q[2] i{0,1}", "not one number");
    op_expect_error("SequenceAt", 11, "r[2] i[]{0}", "no sequence");
    op_expect_error("SequenceAt", 11, "- i[]{0}", "no sequence");
    op_expect_error("SequenceErase", 11, "q+", "position -1 of 0");
    op_expect_error("SequenceInsert", 11, "q[2] r[2] i[]{2}", "position 2 of 2");
    op_expect_error("SequenceInsert", 11, "q[2] i{2}", "are of");
    op_expect_error("SequenceInsert", 11, "q[2] q[2]", "no tensor");
    op_expect_error("SequenceConstruct", 11, "r[2] i{2}", "are of");
    op_expect_error("SplitToSequence", 11, "r[3] i[]{0}", "pieces of 0");
    op_expect_error("SplitToSequence", 11, "r[3] i[2]{1,1}", "pieces of 2 from 3");
    op_expect_error("SplitToSequence", 11, "r[3] i[2]{4,-1}", "a piece of -1");
    op_expect_error("SplitToSequence axis=1", 11, "r[3]", "axis 1");
    op_expect_error("ConcatFromSequence axis=0", 11, "q+", "empty");
    op_expect_error("ConcatFromSequence axis=0", 11, "q[2]+[2,1]", "do not fit");
    op_expect_error("ConcatFromSequence axis=0", 11, "q[2,1]+[2,3]", "do not fit");
    op_expect_error("ConcatFromSequence axis=0 new_axis=1", 11, "q[2]+[3]", "do not fit");
}
END_TEST

OP_SUITE("sequence", gradients, values, refuses)
