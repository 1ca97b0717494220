#include "golden/test_support.h"

#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "golden/described_golden.h"
#include "golden/hdf5_tree.h"
#include "golden/mapped_file.h"
#include "harness/contract/error.h"

namespace assay::test {
namespace {

/// A well-mixed word per index: splitmix64's finaliser.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

Tensor arbitrary(DType dtype, const Shape& shape, std::uint64_t seed) {
  Tensor tensor(dtype, shape);
  auto bytes = tensor.bytes();
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(mix(seed + i) & 0xff);
  return tensor;
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "assay-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Sample make_sample(const MoeConfig& config, std::int64_t batch, std::int64_t sequence, bool backward) {
  Sample sample;
  auto& problem = sample.problem;
  problem.name = "sample";
  problem.config = config;
  problem.batch = batch;
  problem.sequence = sequence;
  problem.seed = 18446744073709551615ull;
  const auto tensor = [&](Field field) {
    return arbitrary(row(field).dtype, expected_shape(field, problem.sizes()),
                     1000 * static_cast<std::uint64_t>(field));
  };
  problem.input = tensor(Field::input_hidden_states);
  problem.gate = tensor(Field::gate);
  problem.experts = stored_experts(std::make_shared<const Tensor>(tensor(Field::gate_up_proj)),
                                   std::make_shared<const Tensor>(tensor(Field::down_proj)));
  auto& golden = sample.golden;
  golden.kind = "golden";
  golden.contract = "hf";
  golden.accumulators[ProductId::router] = {AccumulatorKind::HopperAnySplit, {}};
  golden.accumulators[ProductId::gate_up] = {AccumulatorKind::Hopper, {}};
  golden.accumulators[ProductId::down] = {AccumulatorKind::Hopper, {2, 1}};
  golden.accumulators[ProductId::down_dw] = {AccumulatorKind::Hopper, {}};
  golden.accumulators.rest_as_torch = true;
  golden.producer = "a test";
  golden.device = "cpu";
  golden.compute_capability = "9.0";
  golden.provenance = {{"torch", "2.x"}, {"quote \" and \xc3\xa9", "line\nbreak"}};
  for (const auto& field : kFields) {
    const bool wanted = field.group == Group::Forward || (backward && field.group == Group::Backward);
    if (wanted) golden.fields.set(field.id, tensor(field.id));
  }
  if (backward) problem.output_gradient = tensor(Field::d_hidden_states);
  return sample;
}

Tensor test_fill(const Generator& generator) {
  return arbitrary(DType::BFloat16, generator.shape, mix(generator.seed) + generator.stream * 7919);
}

Regenerators test_regenerators() {
  return {test_fill, [](const Generator& generator, Field, std::int64_t expert) {
            auto whole = std::make_shared<const Tensor>(test_fill(generator));
            const auto count = static_cast<std::size_t>(generator.shape[1] * generator.shape[2]);
            return ExpertMatrix{whole->as<Bf16>().subspan(static_cast<std::size_t>(expert) * count, count),
                                whole};
          }};
}

void use_generators(Problem& problem) {
  for (const Field field : {Field::input_hidden_states, Field::gate, Field::gate_up_proj, Field::down_proj})
    problem.generators[static_cast<std::size_t>(field)] = Generator{"gaussian",
                                                                    "natural",
                                                                    problem.seed,
                                                                    static_cast<std::uint64_t>(field) + 1,
                                                                    expected_shape(field, problem.sizes()),
                                                                    0.1};
  const auto at = [&](Field field) { return *problem.generators[static_cast<std::size_t>(field)]; };
  problem.input = test_fill(at(Field::input_hidden_states));
  problem.gate = test_fill(at(Field::gate));
  problem.experts = [regenerate = test_regenerators().expert, gate_up = at(Field::gate_up_proj),
                     down = at(Field::down_proj)](Field field, std::int64_t expert) {
    return regenerate(field == Field::gate_up_proj ? gate_up : down, field, expert);
  };
}

bool same_tensor(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && std::ranges::equal(a.bytes(), b.bytes());
}

bool same_held(const HeldField& a, const HeldField& b) {
  return a.field == b.field && a.dtype == b.dtype && a.shape == b.shape && a.sha256 == b.sha256 &&
         a.stored == b.stored && same_tensor(a.rows, b.rows);
}

bool same_file(const GoldenFile& a, const GoldenFile& b) {
  const auto& p = a.problem;
  const auto& q = b.problem;
  const auto& c = a.candidate;
  const auto& d = b.candidate;
  bool same = p.name == q.name && p.config == q.config && p.batch == q.batch && p.sequence == q.sequence &&
              p.seed == q.seed && p.generators == q.generators && same_tensor(p.input, q.input) &&
              same_tensor(p.gate, q.gate) && a.has_inputs == b.has_inputs && a.origins == b.origins &&
              a.expert_hashes == b.expert_hashes && c.kind == d.kind && c.contract == d.contract &&
              c.accumulators == d.accumulators && c.producer == d.producer && c.device == d.device &&
              c.compute_capability == d.compute_capability && c.provenance == d.provenance &&
              c.remarks == d.remarks && static_cast<bool>(p.experts) == static_cast<bool>(q.experts);
  for (const auto& field : kFields)
    for (const auto set : {&Candidate::fields, &Candidate::oracle}) {
      same = same && (c.*set).has(field.id) == (d.*set).has(field.id);
      if (same && (c.*set).has(field.id)) same = same_tensor((c.*set).at(field.id), (d.*set).at(field.id));
    }
  same = same && c.held.size() == d.held.size();
  for (std::size_t i = 0; same && i < c.held.size(); ++i) same = same_held(c.held[i], d.held[i]);
  for (std::int64_t expert = 0; same && p.experts && expert < p.config.num_experts; ++expert)
    for (const Field field : {Field::gate_up_proj, Field::down_proj})
      same = same && std::ranges::equal(p.experts(field, expert).values, q.experts(field, expert).values);
  return same;
}

GoldenFile read_here(const std::filesystem::path& path) {
  return golden_of(
      {std::make_shared<const OpenedFile>(path), hdf5::read_tree(path, MappedFile(path).bytes())}, path,
      test_regenerators());
}

std::string read_bytes(const std::filesystem::path& path) {
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string input_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace assay::test
