// The tier without intrinsics: eight elements at a time, in whatever vectors the compiler's baseline has.

#include "loops.h"

#include "loop_templates.h"

namespace leakyrelu_ext::cpu {
namespace {

template <typename T>
struct GenericLanes {
  using scalar_t = T;
  using Bits = uint8_t;
  struct Register {
    opmath_t<T> value[kMaskBits];
  };
  struct Predicate {
    bool value[kMaskBits];
  };
  using Slope = opmath_t<T>;
  static constexpr int64_t width = kMaskBits;

  static Register load(const T* from) {
    Register r;
    for (int64_t j = 0; j < width; ++j) {
      r.value[j] = static_cast<opmath_t<T>>(from[j]);
    }
    return r;
  }

  static void store(T* to, const Register& r) {
    for (int64_t j = 0; j < width; ++j) {
      to[j] = static_cast<T>(r.value[j]);
    }
  }

  static void stream(T* to, const Register& r) {
    store(to, r); // plain C++ has no store past the caches
  }

  static void finish_streaming() {}

  static Predicate positive(const Register& r) {
    Predicate p;
    for (int64_t j = 0; j < width; ++j) {
      p.value[j] = is_positive(r.value[j]);
    }
    return p;
  }

  static Bits to_bits(const Predicate& p) {
    unsigned bits = 0;
    for (int64_t j = 0; j < width; ++j) {
      bits |= static_cast<unsigned>(p.value[j]) << j;
    }
    return static_cast<Bits>(bits);
  }

  static Predicate from_bits(Bits bits) {
    Predicate p;
    for (int64_t j = 0; j < width; ++j) {
      p.value[j] = bits >> j & 1;
    }
    return p;
  }

  static Register scale_unless(const Predicate& p, const Register& r, Slope negative_slope) {
    Register scaled;
    for (int64_t j = 0; j < width; ++j) {
      scaled.value[j] = leakyrelu_ext::scale_unless(p.value[j], r.value[j], negative_slope);
    }
    return scaled;
  }
};

} // namespace

const Tier& generic_tier() {
  static constexpr Tier tier{
      "generic",
      {loops_of<GenericLanes<double>>(), loops_of<GenericLanes<float>>(), loops_of<GenericLanes<c10::Half>>(),
       loops_of<GenericLanes<c10::BFloat16>>()}};
  return tier;
}

} // namespace leakyrelu_ext::cpu
