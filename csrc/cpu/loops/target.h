#pragma once
// Functions between LEAKYRELU_EXT_TARGET_BEGIN("avx2,fma") and LEAKYRELU_EXT_TARGET_END may use those instructions. Not
// a compiler option for the file (-mavx512f): the inline functions of shared headers would use them, too, and the
// linker may keep that copy for all files.

#define LEAKYRELU_EXT_PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define LEAKYRELU_EXT_TARGET_BEGIN(isa) \
  LEAKYRELU_EXT_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define LEAKYRELU_EXT_TARGET_END LEAKYRELU_EXT_PRAGMA(clang attribute pop)
#else
#define LEAKYRELU_EXT_TARGET_BEGIN(isa) LEAKYRELU_EXT_PRAGMA(GCC push_options) LEAKYRELU_EXT_PRAGMA(GCC target(isa))
#define LEAKYRELU_EXT_TARGET_END LEAKYRELU_EXT_PRAGMA(GCC pop_options)
#endif
