// NEON (every aarch64 has it): one mask byte per step.

#include "loops.h"

#ifdef LEAKYRELU_EXT_NEON_TIER

#include <arm_neon.h>

#include "templates.h"

namespace leakyrelu_ext::cpu {
namespace {

/// Shared by all lanes here: eight elements, and no streaming stores (NEON has no intrinsic for them).
template <class Derived, typename T>
struct EightLanes {
  using scalar_t = T;
  using Bits = uint8_t;
  using Slope = opmath_t<T>;
  static constexpr int64_t width = 8;

  template <typename Register>
  static void stream(T* to, const Register& r) {
    Derived::store(to, r);
  }
  static void finish_streaming() {}
};

struct FloatLanes : EightLanes<FloatLanes, float> {
  struct Register {
    float32x4_t low, high;
  };
  struct Predicate {
    uint32x4_t low, high;
  };

  static Register load(const float* from) {
    return {vld1q_f32(from), vld1q_f32(from + 4)};
  }
  static void store(float* to, const Register& r) {
    vst1q_f32(to, r.low);
    vst1q_f32(to + 4, r.high);
  }
  static Predicate positive(const Register& r) {
    return {vcgtzq_f32(r.low), vcgtzq_f32(r.high)};
  }
  static Bits to_bits(const Predicate& p) {
    constexpr uint16_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    return static_cast<Bits>(vaddvq_u16(vandq_u16(vcombine_u16(vmovn_u32(p.low), vmovn_u32(p.high)), vld1q_u16(bit))));
  }
  static Predicate from_bits(Bits bits) {
    constexpr uint32_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint32x4_t all = vdupq_n_u32(bits);
    return {vtstq_u32(all, vld1q_u32(bit)), vtstq_u32(all, vld1q_u32(bit + 4))};
  }
  static Register scale_unless(const Predicate& p, const Register& r, Slope slope) {
    return {vbslq_f32(p.low, r.low, vmulq_n_f32(r.low, slope)), vbslq_f32(p.high, r.high, vmulq_n_f32(r.high, slope))};
  }

  static Register load_opmath(const float* from) {
    return load(from);
  }
  static void store_opmath(float* to, const Register& r) {
    store(to, r);
  }
  static Register broadcast(float value) {
    return {vdupq_n_f32(value), vdupq_n_f32(value)};
  }
  static Register add(const Register& a, const Register& b) {
    return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
  }
  static Register multiply(const Register& a, const Register& b) {
    return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
  }
  static Predicate within(const Register& r, float bound) {
    const float32x4_t limit = vdupq_n_f32(bound);
    return {vcleq_f32(vabsq_f32(r.low), limit), vcleq_f32(vabsq_f32(r.high), limit)};
  }
  static Register clamp(const Register& r, float bound) {
    const float32x4_t low = vdupq_n_f32(-bound), high = vdupq_n_f32(bound);
    return {vmaxq_f32(low, vminq_f32(high, r.low)), vmaxq_f32(low, vminq_f32(high, r.high))};
  }
  static Register keep(const Predicate& p, const Register& r) {
    return {
        vreinterpretq_f32_u32(vandq_u32(p.low, vreinterpretq_u32_f32(r.low))),
        vreinterpretq_f32_u32(vandq_u32(p.high, vreinterpretq_u32_f32(r.high)))};
  }
  static float sum(const Register& r) {
    return vaddvq_f32(vaddq_f32(r.low, r.high));
  }

  static Register subtract(const Register& a, const Register& b) {
    return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)};
  }
  static Register multiply_add(const Register& a, const Register& b, const Register& c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
  }
  static Predicate above(const Register& r, float bound) {
    const float32x4_t limit = vdupq_n_f32(bound);
    return {vcgtq_f32(r.low, limit), vcgtq_f32(r.high, limit)};
  }

  struct Wide {
    float64x2_t value[4];
  };
  static Wide widen(const Register& r) {
    return {
        vcvt_f64_f32(vget_low_f32(r.low)), vcvt_high_f64_f32(r.low), vcvt_f64_f32(vget_low_f32(r.high)),
        vcvt_high_f64_f32(r.high)};
  }
  static void add_to(Wide& sum, const Wide& w) {
    for (int j = 0; j < 4; ++j) {
      sum.value[j] = vaddq_f64(sum.value[j], w.value[j]);
    }
  }
  static double wide_sum(const Wide& sum) {
    return vaddvq_f64(vaddq_f64(vaddq_f64(sum.value[0], sum.value[1]), vaddq_f64(sum.value[2], sum.value[3])));
  }
  static void store_wide(double* to, const Wide& sum) {
    for (int j = 0; j < 4; ++j) {
      vst1q_f64(to + 2 * j, sum.value[j]);
    }
  }
};

