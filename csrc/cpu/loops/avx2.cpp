// AVX2 + FMA + F16C: one or two mask bytes per register.

#include "loops.h"

#ifdef LEAKYRELU_EXT_X86_TIERS

#include <immintrin.h>

#include "target.h"

LEAKYRELU_EXT_TARGET_BEGIN("avx,avx2,fma,f16c")

#include "templates.h"

namespace leakyrelu_ext::cpu {
namespace {

struct FloatLanes {
  using scalar_t = float;
  using Bits = uint8_t;
  using Register = __m256;
  using Predicate = __m256;
  using Slope = float;
  static constexpr int64_t width = 8;

  static Register load(const float* from) {
    return _mm256_loadu_ps(from);
  }
  static void store(float* to, Register r) {
    _mm256_storeu_ps(to, r);
  }
  static void stream(float* to, Register r) {
    _mm256_stream_ps(to, r);
  }
  static void finish_streaming() {
    _mm_sfence();
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
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    return _mm256_blendv_ps(_mm256_mul_ps(r, _mm256_set1_ps(slope)), r, p);
  }

  static Register load_opmath(const float* from) {
    return _mm256_loadu_ps(from);
  }
  static void store_opmath(float* to, Register r) {
    _mm256_storeu_ps(to, r);
  }
  static Register broadcast(float value) {
    return _mm256_set1_ps(value);
  }
  static Register add(Register a, Register b) {
    return _mm256_add_ps(a, b);
  }
  static Register multiply(Register a, Register b) {
    return _mm256_mul_ps(a, b);
  }
  static Predicate within(Register r, float bound) {
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), r);
    return _mm256_cmp_ps(magnitude, _mm256_set1_ps(bound), _CMP_LE_OQ);
  }
  static Register clamp(Register r, float bound) {
    // With a NaN operand, the result is the second one: NaN stays NaN.
    return _mm256_max_ps(_mm256_set1_ps(-bound), _mm256_min_ps(_mm256_set1_ps(bound), r));
  }
  static Register keep(Predicate p, Register r) {
    return _mm256_and_ps(p, r);
  }
  static float sum(Register r) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(r), _mm256_extractf128_ps(r, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }

  static Register subtract(Register a, Register b) {
    return _mm256_sub_ps(a, b);
  }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  static Predicate above(Register r, float bound) {
    return _mm256_cmp_ps(r, _mm256_set1_ps(bound), _CMP_GT_OQ);
  }

  struct Wide {
    __m256d low, high;
  };
  static Wide widen(Register r) {
    return {_mm256_cvtps_pd(_mm256_castps256_ps128(r)), _mm256_cvtps_pd(_mm256_extractf128_ps(r, 1))};
  }
  static void add_to(Wide& sum, const Wide& w) {
    sum = {_mm256_add_pd(sum.low, w.low), _mm256_add_pd(sum.high, w.high)};
  }
  static double wide_sum(const Wide& sum) {
    const __m256d four = _mm256_add_pd(sum.low, sum.high);
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  }
  static void store_wide(double* to, const Wide& sum) {
    _mm256_storeu_pd(to, sum.low);
    _mm256_storeu_pd(to + 4, sum.high);
  }
};

/// 16-bit elements computed in float.
template <typename T>
struct WideLanes : FloatLanes {
  using scalar_t = T;

  static __m128i load_bits(const T* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  static void store_bits(T* to, __m128i bits) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bits);
  }
  static void stream_bits(T* to, __m128i bits) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), bits);
  }
};

struct WideHalfLanes : WideLanes<c10::Half> {
  static Register load(const c10::Half* from) {
    return _mm256_cvtph_ps(load_bits(from));
  }
  static void store(c10::Half* to, Register r) {
    store_bits(to, _mm256_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT));
  }
  static void stream(c10::Half* to, Register r) {
    stream_bits(to, _mm256_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT));
  }
};

struct WideBFloat16Lanes : WideLanes<c10::BFloat16> {
  static __m128i round(Register r) {
    const __m256i bits = _mm256_castps_si256(r);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
    // Rounding could carry a NaN's payload into another number: use one NaN.
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(r, r, _CMP_UNORD_Q));
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
  }
  static Register load(const c10::BFloat16* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_bits(from)), 16));
  }
  static void store(c10::BFloat16* to, Register r) {
    store_bits(to, round(r));
  }
  static void stream(c10::BFloat16* to, Register r) {
    stream_bits(to, round(r));
  }
};

/// 16 elements of a 16-bit dtype, kept as in memory; only scaled values are computed in float.
template <typename T, int16_t infinity>
struct RawHalfLanes {
  using scalar_t = T;
  using Bits = uint16_t;
  using Register = __m256i;
  using Predicate = __m256i;
  using Slope = float;
  static constexpr int64_t width = 16;

  static Register load(const T* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(T* to, Register r) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), r);
  }
  static void stream(T* to, Register r) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), r);
  }
  static void finish_streaming() {
    _mm_sfence();
  }
  static Predicate positive(Register r) {
    // The bit patterns 1 … infinity are positive. Adding `bound` wraps positive NaN to negative integers and moves zero
    // to `bound`.
    const __m256i bound = _mm256_set1_epi16(0x7fff - infinity);
    return _mm256_cmpgt_epi16(_mm256_add_epi16(r, bound), bound);
  }
  static Bits to_bits(Predicate p) {
    return static_cast<Bits>(
        _mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(p), _mm256_extracti128_si256(p, 1))));
  }
  static Predicate from_bits(Bits bits) {
    const __m256i bit = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(static_cast<int16_t>(bits)), bit), bit);
  }
};

