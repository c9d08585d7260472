"""Writes users into a store until it is done or killed: ``python write_users.py STORE WRITER N_WRITES``."""

import sys
from pathlib import Path

import numpy as np
import torch

from nlpmeta.users.file import UsersFile
from nlpmeta.users.heads import pack

if __name__ == "__main__":
    path, writer, n_writes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    file = UsersFile(path, {"encoder": "test"})
    for i in range(n_writes):
        value = float(writer * 1_000_000 + i)
        state = {"weight": torch.full((2, 300), value), "bias": torch.full((2,), value)}
        packed = pack("any", state, np.asarray(["a", "b"]), "int8")
        file.write({"shared": packed, f"{writer}-{i}": packed})  # both or none
        sys.stdout.write(f"{i}\n")
        sys.stdout.flush()
