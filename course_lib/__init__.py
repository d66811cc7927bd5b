"""Deep generative models, written to be read beside the equations they implement.

One package per family, which never import one another: `course_lib.families` lists them. Shared
modules below them (`data`, `divergences`, `networks`, `protocols`, `training`, `evaluation`) and
tools for notebooks above them (`plotting`, `widgets`).

Conventions everywhere: `log` is natural, information is in nats unless a name says bits, a
per-example quantity has shape ``(N,)``, and images are ``(N, C, H, W)``.
"""

__version__ = "0.1.0"
