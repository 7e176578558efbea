#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the benchmark makes ratios of measurements, and what it calls met."""
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import aims  # noqa: E402


def make_rows(text):
    """Lines "RUN GROUP METRIC IMAGE PROGRAM VALUE UNIT"."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False) as f:
        f.write("".join("\t".join(line.split()) + "\n" for line in text.strip().splitlines()))
    try:
        return aims.Rows(f.name)
    finally:
        os.unlink(f.name)


class Ratios(unittest.TestCase):
    def judge(self, aim, text):
        return aims.judge(aim, make_rows(text))

    def test_is_the_median_of_pairs_of_one_run(self):
        aim = aims.Aim("seq", "", "seq", "plain", 2, peers=["a"])
        measured, outcome, value = self.judge(aim, """
            1 seq seq plain virtsnapfs 100 MB/s
            1 seq seq plain a 50 MB/s
            2 seq seq plain virtsnapfs 300 MB/s
            2 seq seq plain a 100 MB/s
            3 seq seq plain virtsnapfs 100 MB/s
            3 seq seq plain a 100 MB/s
            4 seq seq plain virtsnapfs 900 MB/s""")
        self.assertEqual(value, 2)
        self.assertEqual(measured, "2 (1 to 3)")
        self.assertEqual(outcome, "met")

    def test_is_to_the_best_of_several(self):
        aim = aims.Aim("seq", "", "seq", "plain", 2, peers=["a", "b", "c"])
        measured, outcome, value = self.judge(aim, """
            1 seq seq plain virtsnapfs 100 MB/s
            1 seq seq plain a 60 MB/s
            1 seq seq plain b 80 MB/s
            1 seq seq plain c NA MB/s""")
        self.assertEqual(value, 1.25)
        self.assertTrue(measured.endswith(", b"))
        self.assertEqual(outcome, "**missed**")

    def test_of_times_the_best_is_the_shortest(self):
        text = """
            1 cp cp plain virtsnapfs 2 s
            1 cp cp plain a 6 s
            1 cp cp plain b 5 s"""
        faster = aims.Aim("cp", "", "cp", "plain", 2, peers=["a", "b"], is_faster=True)
        self.assertEqual(self.judge(faster, text)[1:], ("met", 2.5))
        share = aims.Aim("cp", "", "cp", "plain", at_most=0.4, peers=["a", "b"])
        self.assertEqual(self.judge(share, text)[1:], ("met", 0.4))
        share = aims.Aim("cp", "", "cp", "plain", at_most=0.39, peers=["a", "b"])
        self.assertEqual(self.judge(share, text)[1:], ("**missed**", 0.4))

    def test_of_another_group_is_no_pair(self):
        aim = aims.Aim("images", "", "seq", "frag", 0.85, other=("seq", "plain", [aims.OURS]))
        text = """
            1 images seq frag virtsnapfs 90 MB/s
            1 seq seq plain virtsnapfs 300 MB/s"""
        self.assertEqual(self.judge(aim, text), ("", "not measured", None))
        text += "\n1 images seq plain virtsnapfs 100 MB/s"
        self.assertEqual(self.judge(aim, text)[1:], ("met", 0.9))

    def test_what_stands_for_itself_may_be_nothing(self):
        aim = aims.Aim("hole", "", "hole_io", "sparse1t", at_most=0, unit=" KiB")
        self.assertEqual(self.judge(aim, "1 hole hole_io sparse1t virtsnapfs 0 KiB")[1], "met")
        self.assertEqual(self.judge(aim, "1 hole hole_io sparse1t virtsnapfs 4 KiB")[1], "**missed**")

    def test_a_program_that_was_not_there_is_never_met(self):
        aim = aims.Aim("seq", "", "seq", "plain", 1.4, peers=[aims.HP])
        text = "1 seq seq plain virtsnapfs 100 MB/s"
        self.assertEqual(self.judge(aim, text), ("", "not measured", None))


class Plan(unittest.TestCase):
    def test_has_both_sides_of_each_aim_once(self):
        cells = aims.make_plan(aims.GROUPS)
        self.assertEqual(len(cells), len(set(cells)))
        for aim in aims.AIMS:
            metric = aims.BY_OTHER.get(aim.metric, aim.metric)
            self.assertIn((aim.group, metric, aim.image, aims.OURS), cells, aim.what)

    def test_leaves_out_what_a_program_cannot(self):
        cells = aims.make_plan(aims.GROUPS)
        self.assertNotIn(("compressed", "seq", "zstd", "qcowmount"), cells)


if __name__ == "__main__":
    unittest.main()
