// What harness/precompiled/standard.h is to other libraries; and the parser of command lines.
#include <CLI/CLI.hpp>

#include "harness/precompiled/standard.h"
