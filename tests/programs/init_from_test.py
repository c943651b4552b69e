"""Tests what a trained network is taken elsewhere by: export_policy, and training.init_from.

Usage: init_from_test.py BUILD_FOLDER
"""

import json
import shutil
import unittest

import torch

from programs import TrainTest, run, tree


class InitFrom(TrainTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.trained = cls.data.parent / "trained"
        assert run("train_gpt2", "--dataset.path", cls.data, "--out_dir",
                   cls.trained).returncode == 0
        result = run("export_policy", "--dataset.path", cls.data, "--out_dir", cls.trained)
        assert result.returncode == 0, result.stderr
        cls.export = cls.trained / "export"

    def begin(self, source, *arguments, name="run", ranks=1):
        return self.train("--training.init_from", source, "--training.train_steps", 4,
                          "--training.learning_rate", 0, *arguments, out=self.folder / name,
                          ranks=ranks)

    def model(self, folder):
        return torch.load(folder / "state.pt")["model"]

    def test_a_run_begins_with_the_weights_of_a_checkpoint_or_an_export(self):
        trained = self.model(self.trained)
        for name, source, ranks in (("a", self.trained / "state.pt", 1), ("b", self.export, 2)):
            self.expect(self.begin(source, name=name, ranks=ranks), 0, f"a new run from {source}")
            begun = self.model(self.folder / name)
            self.assertEqual(trained.keys(), begun.keys())
            for key, tensor in trained.items():
                self.assertTrue(torch.equal(tensor, begun[key]), key)

    def test_a_run_that_goes_on_does_not_begin_again(self):
        copy = self.folder / "export"
        shutil.copytree(self.export, copy)
        self.expect(self.begin(copy), 0)
        shutil.rmtree(copy)
        self.expect(self.begin(copy), 0, "nothing to do")

    def test_other_networks_and_damage_are_refused_before_anything_is_written(self):
        copy = self.folder / "export"
        shutil.copytree(self.export, copy)
        cases = (("--model.n_embd", 32, "has model.n_embd 16, this run 32"),
                 ("--model.n_layer", 1, "has model.n_layer 2, this run 1"),
                 ("--model.n_positions", 12, "has model.n_positions 16, this run 12"),
                 ("--model.family", "gru", "has model.family gpt2, this run gru"),
                 ("--model.feature_scales", "[1, 1, 1, 1, 2, 10]", "model.feature_scales"))
        for key, value, complaint in cases:
            self.expect(self.begin(self.export, key, value, ranks=2), 78, complaint)
        self.expect(self.begin(self.folder / "nothing"), 65, "nothing")
        self.expect(self.begin(self.trained), 65, "is neither a checkpoint nor an exported folder")
        weights = copy / "model.safetensors"
        good = weights.read_bytes()
        for bad in (good[:-1], good[:-1] + bytes([good[-1] ^ 1]), b""):
            weights.write_bytes(bad)
            self.expect(self.begin(copy), 65, "is not the file that")
        (copy / "SHA256SUMS").unlink()
        self.expect(self.begin(copy), 74, "SHA256SUMS")
        self.assertFalse((self.folder / "run").exists())

    def test_another_world_with_another_period_or_force_is_refused(self):
        for key, value in (("control_period", 0.01), ("force_limit", 8)):
            data = self.folder / key
            world = (f"--world.{key}", value, "--evaluation.steps", 600)
            self.expect(self.generate(*world, path=data), 0)
            self.expect(self.train("--training.init_from", self.export, *world, data=data), 78,
                        f"world.{key}")

    def test_export_is_the_same_again_and_complete(self):
        first = tree(self.export)
        again = run("export_policy", "--dataset.path", self.data, "--out_dir", self.trained)
        self.expect(again, 0, "step 20")
        self.assertEqual(tree(self.export), first)
        listed = [line.split()[1] for line in (self.export / "SHA256SUMS").read_text().splitlines()]
        self.assertEqual(sorted(listed + ["SHA256SUMS"]), sorted(first))
        facts = json.loads((self.export / "controller.json").read_text())
        self.assertEqual(facts["window"], 16)
        self.assertEqual(len(facts["delta_rms"]), 4)

    def test_what_cannot_be_exported_says_so(self):
        self.expect(
            run("export_policy", "--dataset.path", self.data, "--out_dir", self.folder / "none"),
            65, "no checkpoint in")
        other = self.folder / "other"
        self.expect(self.generate("--dataset.seed", 9, path=other), 0)
        self.expect(run("export_policy", "--dataset.path", other, "--out_dir", self.trained), 65,
                    "was trained on a different dataset than")
        gru = self.folder / "gru"
        self.expect(self.train("--model.family", "gru", out=gru), 0)
        self.expect(run("export_policy", "--dataset.path", self.data, "--out_dir", gru), 78,
                    "model.family gru cannot be exported")


if __name__ == "__main__":
    unittest.main()
