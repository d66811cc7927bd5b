"""What runs beside a submission inside the box: the runner, its shell, and the wire to the grader.

It holds no reference, expects nothing and compares nothing; the other end is `course_lib.grading`.
"""
