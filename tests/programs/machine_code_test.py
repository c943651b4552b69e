"""Checks the machine code of the kernels. Usage: machine_code_test.py BUILD_FOLDER"""

import re
import subprocess
import unittest

from programs import BUILD, NEON, ProgramTest  # takes BUILD_FOLDER


class MachineCode(ProgramTest):
    def test_the_kernels_are_vectorized(self):
        """A scalar sine in the loop would make it ten times slower and change no result."""
        least = {"step": 100, "act": 50, "draw": 100, "sines": 3, "stabilize": 3}
        if NEON:
            on_whole_registers = {"neon": r"\bf\w+\tv\d+\.2d"}
        else:
            on_whole_registers = {"avx2": r"\bv\w+pd .*%ymm", "avx512": r"\bv\w+pd .*%zmm"}
            # These load under a condition, which NEON cannot.
            least |= {"judge": 50, "disturb": 3, "kick": 3}
        for architecture, operation in on_whole_registers.items():
            kernel = BUILD / f"CMakeFiles/control_{architecture}.dir/src/cartpole/kernel.cpp.o"
            code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", kernel],
                                  capture_output=True, text=True, check=True).stdout
            self.assertNotRegex(code, r"\t(callq?|blr?)\s")
            vector = {}
            for name, body in re.findall(r"<\w+GLOBAL__N_1\d+([a-z]+)E\w+>:\n((?:.+\n)*)", code):
                vector[name] = len(re.findall(operation, body))
            self.assertEqual(
                sorted(vector),
                ["act", "disturb", "draw", "judge", "kick", "sines", "stabilize", "step"])
            for name, count in least.items():
                self.assertGreater(vector[name], count, name)
            symbols = subprocess.run(["nm", kernel], capture_output=True, text=True,
                                     check=True).stdout
            # A weak symbol is a function that the linker might give to older processors.
            self.assertNotIn(" W ", symbols)

    def test_attention_keeps_its_sums_in_registers(self):
        """Vectors wider than the registers make it slower and change no result.

        It was six times slower on processors without AVX-512.
        """
        patterns = {
            architecture: (rf"\bvfmadd\w+ps .*%{register}", r"\bvmov\w+ +.*\(%r[sb]p", 50)
            for architecture, register in (("avx2", "ymm"), ("avx512", "zmm"))
        }
        if NEON:
            patterns = {"neon": (r"\bfml[as]\tv\d+\.4s", r"\b(?:ld|st)[rp]\tq\d+, .*\[sp", 120)}
        for architecture, (product, through_stack, least) in patterns.items():
            kernel = BUILD / (f"CMakeFiles/attention_{architecture}.dir/"
                              "src/model/cpu_attention_kernel.cpp.o")
            code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", kernel],
                                  capture_output=True, text=True, check=True).stdout
            products = len(re.findall(product, code))
            through_memory = len(re.findall(through_stack, code))
            self.assertGreater(products, least)
            self.assertLess(through_memory, products / 2)

    def test_the_controller_needs_nothing_but_files_memory_and_two_functions(self):
        """What the library does not import it cannot call: no lock, no thread, no exception."""
        symbols = subprocess.run(["nm", "-D", "--undefined-only", BUILD / "libcartpole_policy.so"],
                                 capture_output=True, text=True, check=True).stdout
        needed = set(re.findall(r" [Uw] (\w+)", symbols))
        allowed = {
            "aligned_alloc", "malloc", "free", "madvise", "fopen", "fclose", "fread", "fseek",
            "ftell", "ferror", "fgetc", "getc", "sin", "cos", "sincos", "memcpy", "memset",
            "__stack_chk_fail", "__cxa_finalize", "__gmon_start__", "_ITM_deregisterTMCloneTable",
            "_ITM_registerTMCloneTable"
        }
        self.assertLessEqual(needed, allowed)
        self.assertIn("aligned_alloc", needed)


if __name__ == "__main__":
    unittest.main()
