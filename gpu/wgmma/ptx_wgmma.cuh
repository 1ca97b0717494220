// Warpgroup products of 64 x N results for the Ns that tiles have. Needs compute_90a.
#pragma once

#include <cstdint>
#include <type_traits>

#include "harness/contract/product_id.h"

namespace assay::gpu::ptx {

/// N of the product that takes `rows` rows: steps of 8 where a tile waits for the tensor core, of 16 where it
/// waits for memory.
__host__ __device__ constexpr int padded_rows(int rows) {
  return rows <= 96 ? (rows + 15) / 16 * 16 : (rows + 7) / 8 * 8;
}

// The first N / 2 registers of an accumulator as text and as operands.
// clang-format off
#define ASSAY_TEXT_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define ASSAY_TEXT_16 ASSAY_TEXT_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define ASSAY_TEXT_24 ASSAY_TEXT_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define ASSAY_TEXT_32 ASSAY_TEXT_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define ASSAY_TEXT_40 ASSAY_TEXT_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define ASSAY_TEXT_48 ASSAY_TEXT_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define ASSAY_TEXT_52 ASSAY_TEXT_48 ", %48, %49, %50, %51"
#define ASSAY_TEXT_56 ASSAY_TEXT_52 ", %52, %53, %54, %55"
#define ASSAY_TEXT_60 ASSAY_TEXT_56 ", %56, %57, %58, %59"
#define ASSAY_TEXT_64 ASSAY_TEXT_60 ", %60, %61, %62, %63"
#define ASSAY_TEXT_68 ASSAY_TEXT_64 ", %64, %65, %66, %67"
#define ASSAY_TEXT_72 ASSAY_TEXT_68 ", %68, %69, %70, %71"
#define ASSAY_TEXT_128 ASSAY_TEXT_72 ", %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define ASSAY_REGISTERS_8 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define ASSAY_REGISTERS_16 ASSAY_REGISTERS_8, "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define ASSAY_REGISTERS_24 ASSAY_REGISTERS_16, "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
#define ASSAY_REGISTERS_32 ASSAY_REGISTERS_24, "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define ASSAY_REGISTERS_40 ASSAY_REGISTERS_32, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define ASSAY_REGISTERS_48 ASSAY_REGISTERS_40, "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define ASSAY_REGISTERS_52 ASSAY_REGISTERS_48, "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51])
#define ASSAY_REGISTERS_56 ASSAY_REGISTERS_52, "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55])
#define ASSAY_REGISTERS_60 ASSAY_REGISTERS_56, "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59])
#define ASSAY_REGISTERS_64 ASSAY_REGISTERS_60, "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define ASSAY_REGISTERS_68 ASSAY_REGISTERS_64, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
#define ASSAY_REGISTERS_72 ASSAY_REGISTERS_68, "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define ASSAY_REGISTERS_128 ASSAY_REGISTERS_72, "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
// clang-format on
#define ASSAY_WGMMA(n, registers, a_at, b_at, accumulate_at, a_lies_at, b_lies_at)        \
  asm volatile(                                                                           \
      "{\n"                                                                               \
      ".reg .pred accumulate;\n"                                                          \
      "setp.ne.b32 accumulate, %" #accumulate_at                                          \
      ", 0;\n"                                                                            \
      "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" ASSAY_TEXT_##registers \
      "}, %" #a_at ", %" #b_at ", accumulate, 1, 1, %" #a_lies_at ", %" #b_lies_at        \
      ";\n"                                                                               \
      "}\n"                                                                               \
      : ASSAY_REGISTERS_##registers                                                       \
      : "l"(a), "l"(b), "r"(accumulate), "n"(kLiesA == Lies::AlongRows), "n"(kLiesB == Lies::AlongRows))

/// d = a b^T (+ d if `accumulate`) in d's first kColumns / 2 registers: a 64x16, b kColumns x 16, in shared
/// memory as tile_place says, fp32 accumulators. Asynchronous.
template <int kColumns, Lies kLiesA = Lies::AlongColumns, Lies kLiesB = Lies::AlongColumns, int kRegisters>
__device__ inline void wgmma_m64k16(float (&d)[kRegisters], std::uint64_t a, std::uint64_t b,
                                    int accumulate) {
  static_assert(kColumns / 2 <= kRegisters, "as many registers as results per thread");
  if constexpr (kColumns == 16)
    ASSAY_WGMMA(16, 8, 8, 9, 10, 11, 12);
  else if constexpr (kColumns == 32)
    ASSAY_WGMMA(32, 16, 16, 17, 18, 19, 20);
  else if constexpr (kColumns == 48)
    ASSAY_WGMMA(48, 24, 24, 25, 26, 27, 28);
  else if constexpr (kColumns == 64)
    ASSAY_WGMMA(64, 32, 32, 33, 34, 35, 36);
  else if constexpr (kColumns == 80)
    ASSAY_WGMMA(80, 40, 40, 41, 42, 43, 44);
  else if constexpr (kColumns == 96)
    ASSAY_WGMMA(96, 48, 48, 49, 50, 51, 52);
  else if constexpr (kColumns == 104)
    ASSAY_WGMMA(104, 52, 52, 53, 54, 55, 56);
  else if constexpr (kColumns == 112)
    ASSAY_WGMMA(112, 56, 56, 57, 58, 59, 60);
  else if constexpr (kColumns == 120)
    ASSAY_WGMMA(120, 60, 60, 61, 62, 63, 64);
  else if constexpr (kColumns == 128)
    ASSAY_WGMMA(128, 64, 64, 65, 66, 67, 68);
  else if constexpr (kColumns == 136)
    ASSAY_WGMMA(136, 68, 68, 69, 70, 71, 72);
  else if constexpr (kColumns == 144)
    ASSAY_WGMMA(144, 72, 72, 73, 74, 75, 76);
  else if constexpr (kColumns == 256)
    ASSAY_WGMMA(256, 128, 128, 129, 130, 131, 132);
  else
    static_assert(kColumns == 0, "expected 256 or one of padded_rows' values");
}

#undef ASSAY_WGMMA
#undef ASSAY_TEXT_8
#undef ASSAY_REGISTERS_8
#undef ASSAY_TEXT_16
#undef ASSAY_REGISTERS_16
#undef ASSAY_TEXT_24
#undef ASSAY_REGISTERS_24
#undef ASSAY_TEXT_32
#undef ASSAY_REGISTERS_32
#undef ASSAY_TEXT_40
#undef ASSAY_REGISTERS_40
#undef ASSAY_TEXT_48
#undef ASSAY_REGISTERS_48
#undef ASSAY_TEXT_52
#undef ASSAY_REGISTERS_52
#undef ASSAY_TEXT_56
#undef ASSAY_REGISTERS_56
#undef ASSAY_TEXT_60
#undef ASSAY_REGISTERS_60
#undef ASSAY_TEXT_64
#undef ASSAY_REGISTERS_64
#undef ASSAY_TEXT_68
#undef ASSAY_REGISTERS_68
#undef ASSAY_TEXT_72
#undef ASSAY_REGISTERS_72
#undef ASSAY_TEXT_128
#undef ASSAY_REGISTERS_128

/// visit(kColumns) for a tile of 1 to 144 rows.
template <class Visit>
__device__ inline void with_padded_rows(int rows, Visit visit) {
  switch (padded_rows(rows)) {
    case 16: return visit(std::integral_constant<int, 16>{});
    case 32: return visit(std::integral_constant<int, 32>{});
    case 48: return visit(std::integral_constant<int, 48>{});
    case 64: return visit(std::integral_constant<int, 64>{});
    case 80: return visit(std::integral_constant<int, 80>{});
    case 96: return visit(std::integral_constant<int, 96>{});
    case 104: return visit(std::integral_constant<int, 104>{});
    case 112: return visit(std::integral_constant<int, 112>{});
    case 120: return visit(std::integral_constant<int, 120>{});
    case 128: return visit(std::integral_constant<int, 128>{});
    case 136: return visit(std::integral_constant<int, 136>{});
    default: return visit(std::integral_constant<int, 144>{});
  }
}

}  // namespace assay::gpu::ptx
