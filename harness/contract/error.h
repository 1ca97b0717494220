// Errors that end a command. The message is one sentence: what was expected, what was found, where.
#pragma once

#include <stdexcept>
#include <string>

namespace assay {

/// The call itself is wrong: unknown option, name or combination. Exit code 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The program could not judge: file, schema, hash, disk or device. Exit code 3.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The implementation under test did what none may: wrote outside its results, changed an input, crashed. The
/// verdict is Failed.
struct CandidateError : InputError {
  using InputError::InputError;
};

}  // namespace assay
