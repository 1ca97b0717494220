"""python -m assay_golden export|hash|check"""

import sys

from .cli import main

sys.exit(main())
