"""Checks the documents against the sources: links, quoted messages, listed keys, folder order.

Usage: documents_test.py BUILD_FOLDER
"""

import re
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "programs"))
from programs import BUILD, ENVIRONMENT, ROOT  # takes BUILD_FOLDER


class Documents(unittest.TestCase):
    def test_no_file_includes_a_later_folder(self):
        """A file in src includes only from its folder and from the folders above it.

        The table of src/README.md lists the folders in order.
        """
        order = re.findall(r"^\| `(\w+)/` ", (ROOT / "src/README.md").read_text(), re.MULTILINE)
        self.assertEqual(sorted(order),
                         sorted(path.name for path in (ROOT / "src").iterdir() if path.is_dir()))
        includes = 0
        for folder in order:
            for path in (ROOT / "src" / folder).iterdir():
                if path.suffix not in (".h", ".cpp"):
                    continue
                for included in re.findall(r'#include "(\w+)/', path.read_text()):
                    self.assertLessEqual(order.index(included), order.index(folder),
                                         f"{path.relative_to(ROOT)} includes {included}/")
                    includes += 1
        self.assertGreater(includes, 150)

    def test_links_lead_to_files(self):
        links = 0
        for document in (*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")):
            if document.relative_to(ROOT).parts[0] in ("build", "output"):
                continue
            for link in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
                if not re.match(r"\w+:", link):
                    self.assertTrue((document.parent / link).exists(), f"{document}: {link}")
                    links += 1
        self.assertGreater(links, 50)

    def test_troubleshooting_quotes_the_messages_word_for_word(self):
        """Every message quoted in the troubleshooting table occurs in the sources.

        The test cuts each message at its placeholders.
        """
        sources = [
            *(ROOT / "src").rglob("*.c"), *(ROOT / "src").rglob("*.cpp"),
            *(ROOT / "datagen").glob("*.cpp"), *(ROOT / "launch").glob("*.sh"),
            *(ROOT / "slurm").glob("*.sh"), *(ROOT / "tools").glob("*.*"), ROOT / "CMakeLists.txt"
        ]
        text = re.sub(r'"\s*\n\s*"', "", "\n".join(path.read_text() for path in sources))
        table = (ROOT / "launch/TROUBLESHOOTING.md").read_text()
        messages = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
        self.assertGreater(len(messages), 12)
        for message in messages:
            pieces = [piece.strip() for piece in re.split(r"\.\.\.|\b(?:N|M|A|B|KEY)\b", message)]
            for piece in filter(lambda piece: len(piece) > 3, pieces):
                self.assertTrue(piece in text, f"{piece!r} of {message!r} is not in the sources")

    def test_help_lists_every_key(self):
        """The help of train_gpt2 lists every key of the table in settings.cpp, with its role."""
        def help_of(program):
            result = subprocess.run([BUILD / program, "--help"], capture_output=True, text=True,
                                    env=ENVIRONMENT)
            self.assertEqual(result.returncode, 0, program)
            entries = re.split(r"^ *--(?=[\w.]+)", result.stdout, flags=re.MULTILINE)[1:]
            return {entry.split()[0]: entry.split()[-1] for entry in entries}

        table = (ROOT / "src/program/settings.cpp").read_text()
        rows = re.findall(r'\badd\(\s*"([\w.]+)".*?\bk(DefinesRun|DefinesData|Free)\b', table,
                          re.DOTALL)
        self.assertGreater(len(rows), 50)
        found = help_of("train_gpt2")
        marks = {"DefinesRun": "[run]", "DefinesData": "[data]"}
        for key, role in rows:
            self.assertIn(key, found)
            mark = found[key] if found[key] in marks.values() else None
            self.assertEqual(mark, marks.get(role), key)
        for program in ("generate_trajectories", "evaluate_policy", "analyze_policy"):
            self.assertIn("dataset.path", help_of(program))


if __name__ == "__main__":
    unittest.main()
