// What a Hopper tensor core adds up, in integers: a thread walks K for two by two elements, 16 products a
// step. The products' exponents are not normalised; they and the running sum are aligned to the largest
// exponent, cut after `fraction_bits` fractional bits, added exactly, and the sum is cut to the 24 bits of an
// fp32 (arXiv 2511.10909, 2512.07004; confirmed on an H200).
//
// An operand is one word: exponent + kBias in the high half, sign in bit 14, significand (1.7 bits, 128 to
// 255) in the low byte. Adding two words adds the exponents, and the largest sum of words has the largest
// exponent whatever stands below.
#include "gpu/cuda_check.h"
#include "gpu/engine/engine_kernels.h"

namespace assay::gpu {
namespace {

constexpr int kTile = kPredictedTileRows;
constexpr int kColumns = 32;
constexpr int kStep = 16;
constexpr int kChunk = 32;           // of K in shared memory
constexpr int kStride = kChunk + 4;  // eight neighbouring rows then lie in different banks for 16-byte reads
constexpr int kSide = 16;            // threads of a block: 16 x 16
constexpr int kThreads = kSide * kSide;
constexpr int kBias = 128;        // exponents of finite operands become 2 to 255
constexpr int kZero = -1000;      // exponent of a zero: far below that of any product
constexpr int kNoProduct = -500;  // no product at or below this has two operands that are not zero
// alignments outside were not measured
constexpr int kLowest = -102;
constexpr int kHighest = 126;
constexpr int kSignBit = 14;
constexpr int kSignificandBits = 7;

/// Operands outside what was measured are marked by the caller: their words do not matter.
__device__ std::uint32_t word_of(std::uint32_t bf16_bits) {
  const int biased = static_cast<int>(bf16_bits >> 7 & 0xff);
  const std::uint32_t significand = biased == 0 ? 0u : 0x80u | (bf16_bits & 0x7f);
  const int exponent = biased == 0 ? kZero : biased - 127 + kBias;
  return static_cast<std::uint32_t>(exponent) << 16 | (bf16_bits >> 15) << kSignBit | significand;
}

__device__ bool outside_measured(std::uint32_t bf16_bits) {
  const std::uint32_t biased = bf16_bits >> 7 & 0xff;
  return biased == 0xff || (biased == 0 && (bf16_bits & 0x7f) != 0);
}

__global__ void prepare_predicted_kernel(const DevicePrediction* left, std::int64_t k, PredictedLeft out) {
  const std::int64_t row = blockIdx.x;
  bool outside = false;
  bool wide = false;
  for (std::int64_t i = threadIdx.x; i < k; i += blockDim.x) {
    const DevicePrediction x = left[row * k + i];
    const std::uint32_t bits = __float_as_uint(x.value);
    // The flag is one byte of the host's struct; what lies behind it is padding.
    outside = outside || (x.undetermined & 0xff) != 0 || outside_measured(bits >> 16);
    wide = wide || (bits & 0xffff) != 0;
    out.words[row * k + i] = word_of(bits >> 16);
  }
  const int any_outside = __syncthreads_or(outside);
  const int any_wide = __syncthreads_or(wide);
  if (threadIdx.x != 0) return;
  out.outside[row] = any_outside != 0;
  if (any_wide != 0) *out.not_bf16 = 1;
}

/// The running sum of one element: an fp32 and whether an alignment left the measured range.
struct RunningSum {
  float sum = 0.0f;
  bool outside = false;
};

/// `magnitude` units of 2^(top - fraction_bits), cut to 24 significant bits.
__device__ float truncated(std::uint64_t magnitude, bool negative, int top, int fraction_bits) {
  if (magnitude == 0) return 0.0f;
  const int high = 63 - __clzll(static_cast<long long>(magnitude));
  const int exponent = high + top - fraction_bits;
  std::uint32_t bits;
  if (exponent > 127)
    bits = 0x7f800000u;
  else if (exponent < -126)
    bits = static_cast<std::uint32_t>(magnitude << (top - fraction_bits + 149));  // subnormal
  else
    bits = static_cast<std::uint32_t>(exponent + 127) << 23 |
           (static_cast<std::uint32_t>(high > 23 ? magnitude >> (high - 23) : magnitude << (23 - high)) &
            0x7fffffu);
  return __uint_as_float(bits | (negative ? 0x80000000u : 0u));
}

__device__ void step(RunningSum& accumulator, const std::uint32_t (&a)[kStep],
                     const std::uint32_t (&b)[kStep], int fraction_bits) {
  const std::uint32_t sum_bits = __float_as_uint(accumulator.sum);
  const int biased = static_cast<int>(sum_bits >> 23 & 0xff);
  int largest = static_cast<int>(0x80000000u);
#pragma unroll
  for (int i = 0; i < kStep; ++i) largest = max(largest, static_cast<int>(a[i] + b[i]));
  int top = (largest >> 16) - 2 * kBias;
  if (biased != 0) top = max(top, biased - 127);
  accumulator.outside = accumulator.outside || (top < kLowest && top > kNoProduct) || top > kHighest;
  top = max(top, kLowest);

  // Behind the binary point a product has 14 bits and the sum 23.
  const int scale = fraction_bits - 2 * kSignificandBits;
  int total[2] = {};
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    const int distance = top - (static_cast<int>(a[i] + b[i]) >> 16) + 2 * kBias;
    const std::uint32_t product = (a[i] & 0xff) * (b[i] & 0xff) << scale;
    const int kept = static_cast<int>(product >> min(distance, 31));
    total[i / (kStep / 2)] += ((a[i] ^ b[i]) >> kSignBit & 1) != 0 ? -kept : kept;
  }
  const std::uint32_t significand = (sum_bits & 0x7fffffu) | (biased != 0 ? 0x800000u : 0u);
  const int distance = top - (biased != 0 ? biased - 127 : -126);
  const int kept = static_cast<int>((significand << (fraction_bits - 23)) >> min(distance, 31));
  const std::int64_t exact =
      std::int64_t{total[0]} + total[1] + (static_cast<int>(sum_bits) < 0 ? -kept : kept);
  accumulator.sum =
      truncated(static_cast<std::uint64_t>(exact < 0 ? -exact : exact), exact < 0, top, fraction_bits);
}

/// fp32, K ascending, round to nearest: how NaN and Inf spread on any machine.
__device__ float sequential(const DevicePrediction* a, const bf16* b, std::int64_t k) {
  float sum = 0.0f;
  for (std::int64_t i = 0; i < k; ++i) sum = __fadd_rn(sum, __fmul_rn(a[i].value, __bfloat162float(b[i])));
  return sum;
}

__global__ void __launch_bounds__(kThreads, 2)
    predicted_product_kernel(DeviceOperands operands, const DevicePrediction* left, PredictedLeft prepared,
                             PartEnds parts, int fraction_bits, DevicePrediction* out) {
  __shared__ __align__(16) std::uint32_t a_words[kTile][kStride], b_words[kColumns][kStride];
  __shared__ int column_outside[kColumns];
  const ProductTile tile = operands.tiles[blockIdx.y];
  const bf16* weights = operands.weights[tile.group];
  const std::int64_t first_column = std::int64_t{blockIdx.x} * kColumns;
  const int row = threadIdx.x / kSide;
  const int column = threadIdx.x % kSide;
  const std::uint32_t zero = word_of(0);
  if (threadIdx.x < kColumns) column_outside[threadIdx.x] = 0;
  RunningSum sums[2][2];
  float total[2][2] = {};
  int part = 0;
  for (std::int64_t k0 = 0; k0 < operands.k; k0 += kChunk) {
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kChunk; i += kThreads) {
      const int r = i / kChunk;
      const std::int64_t k = k0 + i % kChunk;
      a_words[r][i % kChunk] = r < tile.rows && k < operands.k
                                   ? prepared.words[operands.source[tile.first + r] * operands.k + k]
                                   : zero;
    }
    for (int i = threadIdx.x; i < kColumns * kChunk; i += kThreads) {
      const int c = i / kChunk;
      const std::int64_t k = k0 + i % kChunk;
      std::uint32_t bits = 0;
      if (first_column + c < operands.n && k < operands.k)
        bits = __bfloat16_as_ushort(weights[(first_column + c) * operands.k + k]);
      b_words[c][i % kChunk] = word_of(bits);
      if (outside_measured(bits)) column_outside[c] = 1;
    }
    __syncthreads();
    for (int begin = 0; begin < kChunk && k0 + begin < operands.k; begin += kStep) {
      std::uint32_t a[2][kStep];
      std::uint32_t b[2][kStep];
#pragma unroll
      for (int i = 0; i < kStep; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          a[half][i] = a_words[row + half * kSide][begin + i];
          b[half][i] = b_words[column + half * kSide][begin + i];
        }
      const bool ends = part < parts.count && (k0 + begin) / kStep + 1 == parts.step[part];
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          step(sums[i][j], a[i], b[j], fraction_bits);
          if (!ends) continue;
          total[i][j] = part == 0 ? sums[i][j].sum : __fadd_rn(total[i][j], sums[i][j].sum);
          sums[i][j].sum = 0.0f;
        }
      part += ends;
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int r = row + i * kSide;
      const int c = column + j * kSide;
      if (r >= tile.rows || first_column + c >= operands.n) continue;
      const std::int64_t source = operands.source[tile.first + r];
      const bool open = sums[i][j].outside || column_outside[c] != 0 || prepared.outside[source] != 0;
      const float value =
          open ? sequential(left + source * operands.k, weights + (first_column + c) * operands.k, operands.k)
               : total[i][j];
      out[(tile.first + r) * operands.n + first_column + c] = {value, open};
    }
}

}  // namespace

