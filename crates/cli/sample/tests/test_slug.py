"""What slugs look like."""

import unittest

from textkit import slugify


class SlugTest(unittest.TestCase):
    def test_words_are_joined_by_hyphens(self):
        self.assertEqual(slugify("Hello World"), "hello-world")

    def test_accents_are_dropped(self):
        self.assertEqual(slugify("Café au lait"), "cafe-au-lait")

    def test_ends_are_trimmed(self):
        self.assertEqual(slugify("  Ready?  "), "ready")

    def test_long_titles_are_cut(self):
        self.assertEqual(slugify("one two three", max_length=8), "one-two")

    def test_runs_of_separators_become_one_hyphen(self):
        self.assertEqual(slugify("Rust & Python: a love story"), "rust-python-a-love-story")


if __name__ == "__main__":
    unittest.main()
