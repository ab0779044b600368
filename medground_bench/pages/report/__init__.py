"""One self-contained page about submissions: numbers beside chance, the funnel, and the records themselves."""

from medground_bench.pages.report.page import report_page, scored, write_report

__all__ = ["report_page", "scored", "write_report"]
