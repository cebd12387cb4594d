// Parts of a row that one register holds: all of its elements, or at a row's end the first few. Lanes may have
//   load_first(const scalar_t*, n), store_first(scalar_t*, Register, n), load_opmath_first(const opmath*, n):
// those of n elements; what a load does not reach is 0. Other lanes get there by way of an array.
// Include after setting the target instructions.

namespace leakyrelu_ext::cpu {
namespace {

template <class Lanes>
constexpr auto has_first(const typename Lanes::scalar_t* none) -> decltype(Lanes::load_first(none, 0), bool()) {
  return true;
}
template <class Lanes>
constexpr bool has_first(const void* /*none*/) {
  return false;
}
template <class Lanes>
constexpr bool kHasFirst = has_first<Lanes>(static_cast<const typename Lanes::scalar_t*>(nullptr));

/// Not std::copy_n, whose compiled copies the tiers would share.
template <typename T>
void copy_first(const T* from, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) {
    to[i] = from[i];
  }
}

template <class Lanes>
typename Lanes::Register load_opmath_first(const opmath_t<typename Lanes::scalar_t>* from, int64_t n) {
  if constexpr (kHasFirst<Lanes>) {
    return Lanes::load_opmath_first(from, n);
  } else {
    opmath_t<typename Lanes::scalar_t> values[Lanes::width] = {};
    copy_first(from, n, values);
    return Lanes::load_opmath(values);
  }
}

template <class Lanes>
struct Whole {
  using T = typename Lanes::scalar_t;
  using Register = typename Lanes::Register;
  using Predicate = typename Lanes::Predicate;

  static constexpr int64_t count() {
    return Lanes::width;
  }
  static Register load(const T* from) {
    return Lanes::load(from);
  }
  static void store(Stores stores, T* to, const Register& r) {
    store_as<Lanes>(stores, to, r);
  }
  static Predicate load_bits(const uint8_t* mask, int64_t at) {
    return cpu::load_bits<Lanes>(mask, at);
  }
  static void store_bits(uint8_t* mask, int64_t at, const Predicate& predicate) {
    cpu::store_bits<Lanes>(mask, at, predicate);
  }
  /// 0 for the elements that are not there.
  static const Register& keep(const Register& r) {
    return r;
  }
};

/// Streaming stores are for rows without such an end.
template <class Lanes>
struct First {
  using T = typename Lanes::scalar_t;
  using Register = typename Lanes::Register;
  using Predicate = typename Lanes::Predicate;
  using Bits = typename Lanes::Bits;

  int64_t n; // 1 … width - 1

  int64_t count() const {
    return n;
  }
  Register load(const T* from) const {
    if constexpr (kHasFirst<Lanes>) {
      return Lanes::load_first(from, n);
    } else {
      T values[Lanes::width] = {};
      copy_first(from, n, values);
      return Lanes::load(values);
    }
  }
  void store(Stores /*stores*/, T* to, const Register& r) const {
    if constexpr (kHasFirst<Lanes>) {
      Lanes::store_first(to, r, n);
    } else {
      T values[Lanes::width];
      Lanes::store(values, r);
      copy_first(values, n, to);
    }
  }
  Bits bits_there() const {
    return static_cast<Bits>((uint64_t(1) << n) - 1);
  }
  Predicate load_bits(const uint8_t* mask, int64_t at) const {
    Bits bits = 0;
    std::memcpy(&bits, mask + at / kMaskBits, static_cast<size_t>(mask_bytes(n)));
    return Lanes::from_bits(bits);
  }
  void store_bits(uint8_t* mask, int64_t at, const Predicate& predicate) const {
    const auto bits = static_cast<Bits>(Lanes::to_bits(predicate) & bits_there());
    std::memcpy(mask + at / kMaskBits, &bits, static_cast<size_t>(mask_bytes(n)));
  }
  Register keep(const Register& r) const {
    return Lanes::keep(Lanes::from_bits(bits_there()), r);
  }
};

/// Calls step(first element, part) for all parts of a row of n elements.
template <class Lanes, typename Step>
void for_each_part(int64_t n, bool downwards, const Step& step) {
  const int64_t end = for_each_register<Lanes>(n, downwards, [&](int64_t at) { step(at, Whole<Lanes>()); });
  if (end < n) {
    step(end, First<Lanes>{n - end});
  }
}

} // namespace
} // namespace leakyrelu_ext::cpu
