#pragma once
// The table of inner loops that each instruction-set tier supplies. Free of ATen.

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>
#include <tuple>

#include "../../element/activation.h"
#include "../../element/philox.h"
#include "norm_leaky_relu.h"

namespace leakyrelu_ext::cpu {

/// How results reach memory. kStreaming bypasses the caches, which avoids reading the old contents of each line first.
enum class Stores : bool { kCached, kStreaming };

/// The alignment in bytes that streaming stores need.
constexpr uintptr_t kStreamingAlignment = 64;

/// Rows of n consecutive elements each. The mask has no gaps between rows: with several rows, n is a multiple of
/// kMaskBits.
struct Rows {
  int64_t n;
  int64_t count = 1;
  int64_t input_step = 0; // elements from one row to the next
  int64_t output_step = 0;
};

/// Per-channel values along consecutive elements: none, one for all of them, or one for each.
enum class PerChannel { kNone, kConstant, kArray };
constexpr int kPerChannelKinds = 3;

/// bias_leaky_relu over n consecutive elements, the first of which begins a mask byte. Unused pointers are nullptr.
template <typename T>
struct BiasLeakyReLUForwardRun {
  const T* input;
  const opmath_t<T>* bias; // kConstant: one value, kArray: n
  const T* residual;
  const uint8_t* kept; // dropout's bits
  T* output;           // may be input
  uint8_t* mask;
  uint8_t* passed;
  int64_t n;
};

template <typename T>
struct BiasLeakyReLUBackwardRun {
  const T* grad_output;
  const uint8_t* mask;
  const uint8_t* passed;
  T* grad_input;     // may be grad_output
  opmath_t<T>* sums; // grad_input is added to them; kConstant: one value, kArray: n
  int64_t n;
};

template <typename T>
using BiasLeakyReLUForwardLoop = void (*)(
    const BiasLeakyReLUForwardRun<T>& run, const BiasLeakyReLUConstants<opmath_t<T>>& constants, Stores stores);
template <typename T>
using BiasLeakyReLUBackwardLoop =
    void (*)(const BiasLeakyReLUBackwardRun<T>& run, opmath_t<T> negative_slope, opmath_t<T> gain, Stores stores);

/// output may be input, grad_input may be grad_output. With Stores::kStreaming, results need kStreamingAlignment; other
/// pointers need no alignment. The forward's mask may be nullptr.
template <typename T>
struct Loops {
  void (*forward)(const T* input, T* output, uint8_t* mask, Rows rows, opmath_t<T> negative_slope, Stores stores);
  void (*backward)(
      const T* grad_output, const uint8_t* mask, T* grad_input, Rows rows, opmath_t<T> negative_slope, Stores stores);
  /// Copies rows of elements that are `stride` apart to consecutive elements.
  void (*gather)(const T* from, int64_t stride, T* to, Rows rows);
  /// Indices: the kind of bias, whether there is a residual, whether elements may be clamped or dropped.
  BiasLeakyReLUForwardLoop<T> bias_leaky_relu_forward[kPerChannelKinds][2][2];
  /// Indices: the kind of sums, whether elements may have been clamped or dropped.
  BiasLeakyReLUBackwardLoop<T> bias_leaky_relu_backward[kPerChannelKinds][2];
  /// Where statistics are one value for a row, and where each element of a row has its own.
  NormLoops<T> norm_of_rows, norm_of_columns;
  opmath_t<T> (*sum)(const opmath_t<T>* values, int64_t n);
  /// Sets the bits of the elements that dropout keeps, for `spans` spans of kDropoutSpan elements from `first_span` on.
  void (*keep)(uint64_t seed, int64_t first_span, int64_t spans, uint32_t largest_kept, uint8_t* bits);
};

/// Elements whose random numbers are drawn together.
constexpr int64_t kDropoutSpan = 64;

struct Tier {
  const char* name;
  std::tuple<Loops<double>, Loops<float>, Loops<c10::Half>, Loops<c10::BFloat16>> loops;
};

const Tier& generic_tier();
#if defined(__x86_64__) && defined(__GNUC__)
#define LEAKYRELU_EXT_X86_TIERS
const Tier& avx2_tier();
const Tier& avx512_tier();
const Tier& avx512_bf16_tier();
#elif defined(__aarch64__) && defined(__GNUC__)
#define LEAKYRELU_EXT_NEON_TIER
const Tier& neon_tier();
#endif

} // namespace leakyrelu_ext::cpu
