"""The leaderboard: many score files on one page, and the same behind an upload form (``app.py``)."""

from medground_bench.pages.leaderboard.page import collect_results, leaderboard_page, link_to, write_leaderboard

__all__ = ["collect_results", "leaderboard_page", "link_to", "write_leaderboard"]
