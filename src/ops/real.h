/* The executor's floating type. The product computes in float32; the tests compile `ops`,
 * `autodiff`, `importance` and `finetune` a second time with -DONNXPRESS_F64, so that gradients can
 * be held against central differences. Who is compiled once must not be linked with the second. */
#ifndef ONNXPRESS_OPS_REAL_H
#define ONNXPRESS_OPS_REAL_H

#include <math.h>

#ifdef ONNXPRESS_F64
typedef double real;
#define REAL_GEMM cblas_dgemm
#define REAL_SYRK cblas_dsyrk
#define REAL_GEMV cblas_dgemv
#define REAL_EXP exp
#define REAL_LOG log
#define REAL_TANH tanh
#define REAL_SQRT sqrt
#define REAL_POW pow
#define REAL_ERF erf
#define REAL_ABS fabs
#define REAL_FLOOR floor
#define REAL_CEIL ceil
#define REAL_RINT rint
#define REAL_FMOD fmod
#define REAL_SIN sin
#define REAL_COS cos
#define REAL_LOG1P log1p
#define REAL_EXPM1 expm1
#define REAL_TAN tan
#define REAL_SINH sinh
#define REAL_COSH cosh
#define REAL_ASIN asin
#define REAL_ACOS acos
#define REAL_ATAN atan
#define REAL_ASINH asinh
#define REAL_ACOSH acosh
#define REAL_ATANH atanh
#else
typedef float real;
#define REAL_GEMM cblas_sgemm
#define REAL_SYRK cblas_ssyrk
#define REAL_GEMV cblas_sgemv
#define REAL_EXP expf
#define REAL_LOG logf
#define REAL_TANH tanhf
#define REAL_SQRT sqrtf
#define REAL_POW powf
#define REAL_ERF erff
#define REAL_ABS fabsf
#define REAL_FLOOR floorf
#define REAL_CEIL ceilf
#define REAL_RINT rintf
#define REAL_FMOD fmodf
#define REAL_SIN sinf
#define REAL_COS cosf
#define REAL_LOG1P log1pf
#define REAL_EXPM1 expm1f
#define REAL_TAN tanf
#define REAL_SINH sinhf
#define REAL_COSH coshf
#define REAL_ASIN asinf
#define REAL_ACOS acosf
#define REAL_ATAN atanf
#define REAL_ASINH asinhf
#define REAL_ACOSH acoshf
#define REAL_ATANH atanhf
#endif

#endif
