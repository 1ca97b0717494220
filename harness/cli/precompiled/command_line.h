// What harness/contract/precompiled/standard.h is to other libraries; and the parser of command lines.
#include <CLI/CLI.hpp>

#include "harness/contract/precompiled/standard.h"