struct HalfLanes : RawHalfLanes<c10::Half, 0x7c00> {
  static __m128i scale(__m128i r, Slope slope) {
    return _mm256_cvtps_ph(_mm256_mul_ps(_mm256_cvtph_ps(r), _mm256_set1_ps(slope)), _MM_FROUND_TO_NEAREST_INT);
  }
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    const __m128i low = scale(_mm256_castsi256_si128(r), slope);
    const __m128i high = scale(_mm256_extracti128_si256(r, 1), slope);
    return _mm256_blendv_epi8(_mm256_set_m128i(high, low), r, p);
  }
};

struct BFloat16Lanes : RawHalfLanes<c10::BFloat16, 0x7f80> {
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    // A bfloat16 is the upper half of a float: a shift and a mask spread even and odd elements, without crossing lanes.
    const __m256 factor = _mm256_set1_ps(slope);
    const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(r, 16));
    const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(r, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
    const __m256i even_scaled = _mm256_castps_si256(_mm256_mul_ps(even, factor));
    const __m256i odd_scaled = _mm256_castps_si256(_mm256_mul_ps(odd, factor));
    const __m256i upper = _mm256_blend_epi16(_mm256_srli_epi32(even_scaled, 16), odd_scaled, 0b10101010);
    const __m256i lower = _mm256_blend_epi16(even_scaled, _mm256_slli_epi32(odd_scaled, 16), 0b10101010);
    // Round to nearest, ties to even: up if lower + lsb > 0x8000 (compared as signed integers, both sides minus
    // 0x8000). NaN stays NaN: here its lower half is zero, so nothing carries.
    const __m256i lsb = _mm256_and_si256(upper, _mm256_set1_epi16(1));
    const __m256i above = _mm256_adds_epi16(_mm256_xor_si256(lower, _mm256_set1_epi16(-0x8000)), lsb);
    const __m256i up = _mm256_cmpgt_epi16(above, _mm256_setzero_si256());
    return _mm256_blendv_epi8(_mm256_sub_epi16(upper, up), r, p);
  }
};

struct DoubleLanes {
  using scalar_t = double;
  using Bits = uint8_t;
  struct Register {
    __m256d low, high;
  };
  using Predicate = Register;
  using Slope = double;
  static constexpr int64_t width = 8;

  static Register load(const double* from) {
    return {_mm256_loadu_pd(from), _mm256_loadu_pd(from + 4)};
  }
  static void store(double* to, Register r) {
    _mm256_storeu_pd(to, r.low);
    _mm256_storeu_pd(to + 4, r.high);
  }
  static void stream(double* to, Register r) {
    _mm256_stream_pd(to, r.low);
    _mm256_stream_pd(to + 4, r.high);
  }
  static void finish_streaming() {
    _mm_sfence();
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
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    const __m256d factor = _mm256_set1_pd(slope);
    return {
        _mm256_blendv_pd(_mm256_mul_pd(r.low, factor), r.low, p.low),
        _mm256_blendv_pd(_mm256_mul_pd(r.high, factor), r.high, p.high)};
  }

  static Register load_opmath(const double* from) {
    return load(from);
  }
  static void store_opmath(double* to, Register r) {
    store(to, r);
  }
  static Register broadcast(double value) {
    return {_mm256_set1_pd(value), _mm256_set1_pd(value)};
  }
  static Register add(Register a, Register b) {
    return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
  }
  static Register multiply(Register a, Register b) {
    return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
  }
  static Predicate within(Register r, double bound) {
    const __m256d sign = _mm256_set1_pd(-0.0), limit = _mm256_set1_pd(bound);
    return {
        _mm256_cmp_pd(_mm256_andnot_pd(sign, r.low), limit, _CMP_LE_OQ),
        _mm256_cmp_pd(_mm256_andnot_pd(sign, r.high), limit, _CMP_LE_OQ)};
  }
  static Register clamp(Register r, double bound) {
    const __m256d low = _mm256_set1_pd(-bound), high = _mm256_set1_pd(bound);
    return {_mm256_max_pd(low, _mm256_min_pd(high, r.low)), _mm256_max_pd(low, _mm256_min_pd(high, r.high))};
  }
  static Register keep(Predicate p, Register r) {
    return {_mm256_and_pd(p.low, r.low), _mm256_and_pd(p.high, r.high)};
  }
  static double sum(Register r) {
    const __m256d four = _mm256_add_pd(r.low, r.high);
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  }

  static Register subtract(Register a, Register b) {
    return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
  }
  static Register multiply_add(Register a, Register b, Register c) {
    return {_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
  }
  static Predicate above(Register r, double bound) {
    const __m256d limit = _mm256_set1_pd(bound);
    return {_mm256_cmp_pd(r.low, limit, _CMP_GT_OQ), _mm256_cmp_pd(r.high, limit, _CMP_GT_OQ)};
  }

  using Wide = Register;
  static Wide widen(const Register& r) {
    return r;
  }
  static void add_to(Wide& sum, const Wide& w) {
    sum = add(sum, w);
  }
  static double wide_sum(Wide wide) {
    return sum(wide);
  }
  static void store_wide(double* to, Wide wide) {
    store(to, wide);
  }
};

constexpr Tier kTier{
    "avx2",
    {loops_of<DoubleLanes, DoubleLanes>(), loops_of<FloatLanes, FloatLanes>(), loops_of<HalfLanes, WideHalfLanes>(),
     loops_of<BFloat16Lanes, WideBFloat16Lanes>()}};

} // namespace
} // namespace leakyrelu_ext::cpu

LEAKYRELU_EXT_TARGET_END

const leakyrelu_ext::cpu::Tier& leakyrelu_ext::cpu::avx2_tier() {
  return kTier;
}

#endif // LEAKYRELU_EXT_X86_TIERS
