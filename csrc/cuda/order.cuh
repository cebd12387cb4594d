#pragma once
// Where a kernel finds the elements of a tensor: from an element's number in the dense order to its offset in memory.

#include <cstdint>
#include <type_traits>

namespace leakyrelu_ext::cuda {

/// The dense order itself.
struct Dense {
  __device__ __forceinline__ int64_t operator()(int64_t number) const {
    return number;
  }
};

/// Division by multiplication (Granlund, Montgomery: Division by Invariant Integers using Multiplication, PLDI 1994, figure 4.1): a
/// GPU has no instruction for it. For numbers below 2^31: then high + number stays below 2^32.
class Divisor {
 public:
  Divisor() = default;

  explicit Divisor(uint32_t divisor) {
    while (shift_ < 32 && uint64_t{1} << shift_ < divisor) {
      ++shift_;
    }
    multiplier_ = static_cast<uint32_t>((((uint64_t{1} << shift_) - divisor) << 32) / divisor + 1);
  }

  __device__ __forceinline__ uint32_t divide(uint32_t number) const {
    const auto high = static_cast<uint32_t>(static_cast<uint64_t>(number) * multiplier_ >> 32);
    return (high + number) >> shift_;
  }

 private:
  uint32_t multiplier_ = 0;
  uint32_t shift_ = 0;
};

/// The same for any number.
class WideDivisor {
 public:
  WideDivisor() = default;

  explicit WideDivisor(uint64_t divisor) : divisor_(divisor) {}

  __device__ __forceinline__ uint64_t divide(uint64_t number) const {
    return number / divisor_;
  }

 private:
  uint64_t divisor_ = 1;
};

/// A strided tensor. Index: uint32_t if all numbers and offsets are below 2^31, else uint64_t.
template <typename Index>
struct Strided {
  static constexpr int kMaxDims = 25; // as many as ATen's kernels take

  struct Dimension {
    std::conditional_t<sizeof(Index) == 4, Divisor, WideDivisor> divisor; // by the size
    Index size;
    Index stride;
  };

  Dimension dims[kMaxDims]; // innermost of the dense order first
  int last;                 // of dims

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
