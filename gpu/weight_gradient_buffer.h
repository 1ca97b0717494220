// The gradient of a weight in device memory, as bf16 or float32, with what it is added to.
#pragma once

#include <string>
#include <string_view>

#include "gpu/buffer.h"
#include "gpu/kernels/gradient_store.h"
#include "harness/contract/field_set.h"

namespace assay::gpu {

/// How a backward pass leaves the gradients of weights.
struct WeightGradientOptions {
  bool fp32 = false;              // float32 instead of bf16
  bool added = false;             // to what is there
  bool products_rounded = false;  // to bf16, before they are added or kept in float32
};

/// Those of a field under a contract, where `previous` is what gradients are added to.
WeightGradientOptions weight_gradient_options(Field field, std::string_view contract,
                                              const FieldSet& previous);

/// Guarded and poisoned as bytes: NaN in either type.
class WeightGradientBuffer {
 public:
  WeightGradientBuffer(const std::string& name, std::int64_t count, const WeightGradientOptions& options)
      : options_(options), bytes_(name, count * (options.fp32 ? 4 : 2)) {}

  WeightGradient view() const {
    using enum GradientStore;
    const GradientStore store = options_.fp32    ? options_.added ? Fp32Added : Fp32
                                : options_.added ? Bf16Added
                                                 : Bf16;
    return {bytes_.data(), store, options_.products_rounded};
  }
  const Buffer<unsigned char>& bytes() const { return bytes_; }
  Buffer<unsigned char>& bytes() { return bytes_; }
  std::int64_t size() const { return bytes_.size() / (options_.fp32 ? 4 : 2); }
  bool fp32() const { return options_.fp32; }

  /// Where gradients are added: uploads those of before. Throws InputError where they have another shape or
  /// type.
  void upload_previous(Field field, const FieldSet& previous, const Sizes& sizes);

 private:
  WeightGradientOptions options_;
  Buffer<unsigned char> bytes_;
};

}  // namespace assay::gpu
