"""What `ssna report` reads from run folders, and the page that it makes of it."""

from ssna.reports.contents import Group, RunReport, group_of, read_run, tested_on
from ssna.reports.page import GENERATOR, render

__all__ = ["GENERATOR", "Group", "RunReport", "group_of", "read_run", "render", "tested_on"]
