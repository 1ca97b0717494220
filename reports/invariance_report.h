// What assay invariance found: a matrix of changes by fields, for a terminal, as JSON and as a page.
#pragma once

#include <span>
#include <string>

#include "harness/contract/invariant.h"
#include "harness/contract/report.h"
#include "reports/text.h"

namespace assay {

/// A row per field, a column per change: "=" where every bit is the same, else how many tokens differ.
std::string invariance_table(const InvarianceCase& one, const TextOptions& options);

/// Schema "assay-invariance", version 1. `judged`: a case each, in schema "assay-report".
std::string invariance_json(std::span<const InvarianceCase> cases, const Report& judged);

/// A page that needs no network and no script.
std::string render_invariance_html(std::span<const InvarianceCase> cases, const Report& judged);

/// "=", "12 of 768" tokens or elements, "" where the field was not compared.
std::string invariance_cell(const InvarianceChange& change, Field field);
/// Fields that any change compared, in the order of the table.
std::vector<Field> fields_compared(const InvarianceCase& one);

}  // namespace assay
