// Two candidates that part, made by hand for the renderers' tests.
#pragma once

#include "harness/contract/parting.h"

namespace assay::sample {

/// Two legal candidates that part at hidden_states; B's name is a tag.
Parting parting();

}  // namespace assay::sample
