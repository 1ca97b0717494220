// Which matrix products the layer has, and how an operand of one lies: what kernels need to know of the graph
// (layer.h).
#pragma once

#include <cstddef>

namespace assay {

/// The layer's matrix products. Weight gradients are `_dw`, gradients of a product's rows `_dx`.
enum class ProductId {
  router,
  gate_up,
  down,
  down_dx,
  down_dw,
  gate_up_dx,
  gate_up_dw,
  router_dx,
  router_dw,
};
inline constexpr std::size_t kProductCount = static_cast<std::size_t>(ProductId::router_dw) + 1;

/// How an operand of a product lies: K along its columns, or along its rows (read transposed).
enum class Lies { AlongColumns, AlongRows };

}  // namespace assay
