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

/// Whether somebody looks at stderr: a terminal that is not a CI log.
bool shows_progress();

/// On stderr. That it cannot be written to ends nothing.
void say(const std::string& text);

/// On a terminal one line on stderr, overwritten by the next; in a log a line of its own, every half minute
/// at most. From any thread.
void progress(const std::string& line);
void progress_done();

}  // namespace assay::cli
