#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "gpu/autotune.h"
#include "harness/cli/kernel_config.h"
#include "harness/cli/tuning_cache.h"
#include "harness/contract/error.h"

using namespace assay;
using namespace assay::cli;

namespace {

std::string refusal(std::string_view text) {
  try {
    parse_kernel_config(text);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

/// A cache folder of its own for one test.
struct OwnCache {
  std::filesystem::path folder = std::filesystem::temp_directory_path() / "assay-tuning-test";
  OwnCache() {
    std::filesystem::remove_all(folder);
    setenv("ASSAY_CACHE", folder.c_str(), 1);
  }
  ~OwnCache() {
    unsetenv("ASSAY_CACHE");
    std::filesystem::remove_all(folder);
  }
};

const Sizes kSizes{{2048, 768, 128, 8, true}, 4096};

Tuning<KernelConfigForward> tuned() {
  Tuning<KernelConfigForward> tuning;
  tuning.best.raster_rows = 16;
  tuning.best.cluster = 2;
  tuning.trials = {{{}, true, 10.0, 0.0, 0.0}, {tuning.best, true, 9.0, 1.0, 0.1}};
  return tuning;
}

}  // namespace

TEST_SUITE("tuning") {
  TEST_CASE("a kernel config is read as it is described, and what is not named keeps its default") {
    const auto config = parse_kernel_config("cluster=2,raster_rows=8");
    CHECK(config.cluster == 2);
    CHECK(config.raster_rows == 8);
    CHECK(config.pipeline_depth_gate_up == KernelConfigForward{}.pipeline_depth_gate_up);
    CHECK(parse_kernel_config("tiles=wide").tiles == "wide");
    for (const auto& one : tuning_space(kSizes))
      CHECK(describe(parse_kernel_config(describe(one))) == describe(one));
  }

  TEST_CASE("a kernel config that cannot run is refused with the reason") {
    CHECK(refusal("raster=8").find("unknown key 'raster'; valid: variant, tiles, pipeline_depth_gate_up") !=
          std::string::npos);
    CHECK(refusal("cluster=two").find("expected an integer for cluster, found 'two'") != std::string::npos);
    CHECK(refusal("cluster").find("expected key=value") != std::string::npos);
    CHECK(refusal("pipeline_depth_down=4").find("found 4") != std::string::npos);
    CHECK(refusal("tiles=square").find("expected tiles to be auto, tall, wide or narrow, found square") !=
          std::string::npos);
    CHECK(refusal("tiles=narrow,cluster=2").find("cluster 0 or 1 with tiles=narrow") != std::string::npos);
    CHECK(refusal("cluster=2,persistent_blocks=3").find("multiple of cluster 2") != std::string::npos);
  }

  TEST_CASE("the declared space begins with the default and holds nothing that is refused") {
    const auto space = tuning_space(kSizes);
    CHECK(describe(space.front()) == describe(KernelConfigForward{}));
    for (const auto& config : space) {
      CHECK_FALSE(invalid(config).has_value());
      CHECK_FALSE(gpu_unsupported(config, kSizes).has_value());
    }
    const Sizes few{kSizes.config, 16};
    CHECK(tuning_space(few).size() == space.size() + 1);  // narrow tiles
  }

  TEST_CASE(
      "the configs of gradients are read, refused by the name of their option and kept like the others") {
    const auto dw =
        parse_kernel_config<KernelConfigBackwardDw>("tile_order=width,pipeline_depth=2", kOptionDw);
    CHECK(dw.tile_order == "width");
    CHECK(dw.pipeline_depth == 2);
    CHECK(dw.pipeline_depth_gathered == KernelConfigBackwardDw{}.pipeline_depth_gathered);
    const auto refused = [](const KernelConfigTexts& texts) -> std::string {
      try {
        check(texts);
      } catch (const UsageError& error) {
        return error.what();
      }
      return "";
    };
    CHECK(refused({"autotune", "autotune", "autotune"}).empty());
    CHECK(refused({"", "cluster=3", ""}) == "--kernel-config-bwd-dx: expected cluster 0, 1 or 2, found 3");
    CHECK(refused({"", "", "tiles=wide"})
              .find("--kernel-config-bwd-dw: unknown key 'tiles'; valid: variant, tile_order, "
                    "pipeline_depth, ") != std::string::npos);
    CHECK(refused({"", "", "tile_order=up"}).find("expected tile_order to be height or width, found up") !=
          std::string::npos);
    CHECK(refused({"", "", "pipeline_depth=4"}).find("found 4") != std::string::npos);
    CHECK(refused({"", "", "pipeline_depth_gathered=5"}).find("found 5") != std::string::npos);
    CHECK(refused({"", "", "persistent_blocks=-1"}).find("found -1") != std::string::npos);
    const auto space = tuning_space_dW();
    CHECK(describe(space.front()) == describe(KernelConfigBackwardDw{}));
    for (const auto& config : space) {
      CHECK_FALSE(invalid(config).has_value());
      CHECK(describe(parse_kernel_config<KernelConfigBackwardDw>(describe(config), kOptionDw)) ==
            describe(config));
    }
    const OwnCache cache;
    store_tuning("here", Tuning<KernelConfigBackwardDw>{dw, {{{}, true, 10.0, 0.0, 0.0}}, "it won"});
    REQUIRE(load_tuning<KernelConfigBackwardDw>("here").has_value());
    CHECK(describe(*load_tuning<KernelConfigBackwardDw>("here")) == describe(dw));
    CHECK_FALSE(load_tuning("here").has_value());  // a config of another kind
  }

  TEST_CASE("a config wins by more than the spread, with equal bits, or not at all") {
    std::string reason;
    KernelConfigForward other;
    other.raster_rows = 16;
    const auto chosen = [&](const TuningTrial<KernelConfigForward>& trial) {
      return choose<KernelConfigForward>({{{}, true, 100.0, 0.0, 0.0}, trial}, reason).raster_rows;
    };
    CHECK(chosen({other, true, 97.0, 3.0, 1.0}) == 16);
    CHECK(reason.find("raster_rows=16") != std::string::npos);
    CHECK(chosen({other, true, 97.0, 3.0, 3.0}) == 4);  // no more than the spread
    CHECK(chosen({other, true, 103.0, -3.0, 0.1}) == 4);
    CHECK(chosen({other, false, 50.0, 50.0, 1.0}) == 4);  // other bits: never
    CHECK(chosen({other, true, std::nan(""), std::nan(""), 1.0}) == 4);
    CHECK(reason.find("the default stays") != std::string::npos);
  }

  TEST_CASE("a tuning is kept and found under its key alone") {
    const OwnCache cache;
    CHECK_FALSE(load_tuning("here").has_value());
    store_tuning("here", tuned());
    REQUIRE(load_tuning("here").has_value());
    CHECK(describe(*load_tuning("here")) == describe(tuned().best));
    CHECK_FALSE(load_tuning("there").has_value());
    std::filesystem::rename(*tuning_path("here"), *tuning_path("there"));
    CHECK_FALSE(load_tuning("there").has_value());  // another key inside
  }

  TEST_CASE("a damaged cache is measured again, and one that cannot be written is gone without") {
    const OwnCache cache;
    store_tuning("here", tuned());
    std::ofstream(*tuning_path("here")) << "{\"schema\": \"assay-au";
    CHECK_FALSE(load_tuning("here").has_value());
    std::ofstream(*tuning_path("here"))
        << R"({"schema": "assay-autotune", "version": 1, "key": "here", "config": "pipeline_depth_down=9"})";
    CHECK_FALSE(load_tuning("here").has_value());
    setenv("ASSAY_CACHE", "/proc/no-such-folder", 1);
    CHECK_NOTHROW(store_tuning("here", tuned()));
    CHECK_FALSE(load_tuning("here").has_value());
  }
}
