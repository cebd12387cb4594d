// AVX-512 F/BW/DQ/VL: a mask register is a piece of the mask.

#include "loops.h"

#ifdef LEAKYRELU_EXT_X86_TIERS

#include <immintrin.h>

#include "target.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized" // false alarms from GCC 12's own intrinsics headers (GCC bug 105593)
#endif

LEAKYRELU_EXT_TARGET_BEGIN("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")

#include "loop_templates.h"

namespace leakyrelu_ext::cpu {
namespace {

struct FloatLanes {
  using scalar_t = float;
  using Bits = uint16_t;
  using Register = __m512;
  using Predicate = __mmask16;
  static constexpr int64_t width = 16;

  static Register load(const float* from) {
    return _mm512_loadu_ps(from);
  }
  static void store(float* to, Register r) {
    _mm512_storeu_ps(to, r);
  }
  static Predicate positive(Register r) {
    return _mm512_cmp_ps_mask(r, _mm512_setzero_ps(), _CMP_GT_OQ);
  }
  static Bits to_bits(Predicate p) {
    return p;
  }
  static Predicate from_bits(Bits bits) {
    return bits;
  }
  static Register scale_unless(Predicate p, Register r, float negative_slope) {
    return _mm512_mask_mul_ps(r, _knot_mask16(p), r, _mm512_set1_ps(negative_slope));
  }
};

struct HalfLanes : FloatLanes {
  using scalar_t = c10::Half;
  static Register load(const c10::Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void store(c10::Half* to, Register r) {
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

struct BFloat16Lanes : FloatLanes {
  using scalar_t = c10::BFloat16;
  static Register load(const c10::BFloat16* from) {
    const __m256i r = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(r), 16));
  }
  static void store(c10::BFloat16* to, Register r) {
    // Round to nearest even in integers: add 0x7fff and the lowest kept bit. (avx512_bf16's own conversion would flush
    // subnormals.) No NaN carries over into another number: the only ones here have zeros in their low half.
    const __m512i bits = _mm512_castps_si512(r);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
    const __m512i result = _mm512_srli_epi32(rounded, 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(result));
  }
};

struct DoubleLanes {
  using scalar_t = double;
  using Bits = uint8_t;
  using Register = __m512d;
  using Predicate = __mmask8;
  static constexpr int64_t width = 8;

  static Register load(const double* from) {
    return _mm512_loadu_pd(from);
  }
  static void store(double* to, Register r) {
    _mm512_storeu_pd(to, r);
  }
  static Predicate positive(Register r) {
    return _mm512_cmp_pd_mask(r, _mm512_setzero_pd(), _CMP_GT_OQ);
  }
  static Bits to_bits(Predicate p) {
    return p;
  }
  static Predicate from_bits(Bits bits) {
    return bits;
  }
  static Register scale_unless(Predicate p, Register r, double negative_slope) {
    return _mm512_mask_mul_pd(r, _knot_mask8(p), r, _mm512_set1_pd(negative_slope));
  }
};

constexpr Tier kTier{
    "avx512", {loops_of<DoubleLanes>(), loops_of<FloatLanes>(), loops_of<HalfLanes>(), loops_of<BFloat16Lanes>()}};

} // namespace
} // namespace leakyrelu_ext::cpu

LEAKYRELU_EXT_TARGET_END

const leakyrelu_ext::cpu::Tier& leakyrelu_ext::cpu::avx512_tier() {
  return kTier;
}

#endif // LEAKYRELU_EXT_X86_TIERS
