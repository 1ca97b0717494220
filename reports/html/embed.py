"""Writes text files as C++ string constants: embed.py OUTPUT kName=FILE..."""

import sys

CHUNK = 8000  # compilers limit the length of one literal


def literal(text: str) -> str:
    chunks = [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)] or [""]
    return "\n    ".join(f'R"assay({chunk})assay"' for chunk in chunks)


def main() -> None:
    output, *sources = sys.argv[1:]
    parts = ['#include "reports/html/html_assets.h"\n\nnamespace assay::html {\n']
    for source in sources:
        name, path = source.split("=", 1)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if ')assay"' in text:
            sys.exit(f'{path}: expected no )assay" in an embedded file, found one')
        parts.append(f"const std::string_view {name} =\n    {literal(text)};\n")
    parts.append("}  // namespace assay::html\n")
    with open(output, "w", encoding="utf-8") as file:
        file.write("\n".join(parts))


main()
