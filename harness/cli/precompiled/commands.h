// What harness/precompiled/standard.h is to other libraries; and the parser of command lines.
#pragma once

#include <CLI/CLI.hpp>

#include "harness/precompiled/standard.h"
