// The same for tests.
#pragma once

#include <doctest/doctest.h>

#include "harness/precompiled/standard.h"
