#pragma once
// LEAKYRELU_EXT_TARGET_BEGIN("avx2,fma") … LEAKYRELU_EXT_TARGET_END: functions defined between may use those instructions.
// Per function, not per file (-mavx512f): a whole file compiled that way would also emit the inline functions of shared
// headers with those instructions, and the linker may keep that copy for every other file.

#define LEAKYRELU_EXT_PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define LEAKYRELU_EXT_TARGET_BEGIN(isa) \
  LEAKYRELU_EXT_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define LEAKYRELU_EXT_TARGET_END LEAKYRELU_EXT_PRAGMA(clang attribute pop)
#else
#define LEAKYRELU_EXT_TARGET_BEGIN(isa) LEAKYRELU_EXT_PRAGMA(GCC push_options) LEAKYRELU_EXT_PRAGMA(GCC target(isa))
#define LEAKYRELU_EXT_TARGET_END LEAKYRELU_EXT_PRAGMA(GCC pop_options)
#endif
