#pragma once
// Maps an element's number in the dense order to its offset in memory.

#include <cstdint>
#include <type_traits>

namespace leakyrelu_ext::cuda {

struct Dense {
  __device__ __forceinline__ int64_t operator()(int64_t number) const {
    return number;
  }
};

/// Division by multiplication (Granlund, Montgomery: Division by Invariant Integers using Multiplication, PLDI 1994,
/// figure 4.1), because GPUs have no division instruction. Numbers must be below half of Index's range, so that high +
/// number does not overflow.
template <typename Index>
class Divisor {
  using Product = std::conditional_t<sizeof(Index) == 4, uint64_t, unsigned __int128>;
  static constexpr int kBits = 8 * sizeof(Index);

 public:
  Divisor() = default;

  explicit Divisor(Index divisor) {
    while (Product{1} << shift_ < divisor) {
      ++shift_;
    }
    multiplier_ = static_cast<Index>((((Product{1} << shift_) - divisor) << kBits) / divisor + 1);
  }

  __device__ __forceinline__ Index divide(Index number) const {
    const auto high = static_cast<Index>(static_cast<Product>(number) * multiplier_ >> kBits);
    return (high + number) >> shift_;
  }

 private:
  Index multiplier_ = 0;
  uint32_t shift_ = 0;
};

/// A strided tensor. Index: uint32_t if all numbers and offsets are below 2^31, else uint64_t.
template <typename Index>
struct Strided {
  static constexpr int kMaxDims = 25; // as many as ATen's kernels take

  struct Dimension {
    Divisor<Index> divisor; // by the size
    Index size;
    Index stride;
  };

  Dimension dims[kMaxDims]; // innermost of the dense order first
  int last;                 // index of the last one in dims

  __device__ __forceinline__ Index operator()(int64_t number) const {
    auto rest = static_cast<Index>(number);
    Index offset = 0;
    for (int d = 0; d < last; ++d) {
      const Index quotient = dims[d].divisor.divide(rest);
      offset += (rest - quotient * dims[d].size) * dims[d].stride;
      rest = quotient;
    }
    return offset + rest * dims[last].stride;
  }
};

} // namespace leakyrelu_ext::cuda
