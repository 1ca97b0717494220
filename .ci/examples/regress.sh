#!/usr/bin/env bash
# all.json of merge.sh against the accepted results, BASELINE (baseline.json), which lie in the repository: regress.html, and a part of comment.md.
# A change that is meant is let pass by its author, and the approval goes with it through the review:
#   assay regress --baseline baseline.json --candidate all.json --approve --why 'sums in fp32' && git add baseline.approved.json
# Ends with 1 for a regression; a legal change is told in the comment, and ends well.
set -uo pipefail
baseline=${BASELINE:-baseline.json}
if [ ! -f "$baseline" ]; then
  printf '\nNothing to compare with: commit all.json of an accepted run as %s.\n' "$baseline" | tee -a comment.md
  exit 0
fi
"${ASSAY:-assay}" regress --baseline "$baseline" --candidate all.json --html regress.html --markdown regress.md "$@"
status=$?
[ -f regress.md ] && { echo; cat regress.md; } >>comment.md
[ $status -eq 4 ] && exit 0
exit $status
