"""A bench that tries to break backups and restores. `make hostile SEED=1 RUNS=1` runs it, docs/hostile.md tells what it found.

- world.py makes repositories whose whole history is known, corruptions.py damages copies of them, injection.py makes system calls fail;
- actions.py runs our code in a process of its own, with a limit for time and memory (process.py);
- judge.py compares the outcome with the known history, stock.py asks the stock versions of repozo;
- bench.py plans the cases, spreads them over the cores and prints the table.
"""
