"""Ours and a worker process's, taking turns."""


def in_turns(ours, worker, repeat):
    """Least seconds and processor seconds of ours() and of the worker, which for each line that it reads
    runs once and writes its own."""
    runs = [], []
    for _ in range(repeat):
        runs[0].append(ours())
        worker.stdin.write("go\n")
        worker.stdin.flush()
        runs[1].append([float(word) for word in worker.stdout.readline().split()])
    worker.stdin.close()
    worker.wait()
    return [[min(column) for column in zip(*figures)] for figures in runs]
