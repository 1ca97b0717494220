#!/usr/bin/env bash
# The results of shard.sh as one report: report.html, junit.xml, all.json and comment.md, made for a pull request's comment.
# With HISTORY, a folder of earlier results, the page shows errors and times over them, and these results join it as REVISION.json.
# Ends as the worst case does (assay --help); a share that is missing is refused.
set -uo pipefail
assay=${ASSAY:-assay}
results=${RESULTS:-results}
"$assay" merge "$results"/*.json --json all.json --html report.html --junit junit.xml --markdown comment.md "$@"
status=$?
if [ -n "${HISTORY:-}" ] && [ -f all.json ]; then
  mkdir -p "$HISTORY"
  "$assay" report all.json --history "$HISTORY" --html report.html -q
  cp all.json "$HISTORY/${REVISION:-$(date -u +%Y-%m-%dT%H-%M-%S)}.json"
fi
exit $status
