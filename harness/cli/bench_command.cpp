// assay bench: how fast the checker itself is, beside what people use instead. Benchmarks only what the tests
// verify.
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <omp.h>
#include <CLI/CLI.hpp>

#include "build_facts.h"
#include "fixtures/fill.h"
#include "harness/cli/commands.h"
#include "harness/contract/error.h"
#include "harness/judge/compare.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/product/product_kernels.h"
#include "revision.h"

namespace assay::cli {
namespace {

const CLI::Range kCount(1, 1 << 20);

double seconds_of(const std::function<void()>& work, int repeats) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

std::vector<Bf16> gaussian(std::int64_t count, std::uint64_t stream) {
  std::vector<Bf16> values(static_cast<std::size_t>(count));
  generate({"gaussian", "natural", 1, stream, {1, count}, 1.0 / 37837.227}, 0, values);
  return values;
}

/// The predicted and the bounded product of one expert, multiply-adds per second and core.
ExitCode product(std::int64_t rows, std::int64_t k, std::int64_t n) {
  const auto weights = gaussian(n * k, 3);
  const auto left_bits = gaussian(rows * k, 1);
  std::vector<PredictedValue> predicted(left_bits.size());
  std::vector<Interval> bounded(left_bits.size());
  for (std::size_t i = 0; i < left_bits.size(); ++i) {
    const float x = to_float(left_bits[i]);
    predicted[i] = {x, false};
    bounded[i] = {x, x, x};
  }
  std::vector<std::int32_t> source(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < source.size(); ++r) source[r] = static_cast<std::int32_t>(r);
  const std::int64_t offsets[] = {0, rows};
  const double work = static_cast<double>(rows * k * n);
  const int cores = omp_get_max_threads();
  const auto time = [&](auto& left) {
    GroupedProduct<typename std::decay_t<decltype(left)>::value_type> p;
    p.left = left;
    p.source = source;
    p.offsets = offsets;
    p.k = k;
    p.n = n;
    p.weights = [&](std::int64_t) { return ExpertMatrix{weights, nullptr}; };
    p.accumulator = {AccumulatorKind::Hopper, {}};
    return seconds_of([&] { grouped_product(p); }, 5);
  };
  for (const char* set : {"baseline", "avx2", "avx512"}) {
    if (!use_product_kernels(set)) {
      fmt::print("{:<9} not on this CPU\n", set);
      continue;
    }
    const double p = time(predicted);
    const double b = time(bounded);
    fmt::print(
        "{:<9} {} x {} x {}: predicted {:.2f}e9, bounded {:.2f}e9 multiply-adds per second and core ({} "
        "cores)\n",
        set, rows, n, k, work / p / cores / 1e9, work / b / cores / 1e9, cores);
  }
  return ExitCode::Passed;
}

/// Every metric of the interval comparison against numpy's and torch's yes-or-no on the same arrays.
ExitCode compare(std::int64_t rows, std::int64_t columns) {
  const auto out = gaussian(rows * columns, 1);
  std::vector<Interval> reference(out.size());
#pragma omp parallel for
  for (std::size_t i = 0; i < out.size(); ++i) {
    // References lie off the bf16 grid, as they do in real products; the bound is 2^-12 of the value.
    const double x = to_float(out[i]);
    const double ref = x * (1.0 + 0x1p-10 * (static_cast<double>(i % 7) - 3.0) / 3.0);
    reference[i] = {ref, ref - std::abs(ref) * 0x1p-12, ref + std::abs(ref) * 0x1p-12};
  }
  Sizes sizes{{columns, 1, 1, 1, true}, rows};
  const CompareContext context{Field::hidden_states, sizes, nullptr};
  Judgement judgement;
  const double ours = seconds_of([&] { judgement = compare_rounded(context, out, reference); }, 5);
  const double count = static_cast<double>(out.size());
  fmt::print("{:<34} {:8.1f}e6 elements per second ({} rejected, {} mismatched)\n", "assay, all metrics",
             count / ours / 1e6, judgement.rejected, judgement.mismatched);

  const auto path = std::filesystem::temp_directory_path() / "assay-bench-compare.bin";
  {
    std::ofstream file(path, std::ios::binary);
    for (const Bf16 x : out) {
      const float value = to_float(x);
      file.write(reinterpret_cast<const char*>(&value), sizeof value);
    }
    if (!file) throw InputError(fmt::format("{}: could not be written", path.string()));
  }
  std::fflush(stdout);
  const char* python = std::getenv("ASSAY_PYTHON");
  const auto command =
      fmt::format("{} {}/harness/cli/bench_peers.py {} {}", python == nullptr ? "python3" : python,
                  ASSAY_SOURCE_ROOT, path.string(), ours);
  const int status = std::system(command.c_str());
  std::filesystem::remove(path);
  if (status != 0) throw InputError("the peers need a Python with numpy and torch; set ASSAY_PYTHON");
  return ExitCode::Passed;
}

}  // namespace

void add_bench(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand(
      "bench", "time the fused GPU layer beside cuBLAS, other projects and the roofline; time the checker");
  command->require_subcommand(1);
  command->footer(
      "Nothing is timed that has not just been verified.\n"
      "Examples: assay bench layer --tokens 16 4096            the layer and its stages on this GPU\n"
      "          assay bench layer --peers --backward          beside HuggingFace, Unsloth, Liger, ...\n"
      "          assay bench compare                           the checker, in elements per second");
  struct Options {
    std::int64_t rows = 256;
    std::int64_t k = 2048;
    std::int64_t n = 1536;
    std::int64_t compared_rows = 4096;
    std::int64_t columns = 2048;
  };
  auto options = std::make_shared<Options>();
  auto* products =
      command->add_subcommand("product", "predicted and bounded products, multiply-adds per second and core");
  products->add_option("--rows", options->rows, "of one expert")->check(kCount)->capture_default_str();
  products->add_option("-k", options->k, "what is summed over")->check(kCount)->capture_default_str();
  products->add_option("-n", options->n, "columns of the result")->check(kCount)->capture_default_str();
  products->footer(
      "A line per set of vector instructions that this CPU has: all give the same bits. A token of\n"
      "Qwen3-30B-A3B takes top_k x 3 x H x I = 38e6 multiply-adds of each kind, forward.\n"
      "Example: assay bench product --rows 256 -k 2048 -n 1536");
  products->callback([options, &program] {
    program.selected = [options] { return product(options->rows, options->k, options->n); };
  });
  add_bench_layer(*command, program);
  auto* comparison = command->add_subcommand(
      "compare", "elements per second beside numpy.testing.assert_allclose and torch.testing.assert_close");
  comparison->add_option("--rows", options->compared_rows, "of the field, [rows, columns]")
      ->check(kCount)
      ->capture_default_str();
  comparison->add_option("--columns", options->columns, "likewise")->check(kCount)->capture_default_str();
  comparison->footer(
      "The same arrays for all three; numpy and torch say yes or no, assay gives every figure of a report.\n"
      "ASSAY_PYTHON names a Python that has both. Example: assay bench compare --rows 4096 --columns 2048");
  comparison->callback([options, &program] {
    program.selected = [options] { return compare(options->compared_rows, options->columns); };
  });
}

}  // namespace assay::cli
