// The same for tests.
#include <doctest/doctest.h>

#include "harness/contract/precompiled/standard.h"