/// 16-bit elements computed in float.
struct WideHalfLanes : FloatLanes {
  using scalar_t = c10::Half;

  static Register load(const c10::Half* from) {
    const float16x8_t x = vreinterpretq_f16_u16(vld1q_u16(reinterpret_cast<const uint16_t*>(from)));
    return {vcvt_f32_f16(vget_low_f16(x)), vcvt_f32_f16(vget_high_f16(x))};
  }
  static void store(c10::Half* to, const Register& r) {
    const float16x8_t x = vcombine_f16(vcvt_f16_f32(r.low), vcvt_f16_f32(r.high));
    vst1q_u16(reinterpret_cast<uint16_t*>(to), vreinterpretq_u16_f16(x));
  }
  static void stream(c10::Half* to, const Register& r) {
    store(to, r);
  }
};

struct WideBFloat16Lanes : FloatLanes {
  using scalar_t = c10::BFloat16;

  static uint16x4_t round(float32x4_t r) {
    const uint32x4_t bits = vreinterpretq_u32_f32(r);
    const uint32x4_t lsb = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(lsb, vdupq_n_u32(0x7fff)));
    // Rounding could carry a NaN's payload into another number: use one NaN.
    return vshrn_n_u32(vbslq_u32(vceqq_f32(r, r), rounded, vdupq_n_u32(0x7fc00000)), 16);
  }
  static Register load(const c10::BFloat16* from) {
    const uint16x8_t x = vld1q_u16(reinterpret_cast<const uint16_t*>(from));
    return {
        vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(x), 16)),
        vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(x), 16))};
  }
  static void store(c10::BFloat16* to, const Register& r) {
    vst1q_u16(reinterpret_cast<uint16_t*>(to), vcombine_u16(round(r.low), round(r.high)));
  }
  static void stream(c10::BFloat16* to, const Register& r) {
    store(to, r);
  }
};

/// Eight elements of a 16-bit dtype, kept as in memory; only scaled values are computed in float.
template <class Derived, typename T, int16_t infinity>
struct RawHalfLanes : EightLanes<Derived, T> {
  using Register = uint16x8_t;
  using Predicate = uint16x8_t;
  using typename EightLanes<Derived, T>::Bits;

  static Register load(const T* from) {
    return vld1q_u16(reinterpret_cast<const uint16_t*>(from));
  }
  static void store(T* to, Register r) {
    vst1q_u16(reinterpret_cast<uint16_t*>(to), r);
  }
  static Predicate positive(Register r) {
    const int16x8_t x = vreinterpretq_s16_u16(r);
    return vandq_u16(vcgtzq_s16(x), vcleq_s16(x, vdupq_n_s16(infinity)));
  }
  static Bits to_bits(Predicate p) {
    constexpr uint16_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    return static_cast<Bits>(vaddvq_u16(vandq_u16(p, vld1q_u16(bit))));
  }
  static Predicate from_bits(Bits bits) {
    constexpr uint16_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    return vtstq_u16(vdupq_n_u16(bits), vld1q_u16(bit));
  }
};

struct HalfLanes : RawHalfLanes<HalfLanes, c10::Half, 0x7c00> {
  static float16x4_t scale(float16x4_t r, Slope slope) {
    return vcvt_f16_f32(vmulq_n_f32(vcvt_f32_f16(r), slope));
  }
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    const float16x8_t x = vreinterpretq_f16_u16(r);
    const float16x8_t scaled = vcombine_f16(scale(vget_low_f16(x), slope), scale(vget_high_f16(x), slope));
    return vbslq_u16(p, r, vreinterpretq_u16_f16(scaled));
  }
};

struct BFloat16Lanes : RawHalfLanes<BFloat16Lanes, c10::BFloat16, 0x7f80> {
  static uint16x4_t scale(uint16x4_t r, Slope slope) {
    const float32x4_t x = vreinterpretq_f32_u32(vshll_n_u16(r, 16));
    // Round to nearest, ties to even. NaN stays NaN: here its lower half is zero, so nothing carries.
    const uint32x4_t bits = vreinterpretq_u32_f32(vmulq_n_f32(x, slope));
    const uint32x4_t lsb = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vshrn_n_u32(vaddq_u32(bits, vaddq_u32(lsb, vdupq_n_u32(0x7fff))), 16);
  }
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    return vbslq_u16(p, r, vcombine_u16(scale(vget_low_u16(r), slope), scale(vget_high_u16(r), slope)));
  }
};

struct DoubleLanes : EightLanes<DoubleLanes, double> {
  struct Register {
    float64x2_t value[4];
  };
  struct Predicate {
    uint64x2_t value[4];
  };

