#!/usr/bin/env bash
# The results of shard.sh as one report: report.html, junit.xml and comment.md, made for a pull request's comment.
# Ends as the worst case does (assay --help); a share that is missing is refused.
set -uo pipefail
results=${RESULTS:-results}
exec "${ASSAY:-assay}" merge "$results"/*.json --html report.html --junit junit.xml --markdown comment.md "$@"
