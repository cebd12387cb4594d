// With AVX-512: float, bfloat16 computed in float, and random numbers.
// Include after setting the target instructions.

namespace leakyrelu_ext::cpu {
namespace {

template <typename Mask>
Mask first_bits(int64_t n) {
  return static_cast<Mask>((uint64_t(1) << n) - 1);
}

/// 16 elements of a 16-bit dtype as they are in memory.
struct HalfBits {
  static __m256i load(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static void store(void* to, __m256i r) {
    _mm256_storeu_si256(static_cast<__m256i*>(to), r);
  }
  static void stream(void* to, __m256i r) {
    _mm256_stream_si256(static_cast<__m256i*>(to), r);
  }
  static __m256i load_first(const void* from, int64_t n) {
    return _mm256_maskz_loadu_epi16(first_bits<__mmask16>(n), from);
  }
  static void store_first(void* to, __m256i r, int64_t n) {
    _mm256_mask_storeu_epi16(to, first_bits<__mmask16>(n), r);
  }
};

struct FloatLanes {
  using scalar_t = float;
  using Bits = uint16_t;
  using Register = __m512;
  using Predicate = __mmask16;
  using Slope = float;
  static constexpr int64_t width = 16;

  static Register load(const float* from) {
    return _mm512_loadu_ps(from);
  }
  static void store(float* to, Register r) {
    _mm512_storeu_ps(to, r);
  }
  static void stream(float* to, Register r) {
    _mm512_stream_ps(to, r);
  }
  static void finish_streaming() {
    _mm_sfence();
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
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    return _mm512_mask_mul_ps(r, _knot_mask16(p), r, _mm512_set1_ps(slope));
  }

  static Register load_opmath(const float* from) {
    return _mm512_loadu_ps(from);
  }
  static void store_opmath(float* to, Register r) {
    _mm512_storeu_ps(to, r);
  }
  static Register broadcast(float value) {
    return _mm512_set1_ps(value);
  }
  static Register add(Register a, Register b) {
    return _mm512_add_ps(a, b);
  }
  static Register multiply(Register a, Register b) {
    return _mm512_mul_ps(a, b);
  }
  static Predicate within(Register r, float bound) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(r), _mm512_set1_ps(bound), _CMP_LE_OQ);
  }
  static Register clamp(Register r, float bound) {
    // With a NaN operand, the result is the second one: NaN stays NaN.
    return _mm512_max_ps(_mm512_set1_ps(-bound), _mm512_min_ps(_mm512_set1_ps(bound), r));
  }
  static Register keep(Predicate p, Register r) {
    return _mm512_maskz_mov_ps(p, r);
  }
  static float sum(Register r) {
    return _mm512_reduce_add_ps(r);
  }

  static Register subtract(Register a, Register b) {
    return _mm512_sub_ps(a, b);
  }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  static Predicate above(Register r, float bound) {
    return _mm512_cmp_ps_mask(r, _mm512_set1_ps(bound), _CMP_GT_OQ);
  }
  static Register load_first(const float* from, int64_t n) {
    return _mm512_maskz_loadu_ps(first_bits<__mmask16>(n), from);
  }
  static void store_first(float* to, Register r, int64_t n) {
    _mm512_mask_storeu_ps(to, first_bits<__mmask16>(n), r);
  }
  static Register load_opmath_first(const float* from, int64_t n) {
    return load_first(from, n);
  }

  struct Wide {
    __m512d low, high;
  };
  static Wide widen(Register r) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(r)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(r, 1))};
  }
  static void add_to(Wide& sum, const Wide& w) {
    sum = {_mm512_add_pd(sum.low, w.low), _mm512_add_pd(sum.high, w.high)};
  }
  static double wide_sum(const Wide& sum) {
    return _mm512_reduce_add_pd(_mm512_add_pd(sum.low, sum.high));
  }
  static void store_wide(double* to, const Wide& sum) {
    _mm512_storeu_pd(to, sum.low);
    _mm512_storeu_pd(to + 8, sum.high);
  }
};

/// 16-bit elements computed in float.
struct WideBFloat16Lanes : FloatLanes {
  using scalar_t = c10::BFloat16;

  static __m256i round(Register r) {
    const __m512i bits = _mm512_castps_si512(r);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
    // Rounding could carry a NaN's payload into another number: use one NaN.
    const __mmask16 nan = _mm512_cmp_ps_mask(r, r, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000)), 16));
  }
  static Register spread(__m256i r) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(r), 16));
  }
  static Register load(const c10::BFloat16* from) {
    return spread(HalfBits::load(from));
  }
  static void store(c10::BFloat16* to, Register r) {
    HalfBits::store(to, round(r));
  }
  static void stream(c10::BFloat16* to, Register r) {
    HalfBits::stream(to, round(r));
  }
  static Register load_first(const c10::BFloat16* from, int64_t n) {
    return spread(HalfBits::load_first(from, n));
  }
  static void store_first(c10::BFloat16* to, Register r, int64_t n) {
    HalfBits::store_first(to, round(r), n);
  }
};

/// philox() for 16 counters. The compiler would use 64-bit multiplications (vpmullq), at three times the cost.
struct Random {
  struct Product {
    __m512i low, high;
  };

  static __m512i all(uint32_t value) {
    return _mm512_set1_epi32(static_cast<int>(value));
  }

  static Product multiply(__m512i counter, uint32_t multiplier) {
    const __m512i m = _mm512_set1_epi64(multiplier);
    const __m512i even = _mm512_mul_epu32(counter, m);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(counter, 32), m);
    constexpr __mmask16 odds = 0xAAAA;
    return {
        _mm512_mask_mov_epi32(even, odds, _mm512_slli_epi64(odd, 32)),
        _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), odds, odd)};
  }

  /// first_counter is a multiple of 16, so the lanes' numbers never carry.
  static void keep(uint64_t seed, uint64_t first_counter, uint32_t largest_kept, uint8_t* bits) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i c0 = _mm512_or_si512(all(static_cast<uint32_t>(first_counter)), lanes);
    __m512i c1 = all(static_cast<uint32_t>(first_counter >> 32));
    __m512i c2 = _mm512_setzero_si512(), c3 = c2;
    auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const Product one = multiply(c0, kPhiloxMultiplier0);
      const Product other = multiply(c2, kPhiloxMultiplier1);
      c0 = _mm512_xor_si512(_mm512_xor_si512(other.high, c1), all(key0));
      c2 = _mm512_xor_si512(_mm512_xor_si512(one.high, c3), all(key1));
      c1 = other.low;
      c3 = one.low;
      key0 += kPhiloxKeyStep0;
      key1 += kPhiloxKeyStep1;
    }
    const __m512i limit = all(largest_kept);
    const uint16_t kept[4] = {
        _mm512_cmple_epu32_mask(c0, limit), _mm512_cmple_epu32_mask(c1, limit), _mm512_cmple_epu32_mask(c2, limit),
        _mm512_cmple_epu32_mask(c3, limit)};
    std::memcpy(bits, kept, sizeof(kept));
  }
};

} // namespace
} // namespace leakyrelu_ext::cpu
