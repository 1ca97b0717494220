#include "harness/contract/large_vector.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include <sys/mman.h>

namespace assay {
namespace {

/// Given back and not taken again yet.
struct FreePages {
  void* memory;
  std::size_t bytes;
};
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kMostKept = 0;  // who reads what was given back is to be found
#else
constexpr std::size_t kMostKept = std::size_t{512} << 20;  // bytes
#endif
constexpr std::size_t kMostPieces = 64;

// Plain data, for vectors may be given back while the program ends.
std::mutex mutex;
FreePages kept[kMostPieces];
std::size_t pieces = 0;
std::size_t kept_bytes = 0;

constexpr std::size_t whole_pages(std::size_t bytes) {
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

/// Of exactly this size; null where there is none.
void* taken_from_kept(std::size_t bytes) {
  const std::scoped_lock lock(mutex);
  FreePages* const end = kept + pieces;
  FreePages* const found = std::ranges::find(kept, end, bytes, &FreePages::bytes);
  if (found == end) return nullptr;
  void* const memory = found->memory;
  *found = kept[--pieces];
  kept_bytes -= bytes;
  return memory;
}

void free_all_kept() {
  const std::scoped_lock lock(mutex);
  while (pieces > 0) std::free(kept[--pieces].memory);
  kept_bytes = 0;
}

}  // namespace

void* take_huge_pages(std::size_t bytes) {
  const std::size_t whole = whole_pages(bytes);
  if (void* const memory = taken_from_kept(whole)) return memory;
  void* memory = std::aligned_alloc(kHugePage, whole);
  if (memory == nullptr) {
    free_all_kept();
    memory = std::aligned_alloc(kHugePage, whole);
  }
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory, whole, MADV_HUGEPAGE);  // a wish: without it pages are small and nothing else changes
  return memory;
}

void give_back_huge_pages(void* memory, std::size_t bytes) noexcept {
  const std::size_t whole = whole_pages(bytes);
  {
    const std::scoped_lock lock(mutex);
    if (pieces < kMostPieces && kept_bytes + whole <= kMostKept) {
      kept[pieces++] = {memory, whole};
      kept_bytes += whole;
      return;
    }
  }
  std::free(memory);
}

}  // namespace assay
