// A last sentence for code that may crash.
#pragma once

#include <string>

namespace assay::cli {

/// While one lives, a crash (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) prints "assay: error: SENTENCE (signal
/// N)" on stderr and ends the program with exit code 1. One at a time.
class CrashSentence {
 public:
  explicit CrashSentence(const std::string& sentence);
  ~CrashSentence();
  CrashSentence(const CrashSentence&) = delete;
  CrashSentence& operator=(const CrashSentence&) = delete;
};

}  // namespace assay::cli
