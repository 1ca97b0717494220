// Records what no document states: how ex2.approx.ftz.f32 rounds on this GPU. `probe_ex2 OUT` writes one int8
// per argument k * 2^-24, k = 0 .. 2^24 - 1: the result's fp32 bits minus those of the correctly rounded 2^r.
// It also checks that expf is the recipe "k = floor(x log2 e), r = the rest, ex2(r) * 2^k" on 2^22 arguments
// in [-80, 0] and on silu's bf16 arguments.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <cuda_runtime.h>

namespace {

constexpr std::int64_t kArguments = std::int64_t{1} << 24;
constexpr std::int64_t kExpfArguments = std::int64_t{1} << 22;
constexpr int kThreads = 256;

#define PROBE_CUDA(call)                                                                     \
  do {                                                                                       \
    const cudaError_t status = (call);                                                       \
    if (status != cudaSuccess) {                                                             \
      std::fprintf(stderr, "probe_ex2: %s failed: %s\n", #call, cudaGetErrorString(status)); \
      std::exit(3);                                                                          \
    }                                                                                        \
  } while (0)

__device__ float ex2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Result i belongs to the argument (i + first) * 2^-24, moved by `offset` of a step.
__global__ void record_kernel(std::uint32_t* bits, std::int64_t first, float offset) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  bits[i] = __float_as_uint(ex2((static_cast<float>(i + first) + offset) * 0x1p-24f));
}

std::vector<std::uint32_t> record(std::int64_t first, std::int64_t count, float offset = 0.0f) {
  std::uint32_t* device = nullptr;
  PROBE_CUDA(cudaMalloc(&device, count * sizeof(std::uint32_t)));
  record_kernel<<<static_cast<unsigned>(count / kThreads), kThreads>>>(device, first, offset);
  PROBE_CUDA(cudaGetLastError());
  std::vector<std::uint32_t> bits(count);
  PROBE_CUDA(cudaMemcpy(bits.data(), device, count * sizeof(std::uint32_t), cudaMemcpyDeviceToHost));
  PROBE_CUDA(cudaFree(device));
  return bits;
}

// The recipe, with every rounding written out.
__device__ float recipe(float x) {
  const float t = __saturatef(__fmaf_rn(x, 0.0057249800302088260651f, 0.5f));
  const float j = __fmaf_rd(t, 252.0f, 12582913.0f);
  const float k = __fsub_rn(j, 12583039.0f);
  float r = __fmaf_rn(x, 1.4426950216293334961f, -k);
  r = __fmaf_rn(x, 1.925963033500011079e-08f, r);
  return __fmul_rn(ex2(r), __uint_as_float(__float_as_uint(j) << 23));
}

__global__ void compare_kernel(const float* arguments, std::int64_t count, unsigned long long* differing) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const float x = arguments[i];
  if (__float_as_uint(expf(x)) != __float_as_uint(recipe(x))) atomicAdd(differing, 1ull);
}

std::uint32_t correctly_rounded_bits(std::int64_t k) {
  const auto rounded = static_cast<float>(exp2l(std::ldexp(static_cast<long double>(k), -24)));
  std::uint32_t bits = 0;
  std::memcpy(&bits, &rounded, sizeof bits);
  return bits;
}

// The recipe's k is the floor but for the rounding of t, which leaves arguments down to about -7.6e-6 to ex2.
void print_negative() {
  const auto bits = record(-kThreads, kThreads);
  const auto beyond = record(-kThreads, kThreads, -0.5f);
  int moved = 0;
  std::printf("ex2 at -1 .. -%d times 2^-24, minus the correctly rounded:", kThreads);
  for (int k = 1; k <= kThreads; ++k) {
    std::printf(" %d", static_cast<int>(bits[kThreads - k] - correctly_rounded_bits(-k)));
    moved += bits[kThreads - k] != beyond[kThreads - k];
  }
  std::printf("\n%d of them differ half a step further from zero\n", moved);
}

