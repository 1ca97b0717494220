#include "gpu/pipeline.h"

#include <doctest/doctest.h>

#include "gpu/kernels/rounding.h"
#include "harness/contract/error.h"

using namespace assay;

namespace {

Sizes sizes(std::int64_t hidden, std::int64_t inter, std::int64_t experts, std::int64_t top_k) {
  return {{hidden, inter, experts, top_k, true}, 4};
}

}  // namespace

TEST_SUITE("gpu-pipeline") {
  TEST_CASE("all pipelines are named, whether they can run here or not") {
    CHECK(gpu_pipelines() == std::vector<std::string>{"gpu_fused", "gpu_cublas", "gpu_cublas_grouped"});
  }

  TEST_CASE("a size that is not supported is refused with the reason and what was found") {
    CHECK(gpu_unsupported(sizes(100, 64, 8, 2))
              .value_or("")
              .find("hidden_size to be a multiple of 8 (16-byte rows), found 100") != std::string::npos);
    CHECK(gpu_unsupported(sizes(64, 12, 8, 2))
              .value_or("")
              .find("moe_intermediate_size to be a multiple of 8") != std::string::npos);
    CHECK(gpu_unsupported(sizes(64, 64, 2048, 2)).value_or("").find("at most 1024 experts") !=
          std::string::npos);
    CHECK(gpu_unsupported(sizes(64, 64, 64, 33)).value_or("").find("at most 32 experts per token") !=
          std::string::npos);
    CHECK(gpu_unsupported(sizes(64, 64, 8, 9)).has_value());
  }

  TEST_CASE("sizes of the released models are supported") {
    CHECK_FALSE(gpu_unsupported(sizes(2048, 768, 128, 8)).has_value());
    CHECK_FALSE(gpu_unsupported(sizes(4096, 1536, 128, 8)).has_value());
    CHECK_FALSE(gpu_unsupported(sizes(2048, 512, 512, 10)).has_value());
  }

  TEST_CASE("a contract becomes a rounding once, and one without kernels is refused by name") {
    CHECK(gpu::rounding_of("hf", "gpu_fused") == gpu::Rounding::Hf);
    CHECK(gpu::rounding_of("hf_main_grads", "gpu_fused") == gpu::Rounding::Hf);
    CHECK(gpu::rounding_of("fused_fp32", "gpu_fused") == gpu::Rounding::FusedFp32);
    CHECK_THROWS_WITH_AS(gpu::rounding_of("hf_eager", "gpu_fused"),
                         "expected contract hf, hf_in_place_grads, hf_added_main_grads, hf_main_grads or "
                         "fused_fp32 for gpu_fused, found hf_eager",
                         UsageError);
  }

  TEST_CASE("a kernel config outside its lists is refused, never adjusted") {
    CHECK_FALSE(invalid(KernelConfigForward{}).has_value());
    KernelConfigForward config;
    config.variant = "fast";
    CHECK(invalid(config).value_or("").find("found fast") != std::string::npos);
    config = {};
    config.pipeline_depth_down = 4;
    CHECK(invalid(config).value_or("").find("found 4") != std::string::npos);
    config = {};
    config.raster_rows = 0;
    CHECK(invalid(config).has_value());
    config = {};
    config.persistent_blocks = -1;
    CHECK(invalid(config).has_value());
    config = {};
    config.tiles = "narrow";
    CHECK_FALSE(invalid(config).has_value());
    CHECK_FALSE(gpu_unsupported(config, Sizes{{64, 32, 8, 2, true}, 16}).has_value());
    CHECK(gpu_unsupported(config, Sizes{{64, 32, 8, 2, true}, 17})
              .value_or("")
              .find("at most 16 tokens with tiles=narrow") != std::string::npos);
    config = {};
    config.cluster = 3;
    CHECK(invalid(config).value_or("").find("cluster 0, 1 or 2, found 3") != std::string::npos);
    config.cluster = 2;
    config.persistent_blocks = 131;
    CHECK(invalid(config).value_or("").find("multiple of cluster 2, found 131") != std::string::npos);
  }

  TEST_CASE("options that ask for gradients of one kind only, twice, are refused") {
    GpuOptions options;
    options.dX_only = true;
    CHECK_FALSE(invalid(options).has_value());
    options.dW_only = true;
    CHECK(invalid(options).value_or("") == "expected dX_only or dW_only, found both");
    options = {};
    options.kernel_config_fwd.raster_rows = 0;
    CHECK(invalid(options).value_or("").find("raster_rows") != std::string::npos);
    options = {};
    options.kernel_config_bwd_dX = KernelConfigBackwardDx{.cluster = 3};
    CHECK(invalid(options).value_or("").starts_with("of the gradients of rows: expected cluster"));
    options = {};
    options.kernel_config_bwd_dW.pipeline_depth = 1;
    CHECK(
        invalid(options).value_or("").starts_with("of the gradients of weights: expected pipeline_depth 2"));
  }

  TEST_CASE("without a device every run says so instead of giving results") {
    if (!gpu_unavailable()) return;  // the self-check covers machines with a device
    CHECK_THROWS_AS(run_gpu_cublas(Problem{}), InputError);
    CHECK_THROWS_AS(run_gpu_cublas_grouped(Problem{}), InputError);
    CHECK_THROWS_AS(run_gpu_fused(Problem{}), InputError);
  }
}
