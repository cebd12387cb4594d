// The tier without intrinsics: eight elements at a time, in the vectors of the compiler's baseline.

#include "loops.h"

#include "templates.h"

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

  using opmath = opmath_t<T>;

  template <typename Compute>
  static Register each(const Compute& compute) {
    Register r;
    for (int64_t j = 0; j < width; ++j) {
      r.value[j] = compute(j);
    }
    return r;
  }

  static Register load_opmath(const opmath* from) {
    return each([&](int64_t j) { return from[j]; });
  }

  static void store_opmath(opmath* to, const Register& r) {
    std::memcpy(to, r.value, sizeof(r.value));
  }

  static Register broadcast(opmath value) {
    return each([&](int64_t) { return value; });
  }

  static Register add(const Register& a, const Register& b) {
    return each([&](int64_t j) { return a.value[j] + b.value[j]; });
  }

  static Register multiply(const Register& a, const Register& b) {
    return each([&](int64_t j) { return a.value[j] * b.value[j]; });
  }

  static Predicate within(const Register& r, opmath bound) {
    Predicate p;
    for (int64_t j = 0; j < width; ++j) {
      p.value[j] = r.value[j] >= -bound && r.value[j] <= bound;
    }
    return p;
  }

  static Register clamp(const Register& r, opmath bound) {
    return each([&](int64_t j) {
      const opmath below = r.value[j] > bound ? bound : r.value[j];
      return below < -bound ? -bound : below;
    });
  }

  static Register keep(const Predicate& p, const Register& r) {
    return each([&](int64_t j) { return p.value[j] ? r.value[j] : opmath(0); });
  }

  static opmath sum(const Register& r) {
    opmath total = 0;
    for (int64_t j = 0; j < width; ++j) {
      total += r.value[j];
    }
    return total;
  }

  static Register subtract(const Register& a, const Register& b) {
    return each([&](int64_t j) { return a.value[j] - b.value[j]; });
  }

  static Register multiply_add(const Register& a, const Register& b, const Register& c) {
    return each([&](int64_t j) { return a.value[j] * b.value[j] + c.value[j]; });
  }

  static Predicate above(const Register& r, opmath bound) {
    Predicate p;
    for (int64_t j = 0; j < width; ++j) {
      p.value[j] = r.value[j] > bound;
    }
    return p;
  }

  struct WideSums {
    double value[kMaskBits];
  };
  using Wide = std::conditional_t<std::is_same_v<T, double>, Register, WideSums>;

  static Wide widen(const Register& r) {
    Wide wide;
    for (int64_t j = 0; j < width; ++j) {
      wide.value[j] = static_cast<double>(r.value[j]);
    }
    return wide;
  }

  static void add_to(Wide& sum, const Wide& w) {
    for (int64_t j = 0; j < width; ++j) {
      sum.value[j] += w.value[j];
    }
  }

  static double wide_sum(const Wide& sum) {
    double total = 0;
    for (int64_t j = 0; j < width; ++j) {
      total += sum.value[j];
    }
    return total;
  }

  static void store_wide(double* to, const Wide& sum) {
    std::memcpy(to, sum.value, sizeof(sum.value));
  }
};

template <typename T>
constexpr Loops<T> generic_loops() {
  return loops_of<GenericLanes<T>, GenericLanes<T>>();
}

} // namespace

const Tier& generic_tier() {
  static constexpr Tier tier{
      "generic",
      {generic_loops<double>(), generic_loops<float>(), generic_loops<c10::Half>(), generic_loops<c10::BFloat16>()}};
  return tier;
}

} // namespace leakyrelu_ext::cpu
