#include "harness/cli/peer_times.h"

#include <doctest/doctest.h>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "harness/cli/problems.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

constexpr MoeConfig kMeasured{2048, 768, 128, 8, true};

GpuBenchmark ours(std::int64_t tokens) {
  GpuBenchmark run;
  run.tokens = tokens;
  run.timings = {{.what = "layer", .median_us = 500.0},
                 {.what = "forward and backward", .median_us = 2000.0}};
  return run;
}

PeerTime timed(const char* peer, const char* pass, std::int64_t tokens, double us) {
  return {peer, "1.2", pass, tokens, "CUDA graph", us, us - 1.0, us + 1.0, ""};
}

}  // namespace

TEST_SUITE("peer_times") {
  TEST_CASE("a peer's time stands beside ours at the same tokens and pass") {
    const std::vector<PeerTime> peers = {timed("liger", "forward", 4096, 1250.0),
                                         timed("liger", "forward and backward", 4096, 5000.0),
                                         timed("liger", "forward", 16, 77.0)};
    const auto text = peer_lines(peers, {}, ours(4096));
    CHECK(text.find("liger 1.2, forward ") != std::string::npos);
    CHECK(text.find("1250.0     1249.0..1251.0    CUDA graph, 2.50 times ours") != std::string::npos);
    CHECK(text.find("5000.0     4999.0..5001.0    CUDA graph, 2.50 times ours") != std::string::npos);
    CHECK(text.find("77.0") == std::string::npos);
  }

  TEST_CASE("a peer that was not timed is named with its reason, whatever the tokens") {
    PeerTime absent;
    absent.peer = "unsloth";
    absent.why = "it took longer than 300 s";
    const auto text = peer_lines({absent}, {}, ours(128));
    CHECK(text.starts_with("unsloth "));
    CHECK(text.ends_with(" not timed: it took longer than 300 s\n"));
  }

  TEST_CASE("figures of others are marked as quoted, for the layer and the tokens they were measured at") {
    const auto quoted = quoted_times(kMeasured, 4096, true);
    const auto text = peer_lines({}, quoted, ours(4096));
    CHECK(text.starts_with("quoted, measured elsewhere (another NVIDIA H200"));
    CHECK(std::ranges::count(text, '\n') == static_cast<std::ptrdiff_t>(quoted.size()) + 1);
    CHECK(text.find("713 to 719  quoted, 1.44 times ours") != std::string::npos);
    CHECK(text.find("2500  quoted, 1.25 times ours") != std::string::npos);
    CHECK(quoted_times(kMeasured, 4096, false).size() == quoted.size() - 1);
    CHECK(quoted_times(kMeasured, 512, true).empty());
    MoeConfig other = kMeasured;
    other.top_k = 10;
    CHECK(quoted_times(other, 4096, true).empty());
  }

  TEST_CASE("Python gets the problem, and its rows come back") {
    const auto folder = std::filesystem::temp_directory_path() / "assay-peer-times-test";
    std::filesystem::create_directories(folder);
    const auto script = folder / "python";
    // In place of Python: what it was given, and a row.
    std::ofstream(script) << "#!/bin/sh\ncp \"$4\" " << folder.string()
                          << "/spec.json\ncp \"$(dirname \"$4\")/input\" " << folder.string()
                          << "/input\n"
                             "echo '[{\"peer\": \"liger\", \"tokens\": 2, \"pass\": \"forward\", "
                             "\"median_us\": 3.5, \"launched\": \"by Python\"}, "
                             "{\"peer\": \"unsloth\", \"why\": \"no\"}]' > \"$6\"\n";
    std::filesystem::permissions(script, std::filesystem::perms::owner_all);
    setenv("ASSAY_PYTHON", script.c_str(), 1);
    const Problem problem = load_fixture("tiny");
    const auto rows = time_peers(problem, {1, 2}, true, 7.0);
    unsetenv("ASSAY_PYTHON");
    REQUIRE(rows.size() == 2);
    CHECK(rows[0].peer == "liger");
    CHECK(rows[0].tokens == 2);
    CHECK(rows[0].median_us == 3.5);
    CHECK(rows[1].why == "no");
    CHECK(std::filesystem::file_size(folder / "input") == problem.input.bytes().size());
    std::ifstream spec(folder / "spec.json");
    const std::string text((std::istreambuf_iterator<char>(spec)), std::istreambuf_iterator<char>());
    for (const char* part : {"\"hidden_size\":", "\"tokens\":[1,2]", "\"backward\":true", "\"seconds\":7.0"})
      CHECK(text.find(part) != std::string::npos);
    std::filesystem::remove_all(folder);
  }

  TEST_CASE("a Python that fails is a sentence, not an empty table") {
    setenv("ASSAY_PYTHON", "/bin/false", 1);
    CHECK_THROWS_AS(time_peers(load_fixture("tiny"), {1}, false, 7.0), InputError);
    unsetenv("ASSAY_PYTHON");
  }
}

}  // namespace assay::cli
