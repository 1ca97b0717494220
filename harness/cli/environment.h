// What a report must say about where it was made.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace assay::cli {

/// "assay 0.1.0 (revision)"
std::string version();

/// Revision, compiler, CPU, threads, vector width of the reference, library versions.
std::vector<std::pair<std::string, std::string>> environment();

/// Now, UTC, "2026-11-21T08:00:00Z".
std::string utc_now();

/// Largest resident size of this process so far.
std::int64_t peak_memory_bytes();

/// Progress goes to stderr, and only when somebody looks: a terminal that is not a CI log.
bool shows_progress();

/// One line on stderr, overwritten by the next; nothing unless shows_progress().
void progress(const std::string& line);
void progress_done();

}  // namespace assay::cli
