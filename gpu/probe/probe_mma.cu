// Records what no document states: how a tensor core adds. `probe_mma OUT` runs bf16 products with fp32
// results through mma.sync.m16n8k16, K ascending, and writes the inputs and the bits of every result as text.
// Build: nvcc -arch=sm_90a -cudart static.
//   crafted K: 2K bf16 words (a row, then a column) = fp32 word
//   random DATA K SEED: 128 fp32 words, [16, 8] row-major; operand elements come from value(DATA, SEED,
//   index), the left one [16, K] first, then the right one [8, K]
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <cuda_runtime.h>

namespace {

constexpr int kRows = 16;
constexpr int kColumns = 8;
constexpr int kStep = 16;

#define PROBE_CUDA(call)                                                                     \
  do {                                                                                       \
    const cudaError_t status = (call);                                                       \
    if (status != cudaSuccess) {                                                             \
      std::fprintf(stderr, "probe_mma: %s failed: %s\n", #call, cudaGetErrorString(status)); \
      std::exit(3);                                                                          \
    }                                                                                        \
  } while (0)

// One warp. a [16, k] and b [8, k], k a multiple of 16; fragments as in the PTX ISA, section "mma.m16n8k16".
__global__ void product_kernel(const std::uint16_t* a, const std::uint16_t* b, int k, float* out) {
  const int group = threadIdx.x / 4;
  const int lane = threadIdx.x % 4;
  float c[4] = {};
  const auto pair = [&](const std::uint16_t* from, int row, int at) {
    return static_cast<std::uint32_t>(from[row * k + at]) | static_cast<std::uint32_t>(from[row * k + at + 1])
                                                                << 16;
  };
  for (int k0 = 0; k0 < k; k0 += kStep) {
    const int low = k0 + 2 * lane;
    const int high = low + 8;
    const std::uint32_t a0 = pair(a, group, low);
    const std::uint32_t a1 = pair(a, group + 8, low);
    const std::uint32_t a2 = pair(a, group, high);
    const std::uint32_t a3 = pair(a, group + 8, high);
    const std::uint32_t b0 = pair(b, group, low);
    const std::uint32_t b1 = pair(b, group, high);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
  out[group * kColumns + 2 * lane] = c[0];
  out[group * kColumns + 2 * lane + 1] = c[1];
  out[(group + 8) * kColumns + 2 * lane] = c[2];
  out[(group + 8) * kColumns + 2 * lane + 1] = c[3];
}

std::vector<std::uint32_t> product(const std::vector<std::uint16_t>& a, const std::vector<std::uint16_t>& b,
                                   int k) {
  std::uint16_t* device_a = nullptr;
  std::uint16_t* device_b = nullptr;
  float* device_out = nullptr;
  PROBE_CUDA(cudaMalloc(&device_a, a.size() * 2));
  PROBE_CUDA(cudaMalloc(&device_b, b.size() * 2));
  PROBE_CUDA(cudaMalloc(&device_out, kRows * kColumns * 4));
  PROBE_CUDA(cudaMemcpy(device_a, a.data(), a.size() * 2, cudaMemcpyHostToDevice));
  PROBE_CUDA(cudaMemcpy(device_b, b.data(), b.size() * 2, cudaMemcpyHostToDevice));
  product_kernel<<<1, 32>>>(device_a, device_b, k, device_out);
  PROBE_CUDA(cudaGetLastError());
  std::vector<std::uint32_t> bits(kRows * kColumns);
  PROBE_CUDA(cudaMemcpy(bits.data(), device_out, bits.size() * 4, cudaMemcpyDeviceToHost));
  PROBE_CUDA(cudaFree(device_a));
  PROBE_CUDA(cudaFree(device_b));
  PROBE_CUDA(cudaFree(device_out));
  return bits;
}

std::uint16_t bf16(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

std::uint64_t hash(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// "gaussian": the sum of four uniform 16-bit lanes, about normal with deviation 1; "one_sign": its magnitude;
// "heavy_tail": times a power of two from -12 to 12.
std::uint16_t value(const std::string& data, std::uint64_t seed, std::uint64_t index) {
  const std::uint64_t word = hash(seed * 0x100000000 + index);
  const int sum = static_cast<int>(word & 0xffff) + static_cast<int>(word >> 16 & 0xffff) +
                  static_cast<int>(word >> 32 & 0xffff) + static_cast<int>(word >> 48) - 131070;
  float x = static_cast<float>(sum) * 0x1p-15f;
  if (data == "one_sign") x = std::fabs(x);
  if (data == "heavy_tail") x = std::ldexp(x, static_cast<int>(hash(word) % 25) - 12);
  return bf16(x);
}

void record_crafted(std::FILE* out, const std::vector<float>& row, const std::vector<float>& column) {
  const int k = static_cast<int>(row.size());
  const int padded = (k + kStep - 1) / kStep * kStep;
  std::vector<std::uint16_t> a(kRows * padded), b(kColumns * padded);
  std::fprintf(out, "crafted %d:", k);
  for (int i = 0; i < k; ++i) std::fprintf(out, " %04x", a[i] = bf16(row[i]));
  for (int i = 0; i < k; ++i) std::fprintf(out, " %04x", b[i] = bf16(column[i]));
  std::fprintf(out, " = %08x\n", product(a, b, padded)[0]);
}

void record_random(std::FILE* out, const std::string& data, int k, int seed) {
  std::vector<std::uint16_t> a(kRows * k), b(kColumns * k);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = value(data, seed, i);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = value(data, seed, a.size() + i);
  std::fprintf(out, "random %s %d %d:", data.c_str(), k, seed);
  for (const std::uint32_t bits : product(a, b, k)) std::fprintf(out, " %08x", bits);
  std::fprintf(out, "\n");
}

// {first, then the rest} against ones.
void against_ones(std::FILE* out, int k, float first, float rest) {
  std::vector<float> column(k, rest);
  column[0] = first;
  record_crafted(out, std::vector<float>(k, 1.0f), column);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: probe_mma OUT\n");
    return 2;
  }
  cudaDeviceProp device{};
  int driver = 0;
  int runtime = 0;
  PROBE_CUDA(cudaGetDeviceProperties(&device, 0));
  PROBE_CUDA(cudaDriverGetVersion(&driver));
  PROBE_CUDA(cudaRuntimeGetVersion(&runtime));
  std::FILE* out = std::fopen(argv[1], "w");
  if (out == nullptr) {
    std::fprintf(stderr, "probe_mma: could not write %s\n", argv[1]);
    return 3;
  }
  std::fprintf(out,
               "# mma.sync.m16n8k16 bf16 -> fp32, K ascending: %s, compute capability %d.%d, driver API %d, "
               "runtime %d\n",
               device.name, device.major, device.minor, driver, runtime);
  // How many bits of a small addend survive beside 1, with 15 of them: 2^-20 .. 2^-28; both signs.
  for (int e = -20; e >= -28; --e)
    for (const float sign : {1.0f, -1.0f}) {
      against_ones(out, 16, 1.0f, std::ldexp(sign, e));
      against_ones(out, 16, -1.0f, std::ldexp(1.5f * sign, e));
    }
  // The result's rounding: 1 and a fraction of its ulp.
  for (const float part : {0.25f, 0.5f, 0.75f, 1.0f, 1.25f, 1.5f, 1.75f})
    against_ones(out, 2, 1.0f, part * 0x1p-23f);
  // The same small addends in the second step: beside a running sum of 1. And in places 8 .. 15 of one step:
  // 16 are aligned together.
  for (int e = -22; e >= -27; --e) {
    std::vector<float> second(32, 0.0f), upper(16, 0.0f);
    second[0] = upper[0] = 1.0f;
    for (int i = 16; i < 32; ++i) second[i] = std::ldexp(1.0f, e);
    for (int i = 8; i < 16; ++i) upper[i] = std::ldexp(1.0f, e);
    record_crafted(out, std::vector<float>(32, 1.0f), second);
    record_crafted(out, std::vector<float>(16, 1.0f), upper);
  }
  // A product's exponent is that of its factors: 1.75 * 1.75 = 3.06 aligns like 1, not like 2.
  for (int e = -23; e >= -26; --e) {
    std::vector<float> row(16, 1.0f), column(16, std::ldexp(1.0f, e));
    row[0] = column[0] = 1.75f;
    record_crafted(out, row, column);
  }
  for (const int k : {16, 32, 128, 2048}) record_random(out, "gaussian", k, k + 1);
  for (const int k : {16, 128, 2048, 8192}) record_random(out, "one_sign", k, k + 2);
  for (const int k : {16, 64, 128, 1024}) record_random(out, "heavy_tail", k, k + 3);
  return std::fclose(out) == 0 ? 0 : 3;
}
