// What the kernels' files share. All of it is local to the file that includes it, for each is compiled once
// per vector width: a function shared between files could be emitted for a CPU that cannot run it.
#pragma once

#include <cstdint>

namespace assay {
namespace {

// Vectors of the machine's own width: wider ones are lowered element by element where they are compared.
#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / 4;
constexpr int kWideLanes = kBytes / 8;  // float64 lanes
using Floats = float __attribute__((vector_size(kBytes)));
using Ints = std::int32_t __attribute__((vector_size(kBytes)));
using UnsignedInts = std::uint32_t __attribute__((vector_size(kBytes)));
using Shorts = std::int16_t __attribute__((vector_size(kBytes)));
using HalfShorts = std::uint16_t __attribute__((vector_size(kBytes / 2)));
using HalfFloats = float __attribute__((vector_size(kBytes / 2)));
using HalfInts = std::int32_t __attribute__((vector_size(kBytes / 2)));
using Doubles = double __attribute__((vector_size(kBytes)));
using Longs = std::int64_t __attribute__((vector_size(kBytes)));

template <class V>
V load(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}

template <class V>
void save(void* to, const V& value) {
  __builtin_memcpy(to, &value, sizeof(V));
}

}  // namespace
}  // namespace assay