void prepare_predicted(const DevicePrediction* left, std::int64_t rows, std::int64_t k,
                       const PredictedLeft& out, cudaStream_t stream) {
  ASSAY_CUDA(cudaMemsetAsync(out.not_bf16, 0, sizeof(std::int32_t), stream));
  if (rows == 0) return;
  prepare_predicted_kernel<<<static_cast<unsigned>(rows), 128, 0, stream>>>(left, k, out);
  ASSAY_CUDA(cudaGetLastError());
}

void predicted_product(const DeviceOperands& operands, const DevicePrediction* left,
                       const PredictedLeft& prepared, const PartEnds& parts, int fraction_bits,
                       DevicePrediction* out, cudaStream_t stream) {
  ASSAY_CHECK(operands.tile_count > 0 && operands.tile_count < 65536 && operands.n > 0 && operands.k > 0,
              "expected 1 to 65,535 row tiles and a product that is not empty");
  ASSAY_CHECK(parts.count > 0 && parts.count <= kMostParts &&
                  parts.step[parts.count - 1] == (operands.k + kStep - 1) / kStep,
              "expected the last part to end with K");
  ASSAY_CHECK(fraction_bits >= 23 && fraction_bits <= kHopperFractionBits,
              "expected 23 to 25 fractional bits: eight products then fit an int32");
  const dim3 grid(static_cast<unsigned>((operands.n + kColumns - 1) / kColumns),
                  static_cast<unsigned>(operands.tile_count));
  predicted_product_kernel<<<grid, kThreads, 0, stream>>>(operands, left, prepared, parts, fraction_bits,
                                                          out);
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace assay::gpu
