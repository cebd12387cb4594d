#pragma once
// Counter-based random numbers: an element's number depends only on the seed and the element, not on threads.

#include <c10/macros/Macros.h>

#include <cstdint>

namespace leakyrelu_ext {

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53, kPhiloxMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kPhiloxKeyStep0 = 0x9E3779B9, kPhiloxKeyStep1 = 0xBB67AE85;

struct Random4 {
  uint32_t value[4];
};

/// Philox4x32-10 (Salmon et al.: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011).
C10_HOST_DEVICE inline Random4 philox(uint64_t seed, uint64_t offset, uint64_t index) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  Random4 counter{
      {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(offset),
       static_cast<uint32_t>(offset >> 32)}};
  auto& c = counter.value;
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * c[0];
    const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * c[2];
    c[0] = static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ key0;
    c[1] = static_cast<uint32_t>(product1);
    c[2] = static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ key1;
    c[3] = static_cast<uint32_t>(product0);
    key0 += kPhiloxKeyStep0;
    key1 += kPhiloxKeyStep1;
  }
  return counter;
}

/// An element is kept if its random number is below this.
inline uint64_t keep_threshold(double dropout_p) {
  return static_cast<uint64_t>((1 - dropout_p) * 4294967296.0);
}

} // namespace leakyrelu_ext
