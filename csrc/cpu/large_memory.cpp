#include "large_memory.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "../stats.h"

namespace leakyrelu_ext::cpu {
namespace {

#ifdef __linux__

constexpr size_t kHugePage = size_t{2} << 20; // on x86-64, and on aarch64 with 4 KiB pages
/// The smallest block that always contains a whole huge page; writing a fresh one takes 0.26 instead of 1.09 ms.
constexpr size_t kAdvisedBytes = 2 * kHugePage;
/// From this size on, blocks begin at a huge page: without small pages at its ends, a fresh output of 64 MiB takes a
/// tenth less time. Below it, the ceiling of its dynamic M_MMAP_THRESHOLD, glibc uses the heap, where alignment would
/// leave holes.
constexpr size_t kAlignedBytes = size_t{32} << 20;

bool huge_pages_wanted() {
  static const bool wanted = [] {
    std::string setting = std::getenv("LEAKYRELU_EXT_HUGE_PAGES") ? std::getenv("LEAKYRELU_EXT_HUGE_PAGES") : "";
    std::transform(setting.begin(), setting.end(), setting.begin(), [](unsigned char c) { return std::tolower(c); });
    return setting != "0" && setting != "false" && setting != "no" &&
        setting != "off"; // as for LEAKYRELU_EXT_REQUIRE_NATIVE
  }();
  return wanted;
}

uintptr_t page_size() {
  static const auto size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return size;
}

/// True if the page is backed by memory. If not, the first store makes the kernel zero it in the caches.
bool is_resident(uintptr_t address) {
  unsigned char resident = 0;
  return mincore(reinterpret_cast<void*>(address / page_size() * page_size()), 1, &resident) == 0 &&
      (resident & 1) != 0;
}

/// Allocates large blocks and asks the kernel for huge pages. Not built on PyTorch's own allocator: it frees only its
/// own blocks (on aarch64 it is mimalloc), and cannot align to huge pages.
struct HugePageAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    void* data = allocate_aligned(c10::gAlignment, nbytes);
    if (nbytes >= kAlignedBytes && !is_resident(reinterpret_cast<uintptr_t>(data) + nbytes / 2)) {
      std::free(data);
      data = allocate_aligned(kHugePage, nbytes);
    }
    if (nbytes >= kAdvisedBytes) { // smaller only if a storage is resized
      // Fails where the kernel has no huge pages, which does no harm.
      const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page_size() - 1) / page_size() * page_size();
      const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + nbytes) / page_size() * page_size();
      if (madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE) == 0) {
        stats::count(stats::huge_page_requests);
      }
    }
    c10::profiledCPUMemoryReporter().New(data, nbytes);
    return {data, data, &release, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }

  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  static void release(void* data) {
    if (data != nullptr) {
      c10::profiledCPUMemoryReporter().Delete(data);
      std::free(data);
    }
  }

  static void* allocate_aligned(size_t alignment, size_t nbytes) {
    void* data = nullptr;
    if (nbytes != 0 && posix_memalign(&data, alignment, nbytes) != 0) {
      c10::profiledCPUMemoryReporter().OutOfMemory(nbytes);
      TORCH_CHECK(false, "leakyrelu_ext: can't allocate memory: you tried to allocate ", nbytes, " bytes");
    }
    return data;
  }
};

/// The size of the L3 cache that one core can use. Not sysconf(_SC_LEVEL3_CACHE_SIZE): on some processors glibc returns
/// the size of a whole socket.
size_t level3_bytes() {
  static const size_t bytes = [] {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
    size_t kibibytes = 0;
    char unit = 0;
    return file >> kibibytes >> unit && unit == 'K' ? kibibytes << 10 : size_t{32} << 20;
  }();
  return bytes;
}

/// LEAKYRELU_EXT_STREAM_BYTES, or 0 if it is not set.
size_t wished_streaming_bytes() {
  static const size_t bytes = [] {
    const char* wish = std::getenv("LEAKYRELU_EXT_STREAM_BYTES");
    if (wish == nullptr || *wish == '\0') {
      return size_t{0};
    }
    size_t number = 0;
    const char* end = wish + std::strlen(wish);
    const auto [rest, error] = std::from_chars(wish, end, number);
    TORCH_CHECK_VALUE(
        error == std::errc() && rest == end && number > 0,
        "environment variable LEAKYRELU_EXT_STREAM_BYTES must be a positive number of bytes, got '", wish, "'");
    return number;
  }();
  return bytes;
}

/// Results of this size do not fit into the caches anyway. One L3 cache per eight threads: a machine has one for eight
/// cores or more, and a virtual machine may report one that it shares.
size_t streaming_bytes() {
  const size_t wished = wished_streaming_bytes();
  return wished != 0 ? wished : level3_bytes() * std::max<size_t>(1, at::get_num_threads() / 8);
}

#endif // __linux__

} // namespace

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
#ifdef __linux__
  const size_t nbytes = at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype));
  const bool default_allocator =
      c10::GetCPUAllocator() == c10::GetDefaultCPUAllocator(); // else somebody has set another: use that one
  if (nbytes >= kAdvisedBytes && huge_pages_wanted() && default_allocator) {
    static HugePageAllocator allocator;
    return at::detail::empty_strided_generic(
        sizes, strides, &allocator, c10::DispatchKeySet(c10::DispatchKey::CPU), dtype);
  }
#endif
  return at::detail::empty_strided_cpu(sizes, strides, dtype);
}

Stores stores_for([[maybe_unused]] const void* to, [[maybe_unused]] size_t nbytes, [[maybe_unused]] size_t all_bytes) {
#ifdef __linux__
  const auto begin = reinterpret_cast<uintptr_t>(to);
  if (std::max(nbytes, all_bytes) >= streaming_bytes() && begin % kStreamingAlignment == 0 && is_resident(begin) &&
      is_resident(begin + nbytes / 2) && is_resident(begin + nbytes - 1)) {
    stats::count(stats::streaming_calls);
    return Stores::kStreaming;
  }
#endif
  return Stores::kCached;
}

} // namespace leakyrelu_ext::cpu
