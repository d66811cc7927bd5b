"""``python -m course_lib.command_line``: the command ``course-lib`` without its script."""

import sys

from course_lib.command_line import main

sys.exit(main())
