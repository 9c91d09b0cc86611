/* Goal: what the options ask for, as numbers. Needs session_kinds where answers are given. */
#ifndef ONNXPRESS_PIPELINE_GOAL_H
#define ONNXPRESS_PIPELINE_GOAL_H

#include "pipeline/session.h"

bool goal_is_size(OnnxPressGoal goal);
/* Of an output: mean KL a row in nats, or for plain values the share of their variance. */
double goal_limit(const Session *session, const Answers *answers, int output);
/* How many times the goal's limit the answers are away: the worst output's, at most 1 where the
 * goal is met. For a KL it is the upper end of what the mean may be, as few rows were measured.
 * score: of the original and the result, for goals on accuracy. */
double goal_excess(const Session *session, const Answers *answers, const Distance *distance,
                   const Score score[2]);
/* Text for the report, such as "KL <= 0.001 nats". */
const char *goal_text(Session *session, const Answers *answers);

#endif