unsigned long long count_expf_differences(const std::vector<float>& arguments) {
  float* device = nullptr;
  unsigned long long* differing = nullptr;
  PROBE_CUDA(cudaMalloc(&device, arguments.size() * sizeof(float)));
  PROBE_CUDA(cudaMalloc(&differing, sizeof *differing));
  PROBE_CUDA(cudaMemset(differing, 0, sizeof *differing));
  PROBE_CUDA(cudaMemcpy(device, arguments.data(), arguments.size() * sizeof(float), cudaMemcpyHostToDevice));
  const auto count = static_cast<std::int64_t>(arguments.size());
  compare_kernel<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads>>>(device, count,
                                                                                         differing);
  PROBE_CUDA(cudaGetLastError());
  unsigned long long result = 0;
  PROBE_CUDA(cudaMemcpy(&result, differing, sizeof result, cudaMemcpyDeviceToHost));
  PROBE_CUDA(cudaFree(device));
  PROBE_CUDA(cudaFree(differing));
  return result;
}

std::vector<float> uniform_arguments() {
  std::vector<float> arguments(kExpfArguments);
  for (std::int64_t i = 0; i < kExpfArguments; ++i)
    arguments[i] =
        static_cast<float>(-80.0 * static_cast<double>(i) / static_cast<double>(kExpfArguments - 1));
  return arguments;
}

// exp(-a) for every finite bf16 a.
std::vector<float> silu_arguments() {
  std::vector<float> arguments;
  for (std::uint32_t high = 0; high < 0x10000u; ++high) {
    if ((high & 0x7f80u) == 0x7f80u) continue;
    const std::uint32_t bits = (high << 16) ^ 0x80000000u;
    float value = 0.0f;
    std::memcpy(&value, &bits, sizeof value);
    arguments.push_back(value);
  }
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: probe_ex2 OUT\n");
    return 2;
  }
  cudaDeviceProp device{};
  int driver = 0;
  int runtime = 0;
  PROBE_CUDA(cudaGetDeviceProperties(&device, 0));
  PROBE_CUDA(cudaDriverGetVersion(&driver));
  PROBE_CUDA(cudaRuntimeGetVersion(&runtime));
  std::printf("device %s, compute capability %d.%d, driver API %d, runtime %d\n", device.name, device.major,
              device.minor, driver, runtime);

  const auto bits = record(0, kArguments);

  std::vector<std::int8_t> table(kArguments);
  std::int64_t counts[3] = {};
  for (std::int64_t k = 0; k < kArguments; ++k) {
    const std::int64_t difference =
        static_cast<std::int64_t>(bits[k]) - static_cast<std::int64_t>(correctly_rounded_bits(k));
    if (difference < -1 || difference > 1) {
      std::fprintf(stderr,
                   "probe_ex2: expected a difference of -1, 0 or 1, found %lld at argument %lld * 2^-24\n",
                   static_cast<long long>(difference), static_cast<long long>(k));
      return 1;
    }
    table[k] = static_cast<std::int8_t>(difference);
    ++counts[difference + 1];
  }
  std::printf("ex2: -1 %lld, 0 %lld, +1 %lld\n", static_cast<long long>(counts[0]),
              static_cast<long long>(counts[1]), static_cast<long long>(counts[2]));
  print_negative();
  std::printf("expf differs from the recipe: %llu of %lld in [-80, 0]\n",
              count_expf_differences(uniform_arguments()), static_cast<long long>(kExpfArguments));
  const auto silu = silu_arguments();
  std::printf("expf differs from the recipe: %llu of %zu silu arguments\n", count_expf_differences(silu),
              silu.size());

  // Written under a temporary name, so that a failed write leaves nothing behind.
  const std::string temporary = std::string(argv[1]) + ".partial";
  std::FILE* out = std::fopen(temporary.c_str(), "wb");
  bool written = out != nullptr && std::fwrite(table.data(), 1, table.size(), out) == table.size();
  if (out != nullptr) written = std::fclose(out) == 0 && written;
  if (!written || std::rename(temporary.c_str(), argv[1]) != 0) {
    std::remove(temporary.c_str());
    std::fprintf(stderr, "probe_ex2: could not write %s\n", argv[1]);
    return 3;
  }
  return 0;
}
