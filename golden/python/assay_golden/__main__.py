"""python -m assay_golden export|hash|check|peer"""

import sys

try:
    from .cli import main

    code = main()
except ModuleNotFoundError as error:
    print(f"assay_golden: Python at {sys.executable} lacks {error.name}; golden/python/requirements.txt lists what is needed", file=sys.stderr)
    code = 3
except ImportError as error:
    print(f"assay_golden: a library cannot be used: {' '.join(str(error).split())}", file=sys.stderr)
    code = 3
sys.exit(code)
