# What ./dev test --huggingface needs: an environment with torch, and its tests. Read by dev.

python_environment() {
  local requirements=golden/python/requirements.txt wanted
  wanted=$(sha256sum "$requirements" | cut -d ' ' -f 1) || fail "expected $requirements, which is not there"
  [ "$(cat "$venv/.complete" 2>/dev/null)" = "$wanted" ] && return 0
  install python3 python3-venv
  need_room 14 "the HuggingFace environment"
  if [ ! -x "$venv/bin/pip" ]; then
    rm -rf "$venv"
    quietly venv "python3 could not make a virtual environment in $venv" python3 -m venv "$venv"
  fi
  say "installing PyTorch and HuggingFace transformers into $venv (several GB, some minutes)"
  quietly pip "the Python packages of $requirements could not be installed" \
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$requirements"
  # The last releases with one module per expert, beside the present one: the exporter serves both.
  quietly pip4 "transformers 4.57 could not be installed below $venv" \
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --target "$venv/transformers4" \
    'transformers==4.57.*' 'huggingface-hub<1' 'tokenizers>=0.22,<0.23'
  quietly pip-requests "requests could not be installed in $venv" \
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input requests
  echo "$wanted" >"$venv/.complete"
}

begin_python_environment() {  # beside the builds, for downloads and unpacking leave a processor idle; end_python_environment waits for it
  install "${packages[@]}" python3 python3-venv # apt works for one at a time
  set -m # a group of its own, which ends with the script
  python_environment &
  environment=$!
  set +m
  trap 'kill -- "-$environment" 2>/dev/null' EXIT
}

end_python_environment() {
  wait "$environment" || exit 3
  trap - EXIT
}

python_tests() {  # what needs torch; logs: $logs/python.*.log; counts in python_passed, python_failed, python_skipped
  say "running the tests that need torch"
  local part status passed failed skipped
  local -A running=()
  # Each part is one thread but where torch computes: side by side.
  for part in golden harness; do
    local folder=golden/python/tests top=golden/python pattern='test*.py'
    [ $part = harness ] && folder=harness/python/tests top=harness/python/tests pattern='test_torch*.py'
    ASSAY="$PWD/$build/harness/cli/assay" ASSAY_TRANSFORMERS4="$PWD/$venv/transformers4" PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=harness/python:golden/python \
      "$venv/bin/python" -m unittest discover -v -s $folder -t $top -p "$pattern" >"$logs/python.$part.log" 2>&1 &
    running[$part]=$!
  done
  for part in golden harness; do
    wait "${running[$part]}"
    status=$?
    read -r passed failed skipped < <(python3 .ci/count.py --unittest "$logs/python.$part.log" "$status")
    python_passed=$((python_passed + passed)) python_failed=$((python_failed + failed)) python_skipped=$((python_skipped + skipped))
    grep -E " \.\.\. (skipped|FAIL|ERROR)" "$logs/python.$part.log"
    if [ "$failed" -gt 0 ]; then sed -n '/^=====/,$p' "$logs/python.$part.log" | tail -n 200; fi
  done
}
