// A vector for fields of full size. Elements made by a size alone stay unwritten, so that the parallel loop
// which fills them touches their memory first: zeroing two gigabytes on one thread takes longer than
// computing them.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace assay {

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

/// At least `bytes` of memory, unwritten or as an earlier user left it, in huge pages if there are any. What
/// was given back is taken again, for the system clears each page before it hands it out. Throws
/// std::bad_alloc.
void* take_huge_pages(std::size_t bytes);
void give_back_huge_pages(void* memory, std::size_t bytes) noexcept;

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
    return static_cast<T*>(bytes < kHugePage ? ::operator new(bytes) : take_huge_pages(bytes));
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    if (const std::size_t bytes = count * sizeof(T); bytes < kHugePage)
      ::operator delete(memory);
    else
      give_back_huge_pages(memory, bytes);
  }

  template <class U>
  void construct(U*) noexcept {}
  template <class U, class... Arguments>
  void construct(U* at, Arguments&&... arguments) {
    std::construct_at(at, std::forward<Arguments>(arguments)...);
  }

  friend bool operator==(const FirstTouchAllocator&, const FirstTouchAllocator&) { return true; }
};

/// `LargeVector<T>(n)` holds n unwritten elements, `LargeVector<T>(n, value)` n copies. For plain data only.
template <class T>
using LargeVector = std::vector<T, FirstTouchAllocator<T>>;

}  // namespace assay
