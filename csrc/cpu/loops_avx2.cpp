// AVX2 + FMA + F16C: one mask byte per step.

#include "loops.h"

#ifdef LEAKYRELU_EXT_X86_TIERS

#include <immintrin.h>

#include "target.h"

LEAKYRELU_EXT_TARGET_BEGIN("avx,avx2,fma,f16c")

#include "loop_templates.h"

namespace leakyrelu_ext::cpu {
namespace {

struct FloatLanes {
  using scalar_t = float;
  using Bits = uint8_t;
  using Register = __m256;
  using Predicate = __m256;
  static constexpr int64_t width = 8;

  static Register load(const float* from) {
    return _mm256_loadu_ps(from);
  }
  static void store(float* to, Register r) {
    _mm256_storeu_ps(to, r);
  }
  static Predicate positive(Register r) {
    return _mm256_cmp_ps(r, _mm256_setzero_ps(), _CMP_GT_OQ);
  }
  static Bits to_bits(Predicate p) {
    return static_cast<Bits>(_mm256_movemask_ps(p));
  }
  static Predicate from_bits(Bits bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), bit), bit));
  }
  static Register scale_unless(Predicate p, Register r, float negative_slope) {
    return _mm256_blendv_ps(_mm256_mul_ps(r, _mm256_set1_ps(negative_slope)), r, p);
  }
};

struct HalfLanes : FloatLanes {
  using scalar_t = c10::Half;
  static Register load(const c10::Half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void store(c10::Half* to, Register r) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

struct BFloat16Lanes : FloatLanes {
  using scalar_t = c10::BFloat16;
  static Register load(const c10::BFloat16* from) {
    const __m128i r = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(r), 16));
  }
  static void store(c10::BFloat16* to, Register r) {
    // Round to nearest even in integers: add 0x7fff and the lowest kept bit. No NaN carries over into another number: the
    // only ones here have zeros in their low half.
    const __m256i bits = _mm256_castps_si256(r);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
    const __m256i result = _mm256_srli_epi32(rounded, 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(result, result), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
  }
};

struct DoubleLanes {
  using scalar_t = double;
  using Bits = uint8_t;
  struct Register {
    __m256d low, high;
  };
  using Predicate = Register;
  static constexpr int64_t width = 8;

  static Register load(const double* from) {
    return {_mm256_loadu_pd(from), _mm256_loadu_pd(from + 4)};
  }
  static void store(double* to, Register r) {
    _mm256_storeu_pd(to, r.low);
    _mm256_storeu_pd(to + 4, r.high);
  }
  static Predicate positive(Register r) {
    const __m256d zero = _mm256_setzero_pd();
    return {_mm256_cmp_pd(r.low, zero, _CMP_GT_OQ), _mm256_cmp_pd(r.high, zero, _CMP_GT_OQ)};
  }
  static Bits to_bits(Predicate p) {
    return static_cast<Bits>(_mm256_movemask_pd(p.low) | _mm256_movemask_pd(p.high) << 4);
  }
  static Predicate from_bits(Bits bits) {
    const __m256i all = _mm256_set1_epi64x(bits);
    const __m256i low = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i high = _mm256_setr_epi64x(16, 32, 64, 128);
    return {
        _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(all, low), low)),
        _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(all, high), high))};
  }
  static Register scale_unless(Predicate p, Register r, double negative_slope) {
    const __m256d slope = _mm256_set1_pd(negative_slope);
    return {
        _mm256_blendv_pd(_mm256_mul_pd(r.low, slope), r.low, p.low),
        _mm256_blendv_pd(_mm256_mul_pd(r.high, slope), r.high, p.high)};
  }
};

constexpr Tier kTier{
    "avx2", {loops_of<DoubleLanes>(), loops_of<FloatLanes>(), loops_of<HalfLanes>(), loops_of<BFloat16Lanes>()}};

} // namespace
} // namespace leakyrelu_ext::cpu

LEAKYRELU_EXT_TARGET_END

const leakyrelu_ext::cpu::Tier& leakyrelu_ext::cpu::avx2_tier() {
  return kTier;
}

#endif // LEAKYRELU_EXT_X86_TIERS
