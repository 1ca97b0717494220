// A vector for fields of full size. Elements made by a size alone stay unwritten, so that the parallel loop
// which fills them touches their memory first: zeroing two gigabytes on one thread takes longer than
// computing them.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <sys/mman.h>

namespace assay {

/// Leaves default-made elements unwritten, and asks for huge pages where the allocation is large.
template <class T>
struct FirstTouchAllocator {
  using value_type = T;
  FirstTouchAllocator() = default;
  template <class U>
  FirstTouchAllocator(const FirstTouchAllocator<U>&) {}

  T* allocate(std::size_t count) {
    if (count > (std::size_t{1} << 62) / sizeof(T)) throw std::bad_array_new_length();
    const std::size_t bytes = count * sizeof(T);
    if (bytes < kHugePage) return static_cast<T*>(::operator new(bytes));
    void* memory = std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
    if (memory == nullptr) throw std::bad_alloc();
    madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: without it pages are small and nothing else changes
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    if (count * sizeof(T) < kHugePage)
      ::operator delete(memory);
    else
      std::free(memory);
  }

  template <class U>
  void construct(U*) noexcept {}
  template <class U, class... Arguments>
  void construct(U* at, Arguments&&... arguments) {
    std::construct_at(at, std::forward<Arguments>(arguments)...);
  }

  friend bool operator==(const FirstTouchAllocator&, const FirstTouchAllocator&) { return true; }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
};

/// `LargeVector<T>(n)` holds n unwritten elements, `LargeVector<T>(n, value)` n copies. For plain data only.
template <class T>
using LargeVector = std::vector<T, FirstTouchAllocator<T>>;

}  // namespace assay
