"""What the `--help` of each command of `jaxbench` ends with."""

LIST = """\
  jaxbench list                      the table
  jaxbench list --sizes --width=64   with parameters and bytes of state
  jaxbench list --json               for programs
  jaxbench list --task=pile --size=100m
                                     width and depth of 100 million parameters
  jaxbench list s4                   all about one: equation, sizes, forms, options
  jaxbench list --pages=docs/backbones
                                     a Markdown page of each
"""
PREPARE = """\
  jaxbench prepare ~/replays         parse once; runs then start in seconds
  jaxbench prepare ~/enwik8.gz       unpack a text corpus once
  jaxbench prepare ~/pile/train      shards *.jsonl.zst; damaged ones are left out
"""
LATENCY = """\
  jaxbench latency runs/suites/zelda-clean-1a2b3c4d
      every trained policy of a suite, one process after the other
  jaxbench latency runs/zelda/s4/seed0-1a2b3c4d --frames=10000
"""
THROUGHPUT = """\
  jaxbench throughput runs/suites/zelda-clean-1a2b3c4d
"""
SAMPLE = """\
  jaxbench sample runs/pile/mamba2/seed0-1a2b3c4d --prompt="It was a dark and"
  jaxbench sample runs/pile/e61/seed0-1a2b3c4d --prompt=1e23 --hex --temperature=0
"""
SCORE = """\
  jaxbench score runs/pile/mamba2/seed0-1a2b3c4d          the test split
  jaxbench score runs/pile/e61/seed0-1a2b3c4d --carry     the state goes on
"""
LEADERBOARD = """\
  jaxbench leaderboard runs/suites/zelda-clean-1a2b3c4d
  jaxbench leaderboard mine theirs --out=both
"""
SUITE = """\
  jaxbench suite --config=configs/zelda.py
      every backbone on the built-in simulation
  jaxbench suite --config=configs/zelda.py:width=64,stride=8 --only=s4,gru,mamba \\
      --seeds=5 --epochs=1 --config.data.replays=~/replays \\
      --config.data.character=falco
      three backbones, five seeds each, on your replays
  jaxbench suite --config=configs/zelda.py --only=original --sweep --jobs=2
      first a shared grid of learning rates, then the best of each
  jaxbench suite --config=configs/pile.py:size=10m,budget=10min --only=elman \\
      --config.data.corpus=classics100.xz
      byte-level language models, equal time for each; budget=50MB: equal text
  jaxbench suite --config=configs/mqar.py:level=L1 --config=configs/flip_flop.py \\
      --only=deltanet,deltanet/noconv,transformer,transformer/conv \\
      --seeds=6 --side_by_side
      several tasks, one board; the seeds of a backbone as one program
  jaxbench suite --config=configs/zelda.py --dry_run
      what would run, and what is done
"""
