"""What `ssna report` reads from run folders, and the page that it makes of it."""

from ssna.reports.contents import SAMPLED_USERS, Group, RunReport, digest_of_test, group_of, in_order, read_run
from ssna.reports.page import GENERATOR, render

__all__ = [
    "GENERATOR",
    "SAMPLED_USERS",
    "Group",
    "RunReport",
    "digest_of_test",
    "group_of",
    "in_order",
    "read_run",
    "render",
]
