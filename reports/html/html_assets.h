// The page's files, from reports/html/, as they are compiled in.
#pragma once

#include <string_view>

namespace assay::html {

extern const std::string_view kPage;    // page.html, with {{markers}}
extern const std::string_view kStyle;   // style.css
extern const std::string_view kScript;  // script.js

}  // namespace assay::html
