#include "harness/contract/problem.h"

#include <map>
#include <mutex>

namespace assay {

ExpertLoader stored_experts(std::shared_ptr<const Tensor> gate_up_proj,
                            std::shared_ptr<const Tensor> down_proj) {
  return [=](Field field, std::int64_t expert) -> ExpertMatrix {
    const auto& tensor = field == Field::gate_up_proj ? gate_up_proj : down_proj;
    const auto count = static_cast<std::size_t>(tensor->shape()[1] * tensor->shape()[2]);
    return {tensor->as<Bf16>().subspan(static_cast<std::size_t>(expert) * count, count), tensor};
  };
}

ExpertLoader cached_experts(ExpertLoader loader, std::size_t budget_bytes) {
  struct Cache {
    std::mutex mutex;
    std::map<std::pair<Field, std::int64_t>, ExpertMatrix> held;
    std::size_t bytes = 0;
  };
  auto cache = std::make_shared<Cache>();
  return [=](Field field, std::int64_t expert) -> ExpertMatrix {
    {
      const std::scoped_lock lock(cache->mutex);
      const auto found = cache->held.find({field, expert});
      if (found != cache->held.end()) return found->second;
    }
    auto matrix = loader(field, expert);
    const std::scoped_lock lock(cache->mutex);
    if (cache->bytes + matrix.values.size_bytes() <= budget_bytes &&
        cache->held.emplace(std::pair(field, expert), matrix).second)
      cache->bytes += matrix.values.size_bytes();
    return matrix;
  };
}

}  // namespace assay
