#pragma once
// Counters of leakyrelu_ext.stats(). Relaxed, as they order nothing.

#include <atomic>
#include <cstdint>

namespace leakyrelu_ext::stats {

inline std::atomic<int64_t> backward_calls{0};
inline std::atomic<int64_t> backward_into_grad_output{0};
inline std::atomic<int64_t> installed_calls{0};
inline std::atomic<int64_t> huge_page_requests{0};
inline std::atomic<int64_t> streaming_calls{0};

inline void count(std::atomic<int64_t>& counter) {
  counter.fetch_add(1, std::memory_order_relaxed);
}

} // namespace leakyrelu_ext::stats