  static Register load(const double* from) {
    return {vld1q_f64(from), vld1q_f64(from + 2), vld1q_f64(from + 4), vld1q_f64(from + 6)};
  }
  static void store(double* to, const Register& r) {
    for (int j = 0; j < 4; ++j) {
      vst1q_f64(to + 2 * j, r.value[j]);
    }
  }
  static Predicate positive(const Register& r) {
    return {vcgtzq_f64(r.value[0]), vcgtzq_f64(r.value[1]), vcgtzq_f64(r.value[2]), vcgtzq_f64(r.value[3])};
  }
  static Bits to_bits(const Predicate& p) {
    return FloatLanes::to_bits(
        {vcombine_u32(vmovn_u64(p.value[0]), vmovn_u64(p.value[1])),
         vcombine_u32(vmovn_u64(p.value[2]), vmovn_u64(p.value[3]))});
  }
  static Predicate from_bits(Bits bits) {
    constexpr uint64_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint64x2_t all = vdupq_n_u64(bits);
    return {
        vtstq_u64(all, vld1q_u64(bit)), vtstq_u64(all, vld1q_u64(bit + 2)), vtstq_u64(all, vld1q_u64(bit + 4)),
        vtstq_u64(all, vld1q_u64(bit + 6))};
  }
  static Register scale_unless(const Predicate& p, const Register& r, Slope slope) {
    Register scaled;
    for (int j = 0; j < 4; ++j) {
      scaled.value[j] = vbslq_f64(p.value[j], r.value[j], vmulq_n_f64(r.value[j], slope));
    }
    return scaled;
  }

  template <typename Compute>
  static Register each(const Compute& compute) {
    return {compute(0), compute(1), compute(2), compute(3)};
  }
  static Register load_opmath(const double* from) {
    return load(from);
  }
  static void store_opmath(double* to, const Register& r) {
    store(to, r);
  }
  static Register broadcast(double value) {
    return each([&](int) { return vdupq_n_f64(value); });
  }
  static Register add(const Register& a, const Register& b) {
    return each([&](int j) { return vaddq_f64(a.value[j], b.value[j]); });
  }
  static Register multiply(const Register& a, const Register& b) {
    return each([&](int j) { return vmulq_f64(a.value[j], b.value[j]); });
  }
  static Predicate within(const Register& r, double bound) {
    const float64x2_t limit = vdupq_n_f64(bound);
    const auto one = [&](int j) { return vcleq_f64(vabsq_f64(r.value[j]), limit); };
    return {one(0), one(1), one(2), one(3)};
  }
  static Register clamp(const Register& r, double bound) {
    const float64x2_t low = vdupq_n_f64(-bound), high = vdupq_n_f64(bound);
    return each([&](int j) { return vmaxq_f64(low, vminq_f64(high, r.value[j])); });
  }
  static Register keep(const Predicate& p, const Register& r) {
    return each([&](int j) { return vreinterpretq_f64_u64(vandq_u64(p.value[j], vreinterpretq_u64_f64(r.value[j]))); });
  }
  static double sum(const Register& r) {
    return vaddvq_f64(vaddq_f64(vaddq_f64(r.value[0], r.value[1]), vaddq_f64(r.value[2], r.value[3])));
  }

  static Register subtract(const Register& a, const Register& b) {
    return each([&](int j) { return vsubq_f64(a.value[j], b.value[j]); });
  }
  static Register multiply_add(const Register& a, const Register& b, const Register& c) {
    return each([&](int j) { return vfmaq_f64(c.value[j], a.value[j], b.value[j]); });
  }
  static Predicate above(const Register& r, double bound) {
    const float64x2_t limit = vdupq_n_f64(bound);
    const auto one = [&](int j) { return vcgtq_f64(r.value[j], limit); };
    return {one(0), one(1), one(2), one(3)};
  }

  using Wide = Register;
  static Wide widen(const Register& r) {
    return r;
  }
  static void add_to(Wide& sum, const Wide& w) {
    sum = add(sum, w);
  }
  static double wide_sum(const Wide& wide) {
    return sum(wide);
  }
  static void store_wide(double* to, const Wide& wide) {
    store(to, wide);
  }
};

} // namespace

const Tier& neon_tier() {
  static constexpr Tier tier{
      "neon",
      {loops_of<DoubleLanes, DoubleLanes>(), loops_of<FloatLanes, FloatLanes>(), loops_of<HalfLanes, WideHalfLanes>(),
       loops_of<BFloat16Lanes, WideBFloat16Lanes>()}};
  return tier;
}

} // namespace leakyrelu_ext::cpu

#endif // LEAKYRELU_EXT_NEON_TIER
