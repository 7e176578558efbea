#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How bench/methods makes its table, and puts it into a page."""
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import methods  # noqa: E402

ROWS = """
    1 alone gap_ms 100
    1 alone rate 200
    1 alone load 0.5
    1 overlay first_ms 30
    1 overlay gap_ms 150
    1 overlay rate_permille 900
    1 overlay written_kib 600
    1 overlay guest_kib 200
    2 alone gap_ms 50
    2 overlay first_ms 20
    2 overlay gap_ms 200
    3 alone gap_ms 100
    3 overlay first_ms 90
    3 overlay gap_ms 100
    1 cold-lock first_ms 7
"""


class Table(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "rows")
        with open(path, "w", encoding="utf-8") as f:
            f.write("".join("\t".join(line.split()) + "\n" for line in ROWS.strip().splitlines()))
        self.rows = methods.Rows(path)

    def tearDown(self):
        self.folder.cleanup()

    def test_pauses_are_compared_within_a_run(self):
        self.assertEqual(methods.cells(self.rows, "overlay")[2], "1.5 (1 to 4)")

    def test_has_the_median_and_the_range(self):
        self.assertEqual(methods.cells(self.rows, "overlay")[0], "30 (20 to 90)")

    def test_what_is_written_is_compared_with_what_the_guest_wrote(self):
        self.assertEqual(methods.cells(self.rows, "overlay")[6], "3")

    def test_what_was_not_measured_is_a_dash(self):
        self.assertEqual(methods.cells(self.rows, "cold-lock")[1:4], ["-", "-", "-"])

    def test_leaves_out_methods_without_rows(self):
        lines = list(methods.table(self.rows))
        self.assertEqual(len([line for line in lines if line.startswith("| `")]), 2)

    def test_writes_over_what_was_between_the_markers(self):
        page = os.path.join(self.folder.name, "page.md")
        with open(page, "w", encoding="utf-8") as f:
            f.write(f"before\n{methods.BEGIN}\nstale\n{methods.END}\nafter\n")
        for _ in range(2):
            methods.write_docs(self.rows, page)
        with open(page, encoding="utf-8") as f:
            text = f.read()
        self.assertNotIn("stale", text)
        self.assertEqual(text.count("`cold=lock`"), 1)
        self.assertTrue(text.startswith("before\n") and text.endswith(f"{methods.END}\nafter\n"))


if __name__ == "__main__":
    unittest.main()
