// Device memory for code of somebody else.
#pragma once

#include <memory>

#include "harness/contract/candidate.h"
#include "harness/host/foreign_memory.h"

namespace assay {

/// On the current device. Throws InputError where there is none.
std::unique_ptr<ForeignMemory> foreign_device_memory();

/// A candidate with device, compute capability and versions of the current device filled in. Throws
/// InputError where there is none.
Candidate candidate_of_device(const std::string& name);

}  // namespace assay
