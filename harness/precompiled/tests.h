// The same for tests.
#include <doctest/doctest.h>

#include "harness/precompiled/standard.h"
